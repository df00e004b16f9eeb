// Package pace judges whether a peer moves bytes fast enough.
//
// It owns the arithmetic: an allowance of time, which waiting for the peer uses
// up and bytes earn back. It does not own clocks, connections or what becomes of
// a peer that is too slow.
//
//	m := rule.Begin()
//	began := now()
//	n, err := read(p, began.Add(rule.Patience(m, 0)))
//	m.Waited(rule, int64(n), now().Sub(began))
//	if m.Spent() { … }
package pace

import "time"

// Rule says how slow a peer may be.
type Rule struct {
	// Rate is the least number of bytes a second, on average; 0: any.
	Rate int64
	// Grace is how long a peer may be slower at first.
	Grace time.Duration
	// Idle is how long a single byte may be waited for. Whoever was faster than
	// need be has as much in hand, and no more: a good start does not pay for
	// hours of dripping.
	Idle time.Duration
}

// Meter follows one transfer. Only time in which the peer was waited for is
// told to it.
type Meter struct{ allowance time.Duration }

// Begin starts a transfer.
func (r *Rule) Begin() Meter { return Meter{allowance: r.Grace} }

// Patience is how long the next n bytes may be waited for, which are moved as a
// whole; with n 0, the next byte.
func (r *Rule) Patience(m Meter, n int) time.Duration {
	if r.Rate == 0 {
		return r.Idle
	}
	return min(r.Idle, max(m.allowance, 0)+r.worth(int64(n)))
}

// Waited takes in that n bytes were moved within d.
func (m *Meter) Waited(r *Rule, n int64, d time.Duration) {
	if r.Rate > 0 {
		m.allowance = min(m.allowance+r.worth(n)-d, max(r.Idle, r.Grace))
	}
}

// worth is the time in which a peer that is just fast enough moves n bytes, as
// far as it matters.
func (r *Rule) worth(n int64) time.Duration {
	most := 2 * max(r.Idle, r.Grace)
	if seconds := float64(n) / float64(r.Rate); seconds < most.Seconds() {
		return time.Duration(seconds * float64(time.Second))
	}
	return most
}

// Spent reports whether the peer was too slow.
func (m Meter) Spent() bool { return m.allowance < 0 }

// Short reports whether it is the rate, rather than the wait for a single byte,
// that bounds the patience.
func (r *Rule) Short(m Meter) bool { return r.Rate > 0 && m.allowance < r.Idle }
