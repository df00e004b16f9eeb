// Package sourcetest is the contract of discovery.Source as tests: one suite
// for every source, and for every server that speaks Consul's HTTP API.
//
// It owns what a source promises; it starts no server and imports none of the
// sources.
//
//	sourcetest.Run(t, consulSource, sourcetest.Registry{Address: servers.Consul(t)})
//	sourcetest.RunFixed(t, staticSource, targets.Query, "10.0.0.7:8080")
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
)

const (
	// visible is how long a change may take to be found.
	visible = time.Second
	// patience is for what has no promise, such as the first answer on a
	// machine that is busy with other tests.
	patience = time.Minute
	// hops is how many processes and goroutines one after another have to be
	// given the processor before a change is found.
	hops = 6
)

// Watched is a running watch and what it has found.
type Watched struct {
	t    *testing.T
	stop context.CancelFunc
	done chan error

	mu   sync.Mutex
	sets [][]discovery.Endpoint
	busy bool
	news chan struct{} // closed and replaced with each set
}

// Start watches q until the test ends, and then checks that the watch ends as
// the contract says.
func Start(t *testing.T, src discovery.Source, q discovery.Query) *Watched {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &Watched{t: t, stop: cancel, done: make(chan error, 1), news: make(chan struct{})}
	go func() { w.done <- src.Watch(ctx, q, w.found) }()
	t.Cleanup(w.Stop)
	return w
}

// Stop ends the watch; it must return its context's error without delay.
func (w *Watched) Stop() {
	w.t.Helper()
	if w.stop == nil {
		return
	}
	w.stop()
	w.stop = nil
	select {
	case err := <-w.done:
		if !errors.Is(err, context.Canceled) {
			w.t.Errorf("watch ended with %v, want context.Canceled", err)
		}
	case <-time.After(patience):
		w.t.Error("watch goes on after its context has ended")
	}
}

func (w *Watched) found(eps []discovery.Endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy {
		w.t.Error("found is called from two goroutines")
	}
	w.busy = true
	defer func() { w.busy = false }()
	for i, e := range eps {
		if e.ID == "" || !e.Addr.IsValid() || e.Addr.Port() == 0 || e.Weight < 1 {
			w.t.Errorf("unusable endpoint %+v", e)
		}
		if i > 0 && eps[i-1].ID >= e.ID {
			w.t.Errorf("endpoints %q and %q: not sorted by unique ids", eps[i-1].ID, e.ID)
		}
	}
	w.sets = append(w.sets, slices.Clone(eps))
	close(w.news)
	w.news = make(chan struct{})
}

// Last is the newest set; ok is false before the first.
func (w *Watched) Last() (eps []discovery.Endpoint, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.sets) == 0 {
		return nil, false
	}
	return w.sets[len(w.sets)-1], true
}

// Sets is how many sets were found so far.
func (w *Watched) Sets() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sets)
}

// Until waits at most d until the newest set satisfies ok, and longer only
// where the machine keeps this process waiting for the processor: what it does
// to one it does to each on the way of a change.
func (w *Watched) Until(d time.Duration, what string, ok func([]discovery.Endpoint) bool) []discovery.Endpoint {
	w.t.Helper()
	const nap = 5 * time.Millisecond
	start, kept := time.Now(), time.Duration(0)
	for {
		asleep := time.Now()
		w.mu.Lock()
		news := w.news
		w.mu.Unlock()
		if eps, known := w.Last(); known && ok(eps) {
			return eps
		}
		select {
		case <-news:
		case err := <-w.done:
			w.done <- err
			w.t.Fatalf("%s: the watch ended: %v", what, err)
		case <-time.After(nap):
			kept = max(kept, time.Since(asleep)-nap)
		}
		if time.Since(start) > d+hops*kept {
			eps, known := w.Last()
			w.t.Fatalf("%s: not within %v, though the machine kept us waiting %v at most; last set (known: %v): %s", what, d, kept, known, Addrs(eps))
		}
	}
}

// Want waits until the set has exactly these addresses, in any order.
func (w *Watched) Want(d time.Duration, what string, addrs ...string) []discovery.Endpoint {
	w.t.Helper()
	slices.Sort(addrs)
	want := strings.Join(addrs, " ")
	return w.Until(d, fmt.Sprintf("%s: want [%s]", what, want), func(eps []discovery.Endpoint) bool { return Addrs(eps) == want })
}

// Addrs are the sorted addresses of a set.
func Addrs(eps []discovery.Endpoint) string {
	var s []string
	for _, e := range eps {
		s = append(s, e.Addr.String())
	}
	slices.Sort(s)
	return strings.Join(s, " ")
}

// RunFixed is the part of the contract that holds for a source whose set does
// not change while the test runs.
func RunFixed(t *testing.T, src discovery.Source, q discovery.Query, addrs ...string) {
	t.Run("the complete set is found soon", func(t *testing.T) {
		Start(t, src, q).Want(patience, "first set", addrs...)
	})
	t.Run("ids are the same in each watch", func(t *testing.T) {
		a := Start(t, src, q).Want(patience, "first watch", addrs...)
		b := Start(t, src, q).Want(patience, "second watch", addrs...)
		for i := range a {
			if a[i].ID != b[i].ID {
				t.Errorf("endpoint %s has the ids %q and %q", a[i].Addr, a[i].ID, b[i].ID)
			}
		}
	})
	t.Run("a watch ends with its context", func(t *testing.T) {
		w := Start(t, src, q)
		w.Want(patience, "first set", addrs...)
		start := time.Now()
		w.Stop()
		if d := time.Since(start); d > visible {
			t.Errorf("the watch took %v to end", d)
		}
	})
	t.Run("a watch under an ended context finds nothing and returns", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := src.Watch(ctx, q, func([]discovery.Endpoint) {}); !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended with %v, want context.Canceled", err)
		}
	})
}
