package authserver_test

import (
	"crypto/sha256"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
)

func digest(s string) [32]byte { return sha256.Sum256([]byte(s)) }

func TestOAuth35_SpentRefreshTokenKillsTheFamily(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		first := e.grant()
		second := e.refresh(first.str("refresh_token")).want(t, 200, "")
		if second.str("refresh_token") == first.str("refresh_token") || second.str("refresh_token") == "" {
			t.Fatal("the refresh token was not rotated")
		}
		e.clock.advance(11 * time.Second) // past the grace
		e.refresh(first.str("refresh_token")).want(t, 400, "invalid_grant")
		e.refresh(second.str("refresh_token")).want(t, 400, "invalid_grant")
		if e.active(second.str("access_token")) || e.active(first.str("access_token")) {
			t.Error("access tokens of the family are active")
		}
		if e.counts.of("reuse") != 1 {
			t.Errorf("reuse was counted %d times", e.counts.of("reuse"))
		}
		if ev := e.events("refresh.reuse", 1); ev[0].Grant != claims(t, first.str("access_token"), 1)["grant"] || ev[0].Client != "web" {
			t.Errorf("audit %+v", ev[0])
		}
	})
}

func TestOAuth36_ParallelRefreshesNeverForkTheFamily(t *testing.T) {
	race := func(t *testing.T, a, b *env, token string) (ok map[string]int, refused int) {
		var mu sync.Mutex
		ok = map[string]int{}
		var group sync.WaitGroup
		gate := make(chan struct{})
		for i := range 50 {
			group.Go(func() {
				<-gate
				e := []*env{a, b}[i%2]
				for {
					req := httptest.NewRequest("POST", "/oauth/token", strings.NewReader(form("grant_type", "refresh_token", "refresh_token", token).Encode()))
					req.Header.Set("Content-Type", urlencoded)
					req.SetBasicAuth("web", webSecret)
					rec := httptest.NewRecorder()
					e.server.Handler().ServeHTTP(rec, req)
					if rec.Code == 503 { // nothing is known; an honest client tries again
						continue
					}
					mu.Lock()
					defer mu.Unlock()
					if rec.Code == 200 {
						i := strings.Index(rec.Body.String(), `"ghr_`)
						ok[rec.Body.String()[i+1:i+75]]++
					} else {
						refused++
					}
					return
				}
			})
		}
		close(gate)
		group.Wait()
		return ok, refused
	}
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		a := startOn(t, stores[0], nil, func(c *authserver.Config) { c.RefreshGrace = time.Minute })
		b := startOn(t, stores[1], a, func(c *authserver.Config) { c.RefreshGrace = time.Minute })
		ok, refused := race(t, a, b, a.grant().str("refresh_token"))
		if len(ok) != 1 || refused != 0 {
			t.Errorf("%d different successors, %d refused", len(ok), refused)
		}
		for successor := range ok {
			a.refresh(successor).want(t, 200, "")
		}
	})
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		none := func(c *authserver.Config) { c.RefreshGrace = 0 }
		a := startOn(t, stores[0], nil, none)
		b := startOn(t, stores[1], a, none)
		ok, refused := race(t, a, b, a.grant().str("refresh_token"))
		winners := 0
		for _, n := range ok {
			winners += n
		}
		if winners != 1 || refused != 49 {
			t.Errorf("%d winners, %d refused", winners, refused)
		}
		for successor := range ok {
			a.refresh(successor).want(t, 400, "invalid_grant")
		}
	})
}

func TestOAuth37_TwoGenerationsBackIsReuseAtOnce(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start()
		first := e.grant()
		second := e.refresh(first.str("refresh_token")).want(t, 200, "")
		again := e.refresh(first.str("refresh_token")).want(t, 200, "") // within the grace: the same
		if again.str("refresh_token") != second.str("refresh_token") {
			t.Fatal("a retry got another successor")
		}
		third := e.refresh(second.str("refresh_token")).want(t, 200, "")
		e.refresh(first.str("refresh_token")).want(t, 400, "invalid_grant")
		e.refresh(third.str("refresh_token")).want(t, 400, "invalid_grant")

		// Another client's token: refused, and the family lives.
		mine := e.grant()
		e.token("other", webSecret, form("grant_type", "refresh_token", "refresh_token", mine.str("refresh_token"))).want(t, 400, "invalid_grant")
		e.refresh(mine.str("refresh_token")).want(t, 200, "")
		// A forged token that names the grant does nothing either.
		forged := mine.str("refresh_token")
		forged = forged[:40] + strings.Repeat("A", len(forged)-40)
		e.refresh(forged).want(t, 400, "invalid_grant")
		next := e.refresh(mine.str("refresh_token")).want(t, 200, "")
		if !e.active(next.str("access_token")) {
			t.Error("a forged token harmed the family")
		}
		e.refresh("ghr_x").want(t, 400, "invalid_grant")
		e.refresh("").want(t, 400, "invalid_request")
	})
}

