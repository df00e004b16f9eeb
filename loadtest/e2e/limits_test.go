package e2e

import (
	"slices"
	"testing"
	"time"
)

// leasedLimitIsShared drives a limit of 100/s with as many in a burst at both
// gateways, beyond what it allows. The documented bound on what leases admit
// too much is 5 % of the burst and one second's rate: 10.
func leasedLimitIsShared(t *testing.T, c *cluster) {
	const rate, burst, bound = 100, 100, 10
	token := c.a.token(t, "leased")
	c.a.call("GET", "/orders/warm", token).want(t, 200, "")
	c.b.call("GET", "/orders/warm", token).want(t, 200, "")
	answers := load{next: fixed("GET", "/leased/x", token), to: []*gateway{c.a, c.b}, callers: 8, pace: 15 * time.Millisecond}.start(t).lasts(4 * time.Second)
	var admitted []answer
	by := map[string]int{}
	for _, a := range answers {
		switch {
		case a.status == 200:
			admitted = append(admitted, a)
			by[a.gateway]++
		case a.status != 429 || a.reason != "rate_limited" || a.err != nil:
			t.Fatalf("answer %d %s %v", a.status, a.reason, a.err)
		}
	}
	// In every window: what was decided between two moments was sent before
	// the later one and answered after the earlier.
	slices.SortFunc(admitted, func(x, y answer) int { return x.sent.Compare(y.sent) })
	worst := 0.0
	for i := range admitted {
		for j := i; j < len(admitted); j++ {
			window := admitted[j].done.Sub(admitted[i].sent)
			for _, k := range admitted[i:j] {
				window = max(window, k.done.Sub(admitted[i].sent))
			}
			worst = max(worst, float64(j-i+1)-burst-rate*window.Seconds())
			if j > i+200 {
				break
			}
		}
	}
	whole := answers[len(answers)-1].done.Sub(answers[0].sent).Seconds()
	allowed := burst + rate*whole
	if worst > bound || float64(len(admitted)) > allowed+bound {
		t.Errorf("%d admitted in %.2f s, allowed %.0f + %d; at worst %.1f too many", len(admitted), whole, allowed, bound, worst)
	}
	if float64(len(admitted)) < 0.7*allowed {
		t.Errorf("%d admitted in %.2f s, though %.0f may pass", len(admitted), whole, allowed)
	}
	if len(answers) < int(1.2*allowed) || len(by) != 2 {
		t.Skipf("only %d requests in %.2f s: this machine is too busy to exceed the limit", len(answers), whole)
	}
	t.Logf("%d of %d admitted in %.2f s, allowed %.0f + %d; by gateway %v", len(admitted), len(answers), whole, allowed, bound, by)
}

// exactLimitIsExact spends a limit of 50 a day at both gateways at once.
func exactLimitIsExact(t *testing.T, c *cluster) {
	token := c.a.token(t, "leased")
	calls := load{next: fixed("GET", "/exact/x", token), to: []*gateway{c.a, c.b}, callers: 8}.start(t)
	eventually(t, "200 requests", func() bool { return len(calls.soFar()) >= 200 })
	answers := calls.stop()
	admitted := 0
	for _, a := range answers {
		switch {
		case a.status == 200:
			admitted++
		case a.status != 429 || a.err != nil:
			t.Fatalf("answer %d %s %v", a.status, a.reason, a.err)
		}
	}
	if admitted != 50 {
		t.Errorf("%d of %d admitted, want exactly 50", admitted, len(answers))
	}
	refused := c.b.call("GET", "/exact/x", token).want(t, 429, "rate_limited")
	for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy"} {
		if refused.header.Get(name) == "" {
			t.Errorf("the refusal has no %s", name)
		}
	}
}

// losingRedisCostsOneBurst kills Redis, which forgets every bucket, in the
// middle of a load beyond the limit. The documented price is one more burst.
func losingRedisCostsOneBurst(t *testing.T, c *cluster) {
	const rate, burst, bound = 100, 100, 10
	token := c.a.token(t, "batch")
	eventually(t, "the gateways know of each other", c.both(func(g *gateway) bool {
		n, ok := g.metric(t, "gateway_ratelimit_nodes")
		return ok && n == 2
	}))
	calls := load{next: fixed("GET", "/leased/loss", token), to: []*gateway{c.a, c.b}, callers: 8, pace: 15 * time.Millisecond}.start(t)
	time.Sleep(1500 * time.Millisecond)
	c.redis.Kill()
	time.Sleep(1500 * time.Millisecond)
	c.redis.Restart()
	answers := calls.lasts(2500 * time.Millisecond)
	c.awaitRedis(t)
	admitted := 0
	first, last := answers[0].sent, answers[0].done
	for _, a := range answers {
		switch {
		case a.status == 200:
			admitted++
			if a.done.After(last) {
				last = a.done
			}
		case a.status != 429 || a.err != nil:
			t.Fatalf("answer %d %s %v", a.status, a.reason, a.err)
		}
	}
	allowed := burst + rate*last.Sub(first).Seconds()
	t.Logf("%d of %d admitted in %v, allowed %.0f and one more burst of %d", admitted, len(answers), last.Sub(first), allowed, burst)
	if float64(admitted) > allowed+bound+burst {
		t.Errorf("%d admitted, want at most %.0f", admitted, allowed+bound+burst)
	}
	if float64(admitted) < 0.7*allowed {
		t.Errorf("only %d admitted, though %.0f may pass", admitted, allowed)
	}
}
