package retry

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

func route(attempts int, share float64, timeout time.Duration) *routes.Route {
	return &routes.Route{Name: "r", Upstream: &routes.Service{
		Name:     "orders",
		Retries:  &routes.Retries{Attempts: attempts, Budget: routes.Percent(share)},
		Timeouts: routes.Timeouts{Request: timeout},
	}}
}

// attempts is a handler that fails with one outcome after the other and then
// succeeds.
type attempts struct {
	outcomes []plugins.Replay
	made     []time.Time
}

var errAttempt = &plugins.Error{Status: 502, Code: plugins.UpstreamConnect}

func (a *attempts) handle(x *plugins.Exchange) error {
	a.made = append(a.made, time.Now())
	if n := len(a.made); n <= len(a.outcomes) {
		x.Replay = a.outcomes[n-1]
		return errAttempt
	}
	x.Replay = plugins.ReplayNever
	return nil
}

func newExchange() *plugins.Exchange {
	x := plugintest.New("GET", "api.example.com", "/orders")
	x.Time = time.Now()
	return x
}

func build(t testing.TB, p *Plugin, r *routes.Route, next plugins.Handler) plugins.Handler {
	t.Helper()
	step, err := p.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	return plugins.Chain(next, step)
}

func TestOnlyReplayableAttemptsAreRepeated(t *testing.T) {
	const (
		never      = plugins.ReplayNever
		safe       = plugins.ReplaySafe
		idempotent = plugins.ReplayIdempotent
	)
	for _, c := range []struct {
		name     string
		attempts int
		outcomes []plugins.Replay
		want     int // attempts made
		ok       bool
	}{
		{"success is left alone", 2, nil, 1, true},
		{"never", 3, []plugins.Replay{never}, 1, false},
		{"safe once", 2, []plugins.Replay{safe}, 2, true},
		{"safe twice of two", 2, []plugins.Replay{safe, safe}, 2, false},
		{"safe until it works", 4, []plugins.Replay{safe, safe, safe}, 4, true},
		{"idempotent once", 2, []plugins.Replay{idempotent}, 2, true},
		{"idempotent not twice", 4, []plugins.Replay{idempotent, idempotent}, 2, false},
		{"idempotent and safe", 4, []plugins.Replay{idempotent, safe, idempotent}, 3, false},
		{"safe, then never", 4, []plugins.Replay{safe, never}, 2, false},
		{"retries off", 1, []plugins.Replay{safe}, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &attempts{outcomes: c.outcomes}
				err := build(t, New(nil), route(c.attempts, 0.2, time.Second), a.handle)(newExchange())
				if len(a.made) != c.want || (err == nil) != c.ok {
					t.Errorf("%d attempts and error %v, want %d and success: %v", len(a.made), err, c.want, c.ok)
				}
				if err != nil && err != errAttempt {
					t.Errorf("error %v is not the last attempt's", err)
				}
			})
		})
	}
}

func TestFirstRepetitionIsAtOnceAndLaterOnesWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{outcomes: []plugins.Replay{plugins.ReplaySafe, plugins.ReplaySafe}}
		if err := build(t, New(nil), route(3, 0.2, time.Second), a.handle)(newExchange()); err != nil {
			t.Fatal(err)
		}
		if d := a.made[1].Sub(a.made[0]); d != 0 {
			t.Errorf("the first repetition waited %v", d)
		}
		if d := a.made[2].Sub(a.made[1]); d < minDelay || d > maxDelay {
			t.Errorf("the second repetition waited %v", d)
		}
	})
}

func TestNoRepetitionBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &attempts{outcomes: []plugins.Replay{plugins.ReplaySafe}}
		slow := func(x *plugins.Exchange) error {
			time.Sleep(time.Second)
			return a.handle(x)
		}
		if err := build(t, New(nil), route(2, 0.2, time.Second), slow)(newExchange()); err != errAttempt || len(a.made) != 1 {
			t.Errorf("%d attempts, error %v", len(a.made), err)
		}
	})
}

func TestNoRepetitionForAClientThatLeft(t *testing.T) {
	a := &attempts{outcomes: []plugins.Replay{plugins.ReplaySafe}}
	x := newExchange()
	plugintest.Client(x).Left = true
	if err := build(t, New(nil), route(2, 0.2, time.Second), a.handle)(x); err != errAttempt || len(a.made) != 1 {
		t.Errorf("%d attempts, error %v", len(a.made), err)
	}
}

func TestBudgetBoundsWhatAFailingServiceGets(t *testing.T) {
	p := New(nil)
	made := 0
	h := build(t, p, route(2, 0.2, time.Hour), func(x *plugins.Exchange) error {
		made++
		x.Replay = plugins.ReplaySafe
		return errAttempt
	})
	start := time.Unix(1_800_000_000, 0)
	const seconds, perSecond = 60, 200
	for i := range seconds * perSecond {
		x := newExchange()
		x.Time = start.Add(time.Duration(i) * time.Second / perSecond)
		if err := h(x); !errors.Is(err, errAttempt) {
			t.Fatal(err)
		}
	}
	requests := seconds * perSecond
	bound := int(1.2*float64(requests)) + freePerSecond*(seconds+window)
	if made > bound || made < requests+requests/10 {
		t.Errorf("%d attempts of %d requests, want at most %d", made, requests, bound)
	}
	retried, exhausted := p.Stats()
	if int(retried) != made-requests || int(retried+exhausted) != requests {
		t.Errorf("retried %d, exhausted %d of %d requests", retried, exhausted, requests)
	}
}

func TestBudgetReturnsAfterItsWindow(t *testing.T) {
	b := &budget{}
	taken := 0
	for b.take(1000, 0) {
		taken++
	}
	if taken != freePerSecond*window {
		t.Errorf("%d repetitions without requests, want %d", taken, freePerSecond*window)
	}
	if b.take(1009, 0) {
		t.Error("the budget returned within its window")
	}
	if !b.take(1010, 0) {
		t.Error("the budget did not return after its window")
	}
}

func TestBudgetOutlivesAReloadAndGoesWithItsService(t *testing.T) {
	p := New(nil)
	r := route(2, 0.2, time.Second)
	build(t, p, r, plugintest.OK)
	kept := p.budgets["orders"]
	p.Retain([]*routes.Route{r})
	build(t, p, route(3, 0.1, time.Second), plugintest.OK)
	if p.budgets["orders"] != kept {
		t.Error("a reload made a new budget")
	}
	p.Retain(nil)
	if len(p.budgets) != 0 {
		t.Error("the budget of a service that is gone was kept")
	}
}

func TestConcurrentRequestsShareABudget(t *testing.T) {
	b := &budget{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 2000 {
				b.request(int64(100 + i/500))
				b.take(int64(100+i/500), 0.2)
			}
		})
	}
	wg.Wait()
}

func TestSuccessAllocatesNothing(t *testing.T) {
	h := build(t, New(nil), route(2, 0.2, time.Second), func(*plugins.Exchange) error { return nil })
	x := newExchange()
	if n := testing.AllocsPerRun(1000, func() { h(x) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkSuccess(b *testing.B) {
	h := build(b, New(nil), route(2, 0.2, time.Second), func(*plugins.Exchange) error { return nil })
	x := newExchange()
	b.ReportAllocs()
	for b.Loop() {
		h(x)
	}
}