func TestOAuth38_RefreshCanNarrowAndNeverWiden(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start()
		r := e.grant("scope", "openid read:orders")
		e.refresh(r.str("refresh_token"), "scope", "openid read:orders write:orders").want(t, 400, "invalid_scope")
		narrow := e.refresh(r.str("refresh_token"), "scope", "read:orders").want(t, 200, "")
		if narrow.str("scope") != "read:orders" || narrow.str("id_token") != "" {
			t.Errorf("narrowed to %q", narrow.str("scope"))
		}
		wide := e.refresh(narrow.str("refresh_token")).want(t, 200, "")
		if wide.str("scope") != "openid read:orders" {
			t.Errorf("the family was narrowed to %q, only the access token should be", wide.str("scope"))
		}
		e.refresh(wide.str("refresh_token"), "resource", "https://orders.example.com").want(t, 400, "invalid_target")

		f := request("resource", "https://orders.example.com")
		f.Add("resource", "https://billing.example.com")
		r = e.redeem(e.browser().mustCode(f)).want(t, 200, "")
		if aud, _ := claims(t, r.str("access_token"), 1)["aud"].([]any); len(aud) != 2 {
			t.Errorf("aud %v", aud)
		}
		r = e.refresh(r.str("refresh_token"), "resource", "https://billing.example.com").want(t, 200, "")
		if aud := claims(t, r.str("access_token"), 1)["aud"]; aud != "https://billing.example.com" {
			t.Errorf("aud %v", aud)
		}
		e.refresh(r.str("refresh_token"), "resource", e.config.Issuer).want(t, 400, "invalid_target")
	})
}

func TestOAuth39_FamiliesEnd(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		short := func(c *authserver.Config) { c.RefreshTTL, c.RefreshIdle = 4*time.Hour, 2*time.Hour }
		t.Run("idle", func(t *testing.T) {
			e := start(short)
			r := e.grant()
			e.clock.advance(2*time.Hour + time.Second)
			e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
		})
		t.Run("absolute", func(t *testing.T) {
			e := start(short)
			r := e.grant()
			for range 3 {
				e.clock.advance(75 * time.Minute)
				r = e.refresh(r.str("refresh_token")).want(t, 200, "")
			}
			e.clock.advance(75 * time.Minute)
			e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
		})
		ends := func(name string, end func(e *env, b *browser, subject string)) {
			t.Run(name, func(t *testing.T) {
				e := start()
				b := e.browser()
				r := e.redeem(b.mustCode(request())).want(t, 200, "")
				subject, _ := claims(t, r.str("access_token"), 1)["sub"].(string)
				end(e, b, subject)
				e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
				if name != "user gone from the configuration" && e.active(r.str("access_token")) {
					t.Error("the access token is active")
				}
			})
		}
		ends("logout", func(e *env, b *browser, _ string) {
			b.post("/oauth/logout", fields(b.get("/oauth/login").body))
		})
		ends("user revoked", func(e *env, _ *browser, subject string) {
			e.admin("POST", "/api/v1/users/"+subject+"/revoke", "").want(e.t, 200, "")
		})
		ends("client revoked", func(e *env, _ *browser, _ string) {
			e.admin("POST", "/api/v1/clients/web/revoke", "").want(e.t, 200, "")
		})
		ends("consent withdrawn", func(e *env, b *browser, subject string) {
			e.admin("DELETE", "/api/v1/users/"+subject+"/consents/web", "").want(e.t, 204, "")
			b.sent(b.get(authorizeURL(request("prompt", "none"))), "consent_required")
		})
		ends("user gone from the configuration", func(e *env, _ *browser, _ string) {
			d := declared()
			d.Users = d.Users[1:]
			if err := e.server.Reload(e.t.Context(), d); err != nil {
				e.t.Fatal(err)
			}
		})
		t.Run("offline access outlives the session", func(t *testing.T) {
			e := start()
			b := e.browser()
			r := e.redeem(b.mustCode(request("scope", "openid offline_access read:orders"))).want(t, 200, "")
			b.post("/oauth/logout", fields(b.get("/oauth/login").body))
			r = e.refresh(r.str("refresh_token")).want(t, 200, "")
			if !e.active(r.str("access_token")) {
				t.Error("offline access ended with the session")
			}
		})
	})
}

func TestNoTokenIsMintedInTheSecondOfARevocation(t *testing.T) {
	e := start(t)
	old := e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
	entry := e.admin("POST", "/api/v1/clients/batch:1/revoke", "").want(t, 200, "")
	at, err := time.Parse(time.RFC3339, entry.str("not_before"))
	if err != nil {
		t.Fatal(err)
	}
	fresh := e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
	if iat, _ := claims(t, fresh.str("access_token"), 1)["iat"].(float64); int64(iat) <= at.Unix() {
		t.Errorf("minted in second %v, revoked up to %v", int64(iat), at.Unix())
	}
	if e.active(old.str("access_token")) || !e.active(fresh.str("access_token")) {
		t.Error("the old token is active, or the new one is not")
	}
}
