package ratelimit_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/ratelimit/limitertest"
	"github.com/gatehouse/gatehouse/routes"
)

// bubble runs a test in virtual time over a twin with one replica.
func bubble(t *testing.T, nodes int, test func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		tw := limitertest.NewTwin()
		tw.Latency = time.Millisecond
		p := ratelimit.New(ratelimit.Config{Store: tw.View("a"), Nodes: func() int { return nodes }})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		time.Sleep(10 * time.Millisecond) // the first heartbeat
		test(t, tw, p)
		cancel()
		<-ended
	})
}

// down fails the store and waits until that was noticed.
func down(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
	t.Helper()
	tw.Fail("a", limitertest.Refusing)
	h := limitertest.Handler(t, p, limitertest.Route("down", &routes.RateLimit{Limit: 1000, Per: time.Second}))
	for i := 0; !p.Stats().Down; i++ {
		if i > 100 {
			t.Fatal("an outage was not noticed")
		}
		limitertest.Call(h, string(rune('a'+i)))
	}
}

func count(h plugins.Handler, client string, n int) (passed int) {
	for range n {
		if _, err := limitertest.Call(h, client); err == nil {
			passed++
		}
	}
	return passed
}

func TestLocalFallbackIsAShareOfTheLimit(t *testing.T) {
	bubble(t, 4, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		h := limitertest.Handler(t, p, limitertest.Route("share", &routes.RateLimit{Limit: 400, Per: 10 * time.Second}))
		down(t, tw, p)
		if n := count(h, "new", 400); n != 100 {
			t.Errorf("%d requests of a new client at once, want a quarter of the burst", n)
		}
		time.Sleep(time.Second)
		if n := count(h, "new", 400); n != 10 {
			t.Errorf("%d requests after a second, want a quarter of the rate", n)
		}
	})
}

func TestLocalFallbackStartsWithWhatIsKnownToBeLeft(t *testing.T) {
	bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		h := limitertest.Handler(t, p, limitertest.Route("left", &routes.RateLimit{Limit: 400, Per: time.Hour}))
		before := count(h, "a", 300)
		down(t, tw, p)
		time.Sleep(time.Second) // leases end
		after := count(h, "a", 400)
		if before != 300 || after < 60 || after > 101 {
			t.Errorf("%d requests before and %d in the outage, want 300 and at most the other 100", before, after)
		}
	})
}

func TestRecoveryPostsWhatWasAdmittedLocally(t *testing.T) {
	bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		r := limitertest.Route("debt", &routes.RateLimit{Limit: 400, Per: time.Hour})
		h := limitertest.Handler(t, p, r)
		down(t, tw, p)
		if n := count(h, "a", 250); n != 250 {
			t.Fatalf("%d requests in the outage", n)
		}
		tw.Fail("a", limitertest.Healthy)
		time.Sleep(5 * time.Second)
		if p.Stats().Down {
			t.Fatal("still local")
		}
		// Another replica, which knows nothing of the outage.
		other := ratelimit.New(ratelimit.Config{Store: tw.View("b")})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); other.Run(ctx) }()
		n := count(limitertest.Handler(t, other, r), "a", 400)
		cancel()
		<-ended
		if n > 151 || n < 130 {
			t.Errorf("%d requests at another replica, want the 150 that are left", n)
		}
	})
}

func TestAStoreThatForgotTheReplicasDoesNotRaiseShares(t *testing.T) {
	bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		ctx, cancel := context.WithCancel(context.Background())
		other := ratelimit.New(ratelimit.Config{Store: tw.View("b")})
		ended := make(chan struct{})
		go func() { defer close(ended); other.Run(ctx) }()
		time.Sleep(5 * time.Second)
		nodes := func(want int) {
			t.Helper()
			if n := p.Stats().Nodes; n != want {
				t.Errorf("%d replicas known, want %d", n, want)
			}
		}
		nodes(2)
		tw.Fail("b", limitertest.Refusing)
		down(t, tw, p)
		tw.Flush()
		tw.Fail("a", limitertest.Healthy)
		for p.Stats().Down {
			nodes(2)
			time.Sleep(100 * time.Millisecond)
		}
		nodes(2) // the other had no time to come back
		time.Sleep(10 * time.Second)
		nodes(1) // it had
		cancel()
		<-ended
	})
}

