package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/unusual"
)

// visitor is a browser at an address, past the socket.
type visitor struct {
	e          *env
	ip, cookie string
}

func (v *visitor) do(method, target string, f url.Values) reply {
	v.e.t.Helper()
	req := httptest.NewRequest(method, v.e.config.Issuer+target, strings.NewReader(f.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Cookie", v.cookie)
	req.RemoteAddr = v.ip + ":1"
	rec := httptest.NewRecorder()
	v.e.server.Handler().ServeHTTP(rec, req)
	r := reply{status: rec.Code, header: rec.Header(), body: rec.Body.String()}
	_ = json.Unmarshal(rec.Body.Bytes(), &r.json)
	v.e.secret(r.str("access_token"), r.str("refresh_token"))
	return r
}

func (e *env) refreshFrom(ip, token string) reply {
	e.t.Helper()
	return (&visitor{e: e, ip: ip}).do(http.MethodPost, "/oauth/token",
		form("grant_type", "refresh_token", "refresh_token", token, "client_id", "web", "client_secret", webSecret))
}

// signInFrom signs a user in on a new browser at an address.
func (e *env) signInFrom(ip, user, pw string) (*visitor, reply) {
	e.t.Helper()
	v := &visitor{e: e, ip: ip}
	page := v.do(http.MethodGet, "/oauth/login", nil)
	v.cookie, _, _ = strings.Cut(page.header.Get("Set-Cookie"), ";")
	return v, v.do(http.MethodPost, "/oauth/login", with(fields(page.body), "username", user, "password", pw))
}

func (e *env) statusFrom(ip, user, pw string) int {
	e.t.Helper()
	_, r := e.signInFrom(ip, user, pw)
	return r.status
}

func policy(p unusual.Policy) func(*authserver.Config) {
	return func(c *authserver.Config) { c.Unusual = p }
}

func TestUnusualRefreshIsRecordedAndCanRevoke(t *testing.T) {
	const here, near, there = "192.0.2.1", "192.0.2.77", "198.51.100.1"
	tooFast := func(e *env, token string) {
		for range 21 {
			token = e.refreshFrom(here, token).str("refresh_token")
		}
	}
	twice := func(e *env, token string) {
		e.refreshFrom(here, token).want(t, 200, "")
		e.refreshFrom(near, token).want(t, 200, "") // as a client does whose connection was renewed
		e.refreshFrom(there, token)
	}
	again := func(e *env, token string) {
		e.refreshFrom(here, token).want(t, 200, "")
		e.clock.advance(time.Minute)
		e.refreshFrom(here, token).want(t, 400, "invalid_grant")
	}
	f := func(name string, action unusual.Action, do func(*env, string), reason string) {
		t.Helper()
		t.Run(name+" "+string(action), func(t *testing.T) {
			e := start(t, policy(unusual.Policy{Refresh: action}))
			b := e.browser()
			other := e.redeem(b.mustCode(request())).want(t, 200, "").str("access_token")
			do(e, e.redeem(b.mustCode(request())).want(t, 200, "").str("refresh_token"))
			if action == unusual.Off {
				if n := e.counts.of("unusual refresh"); n != 0 {
					t.Errorf("%d noticed", n)
				}
				return
			}
			ev := e.events("unusual.refresh", 1)
			if len(ev) != 1 || ev[0].Reason != reason || ev[0].Grant == "" || ev[0].Session == "" || e.counts.of("unusual refresh") != 1 {
				t.Errorf("noticed %+v", ev)
			}
			if revoked := !e.active(other); revoked != (action == unusual.Revoke) || (ev[0].Outcome == "failure") != revoked {
				t.Errorf("the session ended: %v", revoked)
			}
		})
	}
	for _, action := range []unusual.Action{unusual.Off, unusual.Notify, unusual.Revoke} {
		f("two places", action, twice, "one token from two networks")
		f("a rush", action, tooFast, "21 refreshes within the life of one access token")
		f("reuse", action, again, "a spent token came back")
	}
}

func TestUnusualGrantWithoutASessionEndsAlone(t *testing.T) {
	e := start(t, policy(unusual.Policy{Refresh: unusual.Revoke}))
	r := e.grant("scope", "openid offline_access", "prompt", "consent")
	e.refreshFrom("192.0.2.1", r.str("refresh_token")).want(t, 200, "")
	e.refreshFrom("198.51.100.1", r.str("refresh_token")).want(t, 400, "invalid_grant")
	if e.active(r.str("access_token")) {
		t.Error("the grant lives")
	}
}

func TestUnusualCountryIsRecordedAndCanRefuse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "countries.csv")
	if err := os.WriteFile(path, []byte("192.0.2.0/24,DE\n198.51.100.0/24,FR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const de, fr, nowhere = "192.0.2.1", "198.51.100.1", "203.0.113.1"
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start(policy(unusual.Policy{NewCountry: unusual.Notify}), func(c *authserver.Config) { c.Declared.Countries = path })
		for _, ip := range []string{de, nowhere, de, fr, fr} {
			if got := e.statusFrom(ip, "alice", password); got != 303 {
				t.Fatalf("%s: %d", ip, got)
			}
		}
		if ev := e.events("unusual.new_country", 1); len(ev) != 1 || ev[0].Reason != "FR" || ev[0].Outcome != "success" || ev[0].IP != fr {
			t.Errorf("noticed %+v", ev)
		}
		e.clock.advance(181 * 24 * time.Hour)
		e.signInFrom(de, "alice", password)
		if n := e.counts.of("unusual new_country"); n != 1 {
			t.Errorf("after half a year: %d", n)
		}

		e = start(policy(unusual.Policy{NewCountry: unusual.Revoke}), func(c *authserver.Config) { c.Declared.Countries = path })
		if got := e.statusFrom(de, "bob", password); got != 303 {
			t.Fatalf("the first country: %d", got)
		}
		for range 2 { // trying again does not make it known
			if _, r := e.signInFrom(fr, "bob", password); r.status != 403 || strings.Contains(strings.Join(r.header.Values("Set-Cookie"), ""), "session") {
				t.Errorf("a new country: %d %v", r.status, r.header)
			}
		}
		if ev := e.events("unusual.new_country", 2); ev[0].Outcome != "failure" {
			t.Errorf("noticed %+v", ev)
		}
		if got := e.statusFrom(de, "bob", password); got != 303 {
			t.Errorf("the known country: %d", got)
		}
		// A second step proves enough.
		b := e.browser()
		b.signIn("alice", password)
		secret, _ := b.enrol()
		e.clock.advance(time.Minute)
		for i, ip := range []string{de, fr} {
			v, r := e.signInFrom(ip, "alice", password)
			page := v.do(http.MethodGet, r.header.Get("Location"), nil)
			r = v.do(http.MethodPost, "/oauth/factor", with(fields(page.body), "code", e.codeAt(secret, i)))
			if r.status != 303 {
				t.Errorf("with a second step from %s: %d", ip, r.status)
			}
		}
		if ev := e.events("unusual.new_country", 3); ev[2].Outcome != "success" {
			t.Errorf("noticed %+v", ev[2])
		}
	})
}

func TestUnusuallyManyFailuresAreRecordedOnce(t *testing.T) {
	e := start(t, policy(unusual.Policy{Failures: unusual.Notify}))
	subject := claims(t, e.grant().str("access_token"), 1)["sub"]
	for i := range 12 {
		if i >= 5 {
			e.clock.advance(31 * time.Second)
		}
		if got := e.statusFrom("192.0.2.1", "alice", "a wrong password"); got != 422 {
			t.Fatalf("failure %d: %d", i, got)
		}
	}
	e.statusFrom("192.0.2.1", "nobody", "a wrong password")
	for range 55 {
		e.token("web", "not the secret of this client, surely", clientCredentials).want(t, 401, "invalid_client")
	}
	ev := e.events("unusual.failures", 2)
	if len(ev) != 2 || ev[0].Subject != subject || ev[0].Client != "" || ev[1].Client != "web" || ev[1].Reason != "50 within 10m0s" {
		t.Errorf("noticed %+v", ev)
	}
	if e.statusFrom("192.0.2.2", "bob", password) != 303 || e.counts.of("unusual failures") != 2 {
		t.Error("another account suffers")
	}
}
