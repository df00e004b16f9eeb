package main

import (
	"testing"
	"time"
)

func TestLatencyBucketsAreNarrow(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 63, 64, 65, 127, 128, 1000, 999_999, time.Millisecond, 7 * time.Second, time.Hour} {
		b := bucketOf(d)
		end := bucketEnd(b)
		if end < d {
			t.Errorf("%v falls into a bucket that ends at %v", d, end)
		}
		if d > 0 && float64(end) > float64(d)*(1+1.0/64) {
			t.Errorf("%v falls into a bucket that ends at %v, too far", d, end)
		}
		if b > 0 && bucketEnd(b-1) >= max(d, 0) {
			t.Errorf("%v belongs into the bucket before", d)
		}
	}
	var l latencies
	l.add(1<<63 - 1) // the longest duration has a bucket too
}

func TestPercentiles(t *testing.T) {
	var l latencies
	if got := l.percentile(50); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	for i := 1; i <= 1000; i++ {
		l.add(time.Duration(i) * time.Microsecond)
	}
	for p, want := range map[float64]time.Duration{50: 500 * time.Microsecond, 99: 990 * time.Microsecond, 100: time.Millisecond} {
		if got := l.percentile(p); got < want || float64(got) > float64(want)*1.02 {
			t.Errorf("p%v = %v, want about %v", p, got, want)
		}
	}
}