func TestOnStoreFailureOpenAdmitsAndClosedRefuses(t *testing.T) {
	bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		open := limitertest.Handler(t, p, limitertest.Route("open", &routes.RateLimit{Limit: 5, Per: time.Hour, OnStoreFailure: "open"}))
		closed := limitertest.Handler(t, p, limitertest.Route("closed", &routes.RateLimit{Limit: 5, Per: time.Hour, OnStoreFailure: "closed"}))
		down(t, tw, p)
		if n := count(open, "a", 50); n != 50 {
			t.Errorf("open: %d of 50 passed", n)
		}
		fields, err := limitertest.Call(closed, "a")
		if limitertest.Code(err) != plugins.LimiterUnavailable || !strings.Contains(fields, "Retry-After: 1\r\n") {
			t.Errorf("closed: %v, %q", err, fields)
		}
	})
}

func TestLiveLeasesNeverWaitForAHangingStore(t *testing.T) {
	bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		h := limitertest.Handler(t, p, limitertest.Route("live", &routes.RateLimit{Limit: 100_000, Per: time.Minute}))
		count(h, "a", 5000) // leases have grown
		tw.Fail("a", limitertest.Hanging)
		start := time.Now()
		if n := count(h, "a", 20); n != 20 || time.Since(start) != 0 {
			t.Errorf("%d of 20 passed in %v", n, time.Since(start))
		}
	})
}

func TestAColdRequestWaitsOnceForAllItsLimits(t *testing.T) {
	for name, fault := range map[string]limitertest.Fault{"hanging": limitertest.Hanging, "mute": limitertest.Mute} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
				h := limitertest.Handler(t, p, limitertest.Route("cold",
					&routes.RateLimit{Limit: 1000, Per: time.Second},
					&routes.RateLimit{Limit: 1000, Per: time.Second, By: "subject"},
					&routes.RateLimit{Limit: 1000, Per: time.Second, By: "route", Mode: "exact"}))
				tw.Fail("a", fault)
				start := time.Now()
				if _, err := limitertest.Call(h, "a"); err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d > 25*time.Millisecond {
					t.Errorf("waited %v", d)
				}
			})
		})
	}
}

func TestSlowStoreIsAnOutageForExactLimitsOnly(t *testing.T) {
	bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		leased := limitertest.Handler(t, p, limitertest.Route("leased", &routes.RateLimit{Limit: 60_000, Per: time.Minute}))
		count(leased, "a", 3000)
		tw.Latency = 10 * time.Millisecond
		start := time.Now()
		for range 1000 {
			if _, err := limitertest.Call(leased, "a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if waited := time.Since(start) - time.Second; waited > 20*time.Millisecond {
			t.Errorf("1,000 requests of a busy client waited %v", waited)
		}
	})
}

func TestSmallLimitsAreExact(t *testing.T) {
	bubble(t, 3, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		h := limitertest.Handler(t, p, limitertest.Route("small", &routes.RateLimit{Limit: 50, Per: time.Hour}))
		before := tw.Asks()
		if n := count(h, "a", 200); n != 50 {
			t.Errorf("%d passed, want 50", n)
		}
		// One ask for each that passed and one for the refusal, which then holds.
		if n := tw.Asks() - before; n != 51 {
			t.Errorf("%d asks, want 51", n)
		}
	})
}

func TestRefusalsDoNotAskAgain(t *testing.T) {
	bubble(t, 1, func(t *testing.T, tw *limitertest.Twin, p *ratelimit.Plugin) {
		h := limitertest.Handler(t, p, limitertest.Route("flood", &routes.RateLimit{Limit: 1000, Per: time.Second}))
		count(h, "a", 2000)
		before := tw.Asks()
		start := time.Now()
		for time.Since(start) < time.Second {
			count(h, "a", 10)
			time.Sleep(time.Millisecond)
		}
		if n := tw.Asks() - before; n > 1000 {
			t.Errorf("%d asks for 10,000 requests, eight tenths of them refused", n)
		}
	})
}
