package authserver_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// push pushes a request of the client web.
func (e *env) push(f url.Values) string {
	e.t.Helper()
	r := e.post("/oauth/par", "web", webSecret, f).want(e.t, 201, "")
	if r.json["expires_in"] != float64(60) || r.header.Get("Cache-Control") != "no-store" {
		e.t.Errorf("answer %s %v", r.body, r.header)
	}
	uri := r.str("request_uri")
	if !strings.HasPrefix(uri, "urn:ietf:params:oauth:request_uri:") || len(uri) < 34+43 {
		e.t.Fatalf("request_uri %q can be guessed", uri)
	}
	e.secret(uri)
	return uri
}

func pushedRequest(uri string) url.Values { return form("client_id", "web", "request_uri", uri) }

func TestOAuth52_PushedRequestIsUsedOnceByItsClientWithinAMinute(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		e := startOn(t, stores[0], nil)
		other := startOn(t, stores[1], e)
		uri := e.push(request("state", "pushed"))
		// Nobody else's.
		e.browser().get(authorizeURL(form("client_id", "first", "request_uri", uri))).page(t, 400)
		e.browser().get(authorizeURL(form("request_uri", uri))).page(t, 400)
		b := other.browser()
		b.origin = other.config.Issuer
		r := b.run(with(pushedRequest(uri), "state", "outside", "scope", "write:orders", "redirect_uri", "https://evil.example.com/"), "alice", "allow")
		if b.param(r, "state") != "pushed" || b.code(r) == "" {
			t.Fatalf("answer %d %s", r.status, r.header.Get("Location"))
		}
		if got := e.redeem(b.code(r)).want(t, 200, ""); got.str("scope") != "openid profile read:orders" {
			t.Errorf("scope %q", got.str("scope"))
		}
		e.browser().get(authorizeURL(pushedRequest(uri))).page(t, 400)
		other.browser().get(authorizeURL(pushedRequest(uri))).page(t, 400)

		// One of many at once, over both replicas.
		uri = e.push(request())
		var mu sync.Mutex
		statuses := map[int]int{}
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() {
				at := e
				if i%2 == 1 {
					at = other
				}
				r := at.browser().get(authorizeURL(pushedRequest(uri)))
				mu.Lock()
				defer mu.Unlock()
				statuses[r.status]++
			})
		}
		group.Wait()
		if fmt.Sprint(statuses) != "map[303:1 400:19]" {
			t.Errorf("statuses %v", statuses)
		}

		uri = e.push(request())
		e.clock.advance(61 * time.Second)
		e.browser().get(authorizeURL(pushedRequest(uri))).page(t, 400)
		for _, made := range []string{"urn:ietf:params:oauth:request_uri:" + strings.Repeat("A", 43), "urn:ietf:params:oauth:request_uri:", "urn:x"} {
			if r := e.browser().get(authorizeURL(pushedRequest(made))); r.status != 400 && e.browser().param(r, "error") != "request_uri_not_supported" {
				t.Errorf("%q: %d", made, r.status)
			}
		}
	})
}

func TestOAuth52_PushedRequestIsCheckedWhenItIsPushed(t *testing.T) {
	e := start(t)
	f := func(name string, status int, code string, v url.Values) {
		t.Helper()
		r := e.post("/oauth/par", "web", webSecret, v)
		if r.status != status || r.str("error") != code {
			t.Errorf("%s: %d %q, want %d %q", name, r.status, r.str("error"), status, code)
		}
	}
	f("right", 201, "", request())
	f("without the client's name", 201, "", request("client_id", ""))
	f("request_uri", 400, "invalid_request", request("request_uri", "urn:ietf:params:oauth:request_uri:"+strings.Repeat("A", 43)))
	f("another client's name", 400, "invalid_request", request("client_id", "first"))
	f("another address", 400, "invalid_request", request("redirect_uri", "https://evil.example.com/"))
	f("no challenge", 400, "invalid_request", request("code_challenge", ""))
	f("scope", 400, "invalid_scope", request("scope", "nonsense"))
	f("resource", 400, "invalid_target", request("resource", "https://evil.example.com"))
	f("parameter twice", 400, "invalid_request", url.Values{"scope": {"openid", "openid"}})
	f("bad object", 400, "invalid_request_object", request("request", "x.y.z"))
	f("long", 400, "invalid_request", request("state", strings.Repeat("s", 7000)))
	e.post("/oauth/par", "web", "wrong secret wrong secret wrong secret", request()).want(t, 401, "invalid_client")
	e.post("/oauth/par", "", "", request("client_id", "spa", "redirect_uri", "https://spa.example.com/cb")).want(t, 201, "")
	e.post("/oauth/par", "batch:1", bSecret, request("client_id", "")).want(t, 400, "invalid_request")
	if r := e.get("/oauth/par"); r.status != 405 {
		t.Errorf("GET: %d", r.status)
	}
}

func TestOAuth52_WhoMustPushCannotDoWithout(t *testing.T) {
	f := func(change func(*authserver.Config)) {
		t.Helper()
		e := start(t, change)
		b := e.browser()
		b.sent(b.get(authorizeURL(request())), "invalid_request")
		if code := b.mustCode(pushedRequest(e.push(request()))); code == "" {
			t.Error("no code for a pushed request")
		}
	}
	f(func(c *authserver.Config) { c.RequirePAR = true })
	f(func(c *authserver.Config) {
		c.Declared.Clients[0].ClientSettings = store.ClientSettings{RequirePAR: true}
	})
	e := start(t, func(c *authserver.Config) { c.RequirePAR = true })
	if e.get("/.well-known/openid-configuration").json["require_pushed_authorization_requests"] != true {
		t.Error("the metadata does not say so")
	}
}

func TestPushedRequestMayBeSigned(t *testing.T) {
	key := newClientKey(t, "ES256", "k1")
	e := start(t, signingClients(store.ClientSettings{AuthMethod: "private_key_jwt", JWKS: jwks(t, key), RequireSigned: true, RequirePAR: true}))
	push := func(pairs ...string) reply {
		return e.post("/oauth/par", "", "", asserted(e.assertion(key, "signer", nil, nil), pairs...))
	}
	uri := push("request", e.object(key, nil, nil), "scope", "nonsense").want(t, 201, "").str("request_uri")
	b := e.browser()
	r := b.run(form("client_id", "signer", "request_uri", uri), "alice", "allow")
	if b.param(r, "state") != "signed-state" || b.code(r) == "" {
		t.Fatalf("answer %d %s", r.status, r.header.Get("Location"))
	}
	push("request", e.object(newClientKey(t, "ES256", "k1"), nil, nil)).want(t, 400, "invalid_request_object")
	e.post("/oauth/par", "", "", merged(request("client_id", "signer", "scope", "openid"), asserted(e.assertion(key, "signer", nil, nil)))).want(t, 400, "invalid_request")
}

func TestOAuth11_ClientMayDemandState(t *testing.T) {
	e := start(t, func(c *authserver.Config) {
		c.Declared.Clients[0].ClientSettings = store.ClientSettings{RequireState: true}
	})
	b := e.browser()
	b.sent(b.get(authorizeURL(request("state", ""))), "invalid_request")
	if code := b.mustCode(request()); code == "" {
		t.Error("no code with state")
	}
}
