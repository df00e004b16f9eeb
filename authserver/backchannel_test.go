package authserver_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/fetch"
)

// parties are applications that want to be told of logouts: each client's is
// at /ID of one server.
type parties struct {
	*httptest.Server
	mu     sync.Mutex
	tokens map[string][]string
	// status is what is answered to the n-th request for a client, from 0.
	status func(client string, n int) int
}

func startParties(t *testing.T) *parties {
	p := &parties{tokens: map[string][]string{}, status: func(string, int) int { return 200 }}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		client := strings.TrimPrefix(r.URL.Path, "/")
		p.mu.Lock()
		defer p.mu.Unlock()
		w.WriteHeader(p.status(client, len(p.tokens[client])))
		p.tokens[client] = append(p.tokens[client], r.PostFormValue("logout_token"))
	}))
	t.Cleanup(p.Server.Close)
	return p
}

func (p *parties) got(client string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.tokens[client])
}

// told makes all clients of the test want to know, and the server reach them.
func (p *parties) told(c *authserver.Config) {
	for i := range c.Declared.Clients {
		one := &c.Declared.Clients[i]
		if len(one.RedirectURIs) > 0 || one.ID == "tv" {
			one.BackchannelLogoutURI = p.URL + "/" + one.ID
			one.BackchannelLogoutSession = true
		}
	}
	c.Fetch = fetch.New(fetch.Config{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
}

// sso signs alice in at the clients web and first, in one session.
func sso(t *testing.T, b *browser) (web, first reply) {
	t.Helper()
	web = b.e.redeem(b.mustCode(request())).want(t, 200, "")
	const cb = "https://first.example.com/cb"
	// Nobody signs in here.
	r := b.run(request("client_id", "first", "redirect_uri", cb), "", "")
	if b.code(r) == "" {
		t.Fatalf("the second application asked again: %d %s", r.status, r.body)
	}
	first = b.e.token("first", webSecret, redemption(b.code(r), "redirect_uri", cb)).want(t, 200, "")
	return web, first
}

func TestOAuth42_LogoutIsToldToEveryApplicationOfTheSession(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		p := startParties(t)
		stores := openStores(t, dsn, 2)
		e := startOn(t, stores[0], nil, p.told)
		startOn(t, stores[1], e, p.told) // delivers too, but nothing twice
		b := e.browser()
		web, first := sso(t, b)
		another := e.grant() // a session that goes on
		id := claims(t, web.str("id_token"), 1)
		if sid := claims(t, first.str("id_token"), 1)["sid"]; sid != id["sid"] || sid == nil {
			t.Fatalf("two sessions: %v, %v", sid, id["sid"])
		}
		b.get("/oauth/logout?" + url.Values{"id_token_hint": {web.str("id_token")}}.Encode())
		for _, token := range []string{web.str("access_token"), first.str("access_token")} {
			if e.active(token) {
				t.Error("a token outlives the logout")
			}
		}
		e.events("logout.notified", 2)
		for _, client := range []string{"web", "first"} {
			tokens := p.got(client)
			if len(tokens) != 1 {
				t.Fatalf("%s was told %d times", client, len(tokens))
			}
			e.secret(tokens[0])
			header, c := claims(t, tokens[0], 0), claims(t, tokens[0], 1)
			if header["typ"] != "logout+jwt" || c["iss"] != e.config.Issuer || c["aud"] != client || c["sub"] != id["sub"] || c["sid"] != id["sid"] ||
				c["jti"] == "" || c["nonce"] != nil || c["exp"].(float64)-c["iat"].(float64) != 120 ||
				text(t, c["events"]) != `{"http://schemas.openid.net/event/backchannel-logout":{}}` {
				t.Errorf("logout token %v %v", header, c)
			}
			if _, err := provider(t, e).Verifier(&oidc.Config{ClientID: client, Now: e.clock.now}).Verify(t.Context(), tokens[0]); err != nil {
				t.Errorf("signature: %v", err)
			}
			// It is good for nothing else.
			e.get("/oauth/userinfo", "Authorization", "Bearer "+tokens[0]).want(t, 401, "invalid_token")
			b.get("/oauth/logout?"+url.Values{"id_token_hint": {tokens[0]}}.Encode()).page(t, 400)
		}
		if n := len(p.got("other")) + len(p.got("spa")); n != 0 || !e.active(another.str("access_token")) {
			t.Errorf("%d others were told, or another session ended", n)
		}
	})
}

// A refreshed ID token of an offline grant names no session: the user that it
// names is who asks.
func TestOAuth42_OfflineHintEndsTheSessionOfItsUserOnly(t *testing.T) {
	e := start(t)
	b, bob := e.browser(), e.browser()
	got := e.redeem(b.mustCode(request("scope", "openid offline_access"))).want(t, 200, "")
	offline := e.refresh(got.str("refresh_token")).want(t, 200, "").str("id_token")
	if sid := claims(t, offline, 1)["sid"]; sid != nil {
		t.Fatalf("sid %v", sid)
	}
	bob.signIn("bob", password)
	out := "/oauth/logout?" + url.Values{"id_token_hint": {offline}}.Encode()
	bob.get(out).shows(t, 200, `<form method="post" action="/oauth/logout"`)
	r := b.get(out)
	if r.status != 200 || strings.Contains(r.body, "<form") {
		t.Errorf("the user was asked: %d %s", r.status, r.body)
	}
	b.sent(b.get(authorizeURL(request("prompt", "none"))), "login_required")
}

