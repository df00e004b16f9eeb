package e2e

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is a number of callers who each send one request after another.
type load struct {
	// next makes the n-th request of all.
	next func(n int64) request
	// to are the gateways, which the callers share among them.
	to      []*gateway
	callers int
	// pace is the time between two requests of a caller; 0: none.
	pace time.Duration
}

// running is a load under way.
type running struct {
	quit    chan struct{}
	callers sync.WaitGroup
	n       atomic.Int64

	mu      sync.Mutex
	answers []answer
}

// start begins the load; stop or the end of the test ends it.
func (l load) start(t testing.TB) *running {
	t.Helper()
	r := &running{quit: make(chan struct{})}
	for i := range l.callers {
		to := l.to[i%len(l.to)]
		r.callers.Go(func() { r.caller(l, to.addr) })
	}
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *running) caller(l load, addr string) {
	line := line{addr: addr}
	defer line.close()
	tick := time.NewTicker(max(l.pace, time.Microsecond))
	defer tick.Stop()
	for {
		select {
		case <-r.quit:
			return
		default:
		}
		a := line.call(l.next(r.n.Add(1)))
		a.body, a.header = "", nil // many are kept
		r.mu.Lock()
		r.answers = append(r.answers, a)
		r.mu.Unlock()
		if l.pace > 0 {
			select {
			case <-r.quit:
				return
			case <-tick.C:
			}
		}
	}
}

// stop ends the load and returns every answer.
func (r *running) stop() []answer {
	r.mu.Lock()
	select {
	case <-r.quit:
	default:
		close(r.quit)
	}
	r.mu.Unlock()
	r.callers.Wait()
	return r.answers
}

// soFar is a copy of the answers until now.
func (r *running) soFar() []answer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.answers)
}

// lasts lets the load go on for d, and ends it.
func (r *running) lasts(d time.Duration) []answer {
	time.Sleep(d)
	return r.stop()
}

// fixed is a request that is always the same.
func fixed(method, path, token string) func(int64) request {
	return func(int64) request { return request{method, path, token} }
}

// allOK fails the test when an answer is not 200.
func allOK(t testing.TB, answers []answer) {
	t.Helper()
	wrong := 0
	for _, a := range answers {
		if a.status == 200 {
			continue
		}
		if wrong++; wrong <= 5 {
			t.Errorf("%s %s of %s: %d %s %v after %v", a.method, a.path, a.gateway, a.status, a.reason, a.err, a.took())
		}
	}
	if wrong > 0 {
		t.Fatalf("%d of %d requests failed", wrong, len(answers))
	}
	if len(answers) < 20 {
		t.Fatalf("only %d requests were made", len(answers))
	}
}

// spread tells how long things took.
type spread struct {
	n             int
	p50, p99, max time.Duration
}

func spreadOf(list []time.Duration) spread {
	if len(list) == 0 {
		return spread{}
	}
	list = slices.Clone(list)
	slices.Sort(list)
	at := func(q int) time.Duration { return list[min(len(list)-1, len(list)*q/100)] }
	return spread{len(list), at(50), at(99), list[len(list)-1]}
}

func (s spread) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
	return fmt.Sprintf("n=%d p50=%v p99=%v max=%v", s.n, round(s.p50), round(s.p99), round(s.max))
}
