package retry

import "sync/atomic"

const (
	// window is the seconds for which a budget counts.
	window = 10
	// freePerSecond lets services with few requests be retried at all.
	freePerSecond = 10
)

// budget bounds the repetitions of one service: in any ten seconds at most a
// share of its requests and ten a second, so that repetition cannot make an
// overload worse. It is lock-free; at the turn of a second a few counts may get
// lost.
type budget struct {
	seconds [window]second
}

// second counts one second; it is reused for the one window seconds later.
type second struct {
	at       atomic.Int64
	requests atomic.Int64
	retries  atomic.Int64
}

// slot returns the counts of the second now.
func (b *budget) slot(now int64) *second {
	s := &b.seconds[uint64(now)%window]
	if at := s.at.Load(); at != now && s.at.CompareAndSwap(at, now) {
		s.requests.Store(0)
		s.retries.Store(0)
	}
	return s
}

// request counts a request.
func (b *budget) request(now int64) { b.slot(now).requests.Add(1) }

// take counts a repetition, unless the budget is spent.
func (b *budget) take(now int64, share float64) bool {
	var requests, retries int64
	for i := range b.seconds {
		s := &b.seconds[i]
		if at := s.at.Load(); at > now-window && at <= now {
			requests += s.requests.Load()
			retries += s.retries.Load()
		}
	}
	if float64(retries) >= share*float64(requests)+freePerSecond*window {
		return false
	}
	b.slot(now).retries.Add(1)
	return true
}
