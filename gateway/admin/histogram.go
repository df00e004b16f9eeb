package admin

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// histogram counts durations without a lock and without allocation: two atomic
// additions an observation. It is turned into a Prometheus histogram only when
// it is scraped.
type histogram struct {
	bounds []time.Duration // shared, ascending
	counts []atomic.Uint64 // one more than bounds
	sum    atomic.Int64    // nanoseconds
}

func newHistogram(bounds []time.Duration) *histogram {
	return &histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// totals are the numbers of one or several histograms with the same bounds.
type totals struct {
	bounds []time.Duration
	counts []uint64
	sum    time.Duration
}

func (t *totals) add(h *histogram) {
	if t.counts == nil {
		t.bounds, t.counts = h.bounds, make([]uint64, len(h.counts))
	}
	for i := range h.counts {
		t.counts[i] += h.counts[i].Load()
	}
	t.sum += time.Duration(h.sum.Load())
}

func (t *totals) count() (n uint64) {
	for _, c := range t.counts {
		n += c
	}
	return n
}

func (t *totals) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(t.bounds))
	var cumulative uint64
	for i, b := range t.bounds {
		cumulative += t.counts[i]
		buckets[b.Seconds()] = cumulative
	}
	return prometheus.MustNewConstHistogram(desc, t.count(), t.sum.Seconds(), buckets, labels...)
}

// requestBounds are the bounds that OpenTelemetry's semantic conventions give
// for request durations, with finer ones below, where a gateway spends its time.
var requestBounds = durations(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

// overheadBounds are for the time spent inside the gateway.
var overheadBounds = durations(25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05)

func durations(seconds ...float64) []time.Duration {
	list := make([]time.Duration, len(seconds))
	for i, s := range seconds {
		list[i] = time.Duration(s * float64(time.Second))
	}
	return list
}