func TestOAuth42_LogoutIsToldWhateverEndsTheSession(t *testing.T) {
	p := startParties(t)
	e := start(t, p.told)
	sid := func(r reply) string { return claims(t, r.str("id_token"), 1)["sid"].(string) }
	told := func(what string, n int, sid string) {
		t.Helper()
		eventually(t, func() bool { return len(p.got("web")) >= n })
		if c := claims(t, p.got("web")[n-1], 1); c["sid"] != sid {
			t.Errorf("%s: told of %v, want %s", what, c["sid"], sid)
		}
	}
	r := e.grant()
	if a := e.admin("DELETE", "/api/v1/sessions/"+sid(r), ""); a.status != 200 {
		t.Fatalf("end the session: %d %s", a.status, a.body)
	}
	told("an operator ends the session", 1, sid(r))
	r = e.grant()
	subject := claims(t, r.str("id_token"), 1)["sub"].(string)
	list := e.admin("GET", "/api/v1/users/"+subject+"/sessions", "")
	if n := strings.Count(list.body, `"id"`); n != 1 || !strings.Contains(list.body, sid(r)) {
		t.Errorf("session list: %s", list.body)
	}
	e.admin("POST", "/api/v1/users/"+subject+"/revoke", "")
	told("everything of the user ends", 2, sid(r))
	b := e.browser()
	r = e.redeem(b.mustCode(request())).want(t, 200, "")
	b.run(request("prompt", "login"), "bob", "allow")
	told("somebody else signs in on the browser", 3, sid(r))
	// A stored user's new password.
	carol := e.admin("POST", "/api/v1/users", `{"name":"carol","password":"`+password+`"}`)
	b = e.browser()
	r = e.redeem(b.code(b.run(request(), "carol", "allow"))).want(t, 200, "")
	e.admin("PATCH", "/api/v1/users/"+carol.str("subject"), `{"password":"another horse battery staple"}`)
	told("the password was changed", 4, sid(r))
	if e.active(r.str("access_token")) {
		t.Error("a token outlives the password")
	}
	// A device takes part in the session of the browser that allowed it.
	b = e.browser()
	d := e.startDevice()
	b.post("/oauth/device", with(fields(b.typeCode(b.device("/oauth/device", "alice"), d.str("user_code")).body), "decision", "allow"))
	r = e.poll(d.str("device_code")).want(t, 200, "")
	b.post("/oauth/logout", fields(b.get("/oauth/logout").body))
	eventually(t, func() bool { return len(p.got("tv")) == 1 })
	if e.active(r.str("access_token")) {
		t.Error("the device's token outlives the session")
	}
}

func TestOAuth42_LogoutIsToldAgainUntilItIsHeard(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		p := startParties(t)
		p.status = func(client string, n int) int {
			if n < 3 {
				return []int{500, 400, 302}[n]
			}
			return 204
		}
		e := startOn(t, openStores(t, dsn, 1)[0], nil, p.told)
		end := func() {
			t.Helper()
			b := e.browser()
			r := e.redeem(b.mustCode(request())).want(t, 200, "")
			b.get("/oauth/logout?" + url.Values{"id_token_hint": {r.str("id_token")}}.Encode())
		}
		end()
		seen := map[any]bool{}
		for n := 1; n <= 4; n++ {
			polls := 0
			eventually(t, func() bool {
				// The attempt before may be written down only after the clock was
				// moved: then the next one is a step further away.
				if polls++; n > 1 && polls%200 == 1 {
					e.clock.advance(time.Minute + time.Second)
				}
				return len(p.got("web")) >= n
			})
			seen[claims(t, p.got("web")[n-1], 1)["jti"]] = true
		}
		e.events("logout.notified", 1)
		if len(seen) != 4 {
			t.Errorf("%d different identifiers in 4 tokens", len(seen))
		}
	})
}

func TestOAuth42_LogoutIsNotToldToPrivateAddresses(t *testing.T) {
	p := startParties(t)
	e := start(t, p.told, func(c *authserver.Config) { c.Fetch = nil })
	b := e.browser()
	r := e.redeem(b.mustCode(request())).want(t, 200, "")
	b.get("/oauth/logout?" + url.Values{"id_token_hint": {r.str("id_token")}}.Encode())
	eventually(t, func() bool { return strings.Contains(e.logs.String(), "back-channel logout failed") })
	e.clock.advance(25 * time.Hour)
	if ev := e.events("logout.undelivered", 1)[0]; ev.Client != "web" || ev.Outcome != "failure" || ev.Session == "" {
		t.Errorf("audit %+v", ev)
	}
	if len(p.got("web")) != 0 {
		t.Error("a private address was called")
	}
}
