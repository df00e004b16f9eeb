package main

import (
	"math/bits"
	"time"
)

// latencies counts durations in buckets that are at most 1/64 of their value
// wide, so that a percentile is right to about 1.6 % without keeping samples.
// The zero value is ready.
type latencies struct {
	count   int
	buckets [64 * 64]int
}

// bucketOf gives values below 64 ns buckets of their own and splits each further power of
// two into 64.
func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 64 {
		return int(v)
	}
	shift := bits.Len64(v) - 7 // v>>shift is in 64…127
	return (shift+1)*64 + int(v>>shift) - 64
}

// bucketEnd is the largest duration of a bucket.
func bucketEnd(bucket int) time.Duration {
	if bucket < 64 {
		return time.Duration(bucket)
	}
	shift := bucket/64 - 1
	return time.Duration((uint64(bucket%64)+65)<<shift - 1)
}

func (l *latencies) add(d time.Duration) {
	l.count++
	l.buckets[bucketOf(d)]++
}

// percentile returns an upper bound of the p-th percentile (0 < p ≤ 100), 0 when nothing
// was counted.
func (l *latencies) percentile(p float64) time.Duration {
	rank := int(p / 100 * float64(l.count))
	seen := 0
	for bucket, n := range l.buckets {
		seen += n
		if n > 0 && seen >= max(rank, 1) {
			return bucketEnd(bucket)
		}
	}
	return 0
}

// join takes in what o counted.
func (l *latencies) join(o *latencies) {
	l.count += o.count
	for i, n := range o.buckets {
		l.buckets[i] += n
	}
}
