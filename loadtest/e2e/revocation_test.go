package e2e

import (
	"net/url"
	"sync"
	"testing"
	"time"
)

// revokedTokensEndEverywhere revokes 100 tokens at A while each is in use at B.
func revokedTokensEndEverywhere(t *testing.T, c *cluster) {
	promptly(t, "the last accepted use of a revoked token after the reply", time.Second, func() time.Duration { return revokeMany(t, c) })
}

// revokeMany returns how long the slowest of them went on to be accepted.
func revokeMany(t *testing.T, c *cluster) time.Duration {
	const tokens, together = 100, 5
	list := make([]string, tokens)
	for i := range list {
		list[i] = c.a.token(t, "batch")
		c.b.call("GET", "/orders/1", list[i]).want(t, 200, "")
	}
	others := c.a.token(t, "reader")
	background := load{next: fixed("GET", "/orders/x", others), to: []*gateway{c.a, c.b}, callers: 4, pace: 5 * time.Millisecond}.start(t)
	var mu sync.Mutex
	var lasts []time.Duration
	var workers sync.WaitGroup
	for w := range together {
		workers.Go(func() {
			for i := w; i < tokens; i += together {
				use := load{next: fixed("GET", "/orders/1", list[i]), to: []*gateway{c.b}, callers: 1, pace: 2 * time.Millisecond}.start(t)
				time.Sleep(20 * time.Millisecond)
				replied := c.a.revoke(t, "batch", batchSecret, list[i])
				last := lastAccepted(t, use, replied)
				mu.Lock()
				lasts = append(lasts, last)
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	allOK(t, background.stop())
	s := spreadOf(lasts)
	t.Logf("last accepted use after the reply to the revocation: %v", s)
	if s.n != tokens {
		t.Errorf("%d of %d revocations were measured", s.n, tokens)
	}
	for _, token := range list {
		c.b.call("GET", "/orders/1", token).want(t, 401, "token_revoked")
		c.a.call("GET", "/orders/1", token).want(t, 401, "token_revoked")
	}
	return s.max
}

// lastAccepted waits until a token was refused for a while and returns how long
// after the revocation was answered the last answer came that accepted it; 0:
// none did.
func lastAccepted(t *testing.T, use *running, replied time.Time) (last time.Duration) {
	const quiet = 10
	deadline := time.Now().Add(patience)
	for {
		answers := use.soFar()
		refused := 0
		for _, a := range answers {
			if a.status == 200 {
				refused = 0
				last = max(last, a.done.Sub(replied))
			} else if a.reason == "token_revoked" {
				refused++
			}
		}
		if refused >= quiet || time.Now().After(deadline) {
			use.stop()
			if refused < quiet {
				t.Errorf("the revoked token is still accepted")
				return patience
			}
			return last
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// reuseKillsTheFamily spends a refresh token twice, at one gateway each. With
// `grace: 0s` every second use counts.
func reuseKillsTheFamily(t *testing.T, c *cluster) {
	promptly(t, "the last accepted use of a family's token after the reuse", time.Second, func() time.Duration { return reuse(t, c) })
}

// reuse returns how long the family's access token went on to be accepted.
func reuse(t *testing.T, c *cluster) time.Duration {
	first := c.login(t, c.a, "openid read:orders")
	refresh := func(g *gateway, token string) (int, tokens) {
		return g.tokenEndpoint(t, "web", webSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
	}
	status, second := refresh(c.b, first.Refresh)
	if status != 200 {
		t.Fatalf("refresh at the other gateway: %d %s", status, second.Error)
	}
	for _, g := range []*gateway{c.a, c.b} {
		g.call("GET", "/orders/1", first.Access).want(t, 200, "")
		g.call("GET", "/orders/1", second.Access).want(t, 200, "")
	}
	if status, stolen := refresh(c.a, first.Refresh); status != 400 || stolen.Error != "invalid_grant" || stolen.Access != "" {
		t.Fatalf("a spent refresh token: %d %s", status, stolen.Error)
	}
	replied := time.Now()
	use := load{next: fixed("GET", "/orders/1", second.Access), to: []*gateway{c.b}, callers: 1, pace: 2 * time.Millisecond}.start(t)
	last := lastAccepted(t, use, replied)
	for _, g := range []*gateway{c.a, c.b} {
		g.call("GET", "/orders/1", first.Access).want(t, 401, "token_revoked")
		g.call("GET", "/orders/1", second.Access).want(t, 401, "token_revoked")
		if status, dead := refresh(g, second.Refresh); status != 400 || dead.Error != "invalid_grant" {
			t.Errorf("the family's newest refresh token: %d %s", status, dead.Error)
		}
	}
	return last
}

// everyLevelReachesTheOther revokes at A by each level that a token can die by,
// and looks at B; who is not meant stays, and who comes back gets tokens that
// are good.
func everyLevelReachesTheOther(t *testing.T, c *cluster) {
	for _, level := range []struct{ name, claim string }{
		{"token", "jti"}, {"grant", "grant"}, {"session", "sid"}, {"subject", "sub"}, {"client", "client_id"}, {"issuer", "iss"},
	} {
		t.Run(level.name, func(t *testing.T) {
			promptly(t, "the last accepted use after the revocation", time.Second, func() time.Duration { return revokeLevel(t, c, level.name, level.claim) })
		})
	}
}

// revokeLevel returns how long the revoked token went on to be accepted.
func revokeLevel(t *testing.T, c *cluster, level, claim string) time.Duration {
	meant, other := c.login(t, c.a, "openid read:orders"), c.b.token(t, "reader")
	for _, g := range []*gateway{c.a, c.b} {
		g.call("GET", "/orders/1", meant.Access).want(t, 200, "")
		g.call("GET", "/orders/1", other).want(t, 200, "")
	}
	id, _ := claimsOf(t, meant.Access)[claim].(string)
	use := load{next: fixed("GET", "/orders/1", meant.Access), to: []*gateway{c.b}, callers: 1, pace: 2 * time.Millisecond}.start(t)
	c.a.administer(t, "POST", "/api/v1/revocations", map[string]string{"level": level, "id": id})
	last := lastAccepted(t, use, time.Now())
	c.a.call("GET", "/orders/1", meant.Access).want(t, 401, "token_revoked")
	for _, g := range []*gateway{c.a, c.b} {
		if level == "issuer" {
			g.call("GET", "/orders/1", other).want(t, 401, "token_revoked")
		} else {
			g.call("GET", "/orders/1", other).want(t, 200, "")
		}
	}
	refreshed, answered := c.b.tokenEndpoint(t, "web", webSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {meant.Refresh}})
	if alive := level == "token"; alive != (refreshed == 200) {
		t.Errorf("refresh after the revocation: %d %s", refreshed, answered.Error)
	}
	again := c.login(t, c.b, "openid read:orders")
	for _, g := range []*gateway{c.a, c.b} {
		g.call("GET", "/orders/1", again.Access).want(t, 200, "")
	}
	return last
}
