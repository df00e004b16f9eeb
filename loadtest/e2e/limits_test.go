package e2e

import (
	"slices"
	"testing"
	"time"
)

// leasedLimitIsShared drives a limit of 100/s with as many in a burst at both
// gateways, beyond what it allows, with more callers where the machine was too
// busy for that.
func leasedLimitIsShared(t *testing.T, c *cluster) {
	token := c.a.token(t, "leased")
	c.a.call("GET", "/orders/warm", token).want(t, 200, "")
	c.b.call("GET", "/orders/warm", token).want(t, 200, "")
	for callers := 8; callers <= 64 && !c.drivesLeasedLimit(t, token, callers); callers *= 2 {
		time.Sleep(time.Second) // the burst is full again
	}
}

// decidedAlone is how often the gateways did not wait any longer for Redis.
func (c *cluster) decidedAlone(t *testing.T) (n int) {
	for _, g := range []*gateway{c.a, c.b} {
		v, _ := g.metric(t, "gateway_ratelimit_fallback_decisions_total")
		n += int(v)
	}
	return n
}

// drivesLeasedLimit holds what was admitted against the limit, and reports
// whether more was asked for. The documented bound on what leases admit too
// much is 5 % of the burst and one second's rate: 10; what a busy machine has
// them decide without Redis comes on top.
func (c *cluster) drivesLeasedLimit(t *testing.T, token string, callers int) bool {
	const rate, burst = 100, 100
	before := c.decidedAlone(t)
	answers := load{next: fixed("GET", "/leased/x", token), to: []*gateway{c.a, c.b}, callers: callers, pace: 15 * time.Millisecond}.start(t).lasts(4 * time.Second)
	bound := float64(10 + min(burst, c.decidedAlone(t)-before))
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
	for i, first := range admitted {
		window := time.Duration(0)
		for j, a := range admitted[i:] {
			window = max(window, a.done.Sub(first.sent))
			worst = max(worst, float64(j+1)-burst-rate*window.Seconds())
		}
	}
	whole := answers[len(answers)-1].done.Sub(answers[0].sent).Seconds()
	allowed := burst + rate*whole
	if worst > bound || float64(len(admitted)) > allowed+bound {
		t.Errorf("%d admitted in %.2f s, allowed %.0f + %.0f; at worst %.1f too many", len(admitted), whole, allowed, bound, worst)
	}
	if float64(len(admitted)) < 0.7*min(allowed, float64(len(answers))) {
		t.Errorf("%d of %d admitted in %.2f s, though %.0f may pass", len(admitted), len(answers), whole, allowed)
	}
	t.Logf("%d of %d admitted in %.2f s, allowed %.0f + %.0f; by gateway %v", len(admitted), len(answers), whole, allowed, bound, by)
	return len(answers) >= int(1.2*allowed) && len(by) == 2
}

// exactLimitIsExact spends a limit of 50 a day at both gateways at once, each
// time as another client. A decision for which Redis did not answer in time is
// the gateway's own, so a busy machine may have it differ by as many.
func exactLimitIsExact(t *testing.T, c *cluster) {
	for _, client := range []string{"leased", "reader", "batch"} {
		token := c.a.token(t, client)
		before := c.decidedAlone(t)
		calls := load{next: fixed("GET", "/exact/x", token), to: []*gateway{c.a, c.b}, callers: 8}.start(t)
		eventually(t, "200 requests", func() bool { return len(calls.soFar()) >= 200 })
		answers := calls.stop()
		alone := c.decidedAlone(t) - before
		admitted := 0
		for _, a := range answers {
			switch {
			case a.status == 200:
				admitted++
			case a.status != 429 || a.err != nil:
				t.Fatalf("answer %d %s %v", a.status, a.reason, a.err)
			}
		}
		if admitted < 50-alone || admitted > 50+alone {
			t.Errorf("%d of %d admitted, %d of them decided without Redis, want exactly 50 of the others", admitted, len(answers), alone)
		}
		refused := c.b.call("GET", "/exact/x", token).want(t, 429, "rate_limited")
		for _, name := range []string{"Retry-After", "RateLimit", "RateLimit-Policy"} {
			if refused.header.Get(name) == "" {
				t.Errorf("the refusal has no %s", name)
			}
		}
		t.Logf("%d of %d admitted, %d decided without Redis", admitted, len(answers), alone)
		if alone == 0 {
			return
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
	if may := min(allowed, float64(len(answers))); float64(admitted) < 0.7*may {
		t.Errorf("only %d admitted, though %.0f may pass", admitted, may)
	}
}
