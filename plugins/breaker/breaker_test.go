package breaker

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

func service(b routes.Breaker) *routes.Route {
	return &routes.Route{Name: "r", Upstream: &routes.Service{Name: "orders", Breaker: &b}}
}

// backend is the handler behind the breaker: it answers what it is set to.
type backend struct {
	status int
	err    error
	panics bool
	calls  int
	// unavailable is what gRPC said.
	unavailable bool
}

func (b *backend) handle(x *plugins.Exchange) error {
	b.calls++
	if b.panics {
		panic("defect")
	}
	x.Record.Status, x.Record.Unavailable = b.status, b.unavailable
	return b.err
}

// client calls a chain and keeps what came back.
type client struct {
	t *testing.T
	h plugins.Handler
}

func newClient(t *testing.T, p *Plugin, r *routes.Route, b *backend) client {
	t.Helper()
	step, err := p.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	return client{t, plugins.Chain(b.handle, step)}
}

// call returns the reason code of the answer, "" for success.
func (c client) call() (code string) {
	defer func() {
		if recover() != nil {
			code = "panic"
		}
	}()
	var e *plugins.Error
	if err := c.h(plugintest.New("GET", "api.example.com", "/")); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func (c client) state(p *Plugin, want string) {
	c.t.Helper()
	if s := p.Status(); len(s) != 1 || s[0].State != want {
		c.t.Errorf("status %+v, want one circuit that is %s", s, want)
	}
}

// down opens the circuit.
func (c client) down(b *backend) {
	c.t.Helper()
	b.status = 503
	for range 50 {
		c.call()
	}
	if code := c.call(); code != plugins.BreakerOpen {
		c.t.Fatalf("after 50 failures: %q", code)
	}
}

func TestFailuresOpenTheCircuit(t *testing.T) {
	fail := func(code string) error { return &plugins.Error{Status: 502, Code: code} }
	for _, c := range []struct {
		name  string
		b     backend
		opens bool
	}{
		{"connect", backend{err: fail(plugins.UpstreamConnect)}, true},
		{"timeout", backend{err: fail(plugins.UpstreamTimeout)}, true},
		{"reset", backend{err: fail(plugins.UpstreamReset)}, true},
		{"invalid answer", backend{err: fail(plugins.UpstreamInvalid)}, true},
		{"500", backend{status: 500}, true},
		{"503", backend{status: 503}, true},
		{"gRPC's UNAVAILABLE", backend{status: 200, unavailable: true}, true},
		{"200", backend{status: 200}, false},
		{"404", backend{status: 404}, false},
		{"429", backend{status: 429}, false},
		{"client gone", backend{err: fail(plugins.ClientGone)}, false},
		{"no instance", backend{err: fail(plugins.NoHealthyInstance)}, false},
		{"busy", backend{err: fail(plugins.UpstreamBusy)}, false},
		{"body too large", backend{err: fail(plugins.BodyTooLarge)}, false},
		{"unknown error", backend{err: errors.New("defect")}, false},
		{"panic", backend{panics: true}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New()
			cl := newClient(t, p, service(routes.Breaker{}), &c.b)
			for range 49 {
				cl.call()
			}
			cl.state(p, "closed") // below min_requests
			cl.call()
			if got := cl.call() == plugins.BreakerOpen; got != c.opens {
				t.Errorf("open after 50 requests: %v, want %v", got, c.opens)
			}
		})
	}
}

func TestShareOfFailuresDecides(t *testing.T) {
	b := &backend{}
	p := New()
	c := newClient(t, p, service(routes.Breaker{Failures: 0.5, MinRequests: 10}), b)
	for i := range 200 {
		b.status = 200
		if i%5 == 4 { // 20 %
			b.status = 500
		}
		if code := c.call(); code != "" {
			t.Fatalf("request %d: %s", i, code)
		}
	}
	c.state(p, "closed")
}

func TestOldFailuresAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{status: 500}
		c := newClient(t, New(), service(routes.Breaker{}), b)
		for range 49 {
			c.call()
		}
		time.Sleep(11 * time.Second)
		for range 40 {
			if code := c.call(); code != "" {
				t.Fatal(code)
			}
		}
	})
}

func TestOpenCircuitRefusesWithRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		p := New()
		c := newClient(t, p, service(routes.Breaker{}), b)
		c.down(b)
		calls := b.calls
		x := plugintest.New("GET", "api.example.com", "/")
		x.Replay = plugins.ReplaySafe
		var e *plugins.Error
		if err := c.h(x); !errors.As(err, &e) || e.Status != 503 || len(e.Header) != 1 || e.Header[0] != [2]string{"Retry-After", "2"} {
			t.Errorf("refusal %+v", e)
		}
		if x.Replay != plugins.ReplayNever {
			t.Error("the refusal may be retried")
		}
		if b.calls != calls {
			t.Error("the service was called")
		}
		s := p.Status()[0]
		if s.Service != "orders" || s.Opened != 1 || s.Refused != 2 || !s.Until.Equal(time.Now().Add(2*time.Second)) {
			t.Errorf("status %+v", s)
		}
	})
}

func TestCircuitClosesAfterFiveGoodTrials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		p := New()
		c := newClient(t, p, service(routes.Breaker{}), b)
		c.down(b)
		time.Sleep(2*time.Second + time.Millisecond)
		b.status = 200
		for i := range 20 {
			if i == 3 {
				c.state(p, "half-open")
			}
			if code := c.call(); code != "" {
				t.Fatalf("call %d: %s", i, code)
			}
		}
		c.state(p, "closed")
	})
}

func TestHalfOpenAdmitsFiveAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New()
		b := &backend{}
		newClient(t, p, service(routes.Breaker{}), b).down(b)
		time.Sleep(3 * time.Second)
		step, err := p.Build(service(routes.Breaker{}))
		if err != nil {
			t.Fatal(err)
		}
		slow := client{t, step(func(x *plugins.Exchange) error {
			time.Sleep(time.Second)
			return nil
		})}
		codes := make([]string, 20)
		var wg sync.WaitGroup
		for i := range codes {
			wg.Go(func() { codes[i] = slow.call() })
		}
		wg.Wait()
		passed := 0
		for _, code := range codes {
			if code == "" {
				passed++
			}
		}
		if passed != trials {
			t.Errorf("%d of %d concurrent requests passed, want %d", passed, len(codes), trials)
		}
	})
}

func TestOpenTimeDoublesUpToThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		p := New()
		c := newClient(t, p, service(routes.Breaker{}), b)
		c.down(b)
		for i, want := range []int{4, 8, 16, 30, 30} {
			time.Sleep(time.Until(p.Status()[0].Until) + time.Millisecond)
			if code := c.call(); code != "" { // the trial, which fails
				t.Fatalf("trial %d: %s", i, code)
			}
			left := time.Until(p.Status()[0].Until)
			if left != time.Duration(want)*time.Second {
				t.Fatalf("after %d failed trials open for %v, want %d s", i+1, left, want)
			}
			if s := p.Status()[0]; s.State != "open" || s.Opened != uint64(i+2) {
				t.Errorf("status %+v", s)
			}
		}
		// Recovery starts over with the configured time.
		time.Sleep(31 * time.Second)
		b.status = 200
		for range trials {
			c.call()
		}
		c.state(p, "closed")
		c.down(b)
		if left := time.Until(p.Status()[0].Until); left != 2*time.Second {
			t.Errorf("open for %v after a recovery, want 2 s", left)
		}
	})
}

// TestHalfOpenIsNeverStuck: gobreaker's half-open state has no end, so one lost
// answer of five would refuse everything for ever.
func TestHalfOpenIsNeverStuck(t *testing.T) {
	for name, b := range map[string]backend{
		"panic":       {panics: true},
		"client gone": {err: &plugins.Error{Status: 499, Code: plugins.ClientGone}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := New()
				live := &backend{}
				c := newClient(t, p, service(routes.Breaker{}), live)
				c.down(live)
				time.Sleep(3 * time.Second)
				*live = b
				for range 4 * trials {
					if code := c.call(); code == plugins.BreakerOpen {
						t.Fatal("a trial without an outcome used up a place")
					}
				}
				*live = backend{status: 200}
				for range trials {
					c.call()
				}
				c.state(p, "closed")
			})
		})
	}
}

func TestStateOutlivesAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &backend{}
		p := New()
		c := newClient(t, p, service(routes.Breaker{}), b)
		c.down(b)
		// Another route, and the defaults written out.
		same := service(routes.Breaker{Failures: 0.5, MinRequests: 50, Window: 10 * time.Second, Open: 2 * time.Second})
		after := newClient(t, p, same, b)
		p.Retain([]*routes.Route{same})
		if code := after.call(); code != plugins.BreakerOpen {
			t.Errorf("after a reload: %q", code)
		}
		p.Retain(nil)
		if s := p.Status(); len(s) != 0 {
			t.Errorf("circuits of services that are gone: %+v", s)
		}
	})
}

func TestBreakerOffHasNoStep(t *testing.T) {
	for _, r := range []*routes.Route{{}, {Upstream: &routes.Service{Name: "orders"}}} {
		if step, err := New().Build(r); step != nil || err != nil {
			t.Errorf("step %v, error %v", step != nil, err)
		}
	}
}

func TestConcurrentRequestsAndStatus(t *testing.T) {
	p := New()
	r := service(routes.Breaker{MinRequests: 5, Open: time.Millisecond})
	step, err := p.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		h := step(func(x *plugins.Exchange) error {
			x.Record.Status = 200 + 300*(int(x.RequestID[0])%2)
			return nil
		})
		wg.Go(func() {
			for j := range 2000 {
				x := plugintest.New("GET", "api.example.com", "/")
				x.RequestID = []byte(strconv.Itoa((i + j) / 100))
				h(x)
				p.Status()
			}
		})
	}
	wg.Wait()
}

func TestOnlyGobreakerAllocates(t *testing.T) {
	step, err := New().Build(service(routes.Breaker{}))
	if err != nil {
		t.Fatal(err)
	}
	h := step(func(*plugins.Exchange) error { return nil })
	x := plugintest.New("GET", "api.example.com", "/")
	if n := testing.AllocsPerRun(1000, func() { h(x) }); n > 1 {
		t.Errorf("%v allocations, want at most gobreaker's one", n)
	}
}

func BenchmarkClosed(b *testing.B) {
	step, err := New().Build(service(routes.Breaker{}))
	if err != nil {
		b.Fatal(err)
	}
	h := step(func(*plugins.Exchange) error { return nil })
	x := plugintest.New("GET", "api.example.com", "/")
	b.ReportAllocs()
	for b.Loop() {
		h(x)
	}
}
