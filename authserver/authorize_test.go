package authserver_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// page fails the test unless the answer is an error page without a redirect.
func (r reply) page(t testing.TB, status int) reply {
	t.Helper()
	if r.status != status || r.header.Get("Location") != "" || !strings.HasPrefix(r.header.Get("Content-Type"), "text/html") {
		t.Fatalf("answer %d to %q, want an error page %d: %s", r.status, r.header.Get("Location"), status, r.body)
	}
	return r
}

// sent fails the test unless the answer is an error sent to the client web.
func (b *browser) sent(r reply, code string) {
	b.e.t.Helper()
	to := r.header.Get("Location")
	if r.status != http.StatusSeeOther || !strings.HasPrefix(to, callback+"?") || b.param(r, "error") != code {
		b.e.t.Fatalf("answer %d to %q, want 303 with error %q: %s", r.status, to, code, r.body)
	}
	if b.param(r, "iss") != b.e.config.Issuer || b.param(r, "code") != "" {
		b.e.t.Fatalf("error answer without iss, or with a code: %s", to)
	}
}

func authorizeURL(f url.Values) string { return "/oauth/authorize?" + f.Encode() }

func TestOAuth01_WrongRedirectURIGetsPageNotRedirect(t *testing.T) {
	e := start(t)
	f := func(client, uri string) {
		t.Helper()
		e.browser().get(authorizeURL(request("client_id", client, "redirect_uri", uri))).page(t, 400)
	}
	f("web", "https://evil.example.com/callback")
	f("web", "https://app.example.com/Callback")
	f("web", "https://APP.example.com/callback")
	f("web", callback+"/")
	f("web", callback+"?x=1")
	f("web", callback+"#f")
	f("web", "https://app.example.com/x/../callback")
	f("web", "https://user@app.example.com/callback")
	f("web", "https://app.example.com:443/callback")
	f("web", "https://app.example.com.evil.example/callback")
	f("several", "")
	f("several", "https://b.example.com/cb")
	if r := e.browser().get(authorizeURL(request("redirect_uri", ""))); r.status != 303 {
		t.Errorf("missing redirect_uri with one registered: %d, want it accepted", r.status)
	}
	b := e.browser()
	r := b.run(request("client_id", "several", "redirect_uri", "https://b.example.com/cb?tenant=1"), "alice", "allow")
	if b.param(r, "tenant") != "1" || b.code(r) == "" {
		t.Errorf("a registered query was lost: %s", r.header.Get("Location"))
	}
}

func TestOAuth02_LoopbackRedirectTakesAnyPortAndNothingElse(t *testing.T) {
	e := start(t)
	f := func(uri string, ok bool) {
		t.Helper()
		r := e.browser().get(authorizeURL(request("client_id", "native", "redirect_uri", uri)))
		if (r.status == http.StatusSeeOther) != ok {
			t.Errorf("%s: %d, accepted should be %v", uri, r.status, ok)
		}
	}
	f("http://127.0.0.1:51234/cb", true)
	f("http://127.0.0.1/cb", true)
	f("http://[::1]:8080/cb", true)
	f("com.example.app:/cb", true)
	f("http://127.0.0.1:51234/other", false)
	f("http://127.0.0.1:51234/cb?x=1", false)
	f("http://127.0.0.1:0/cb", false)
	f("http://127.0.0.1:99999/cb", false)
	f("http://127.0.0.1:/cb", false)
	f("http://127.0.0.1:80@evil.example/cb", false)
	f("http://127.0.0.1.evil.example/cb", false)
	f("http://127.0.0.2:8080/cb", false)
	f("http://localhost:8080/cb", false)
	f("https://127.0.0.1:8080/cb", false)
	if r := e.browser().get(authorizeURL(request("redirect_uri", "https://app.example.com:8443/callback"))); r.status != 400 {
		t.Error("an https redirect URI took another port")
	}
}

func TestOAuth03_DangerousRedirectURIsCannotBeRegistered(t *testing.T) {
	f := func(uri string, ok bool) {
		t.Helper()
		err := clients.Validate(store.Client{ID: "x", Grants: []string{"authorization_code"}, RedirectURIs: []string{uri}}, func(string) bool { return true })
		if (err == nil) != ok {
			t.Errorf("%q: %v, want it accepted: %v", uri, err, ok)
		}
		if err != nil && !strings.Contains(err.Error(), "invalid_redirect_uri") {
			t.Errorf("%q: %v does not say invalid_redirect_uri", uri, err)
		}
	}
	f("https://app.example.com/cb", true)
	f("http://127.0.0.1/cb", true)
	f("http://localhost:3000/cb", true)
	f("com.example.app:/cb", true)
	f("http://app.example.com/cb", false)
	f("javascript:alert(1)", false)
	f("data:text/html,x", false)
	f("https://app.example.com/cb#f", false)
	f("https://app.example.com/*", false)
	f("https://*.example.com/cb", false)
	f("https://user:pw@app.example.com/cb", false)
	f("https://app.example.com/a/../b", false)
	f("https://app.example.com/a/%2e%2e/b", false)
	f("https:///cb", false)
	f("https:app.example.com", false)
	f("https://a;b.example.com/", false)
	f("https://app.example.com/ cb", false)
	f("//app.example.com/cb", false)
	f("", false)
}

func TestOAuth04_UnknownClientLooksLikeBadRedirectURI(t *testing.T) {
	e := start(t)
	unknown := e.browser().get(authorizeURL(request("client_id", "nobody"))).page(t, 400)
	bad := e.browser().get(authorizeURL(request("redirect_uri", "https://evil.example.com/"))).page(t, 400)
	none := e.browser().get(authorizeURL(request("client_id", ""))).page(t, 400)
	if unknown.body != bad.body || unknown.body != none.body {
		t.Error("the pages tell an unknown client from a bad redirect URI")
	}
	e.browser().get(authorizeURL(request())+"&client_id=web").page(t, 400)
	e.browser().get(authorizeURL(request())+"&redirect_uri="+url.QueryEscape("https://evil.example.com/")).page(t, 400)
}

func TestOAuth05To09_MalformedRequestsAreSentBack(t *testing.T) {
	e := start(t)
	f := func(name, code string, pairs ...string) {
		t.Helper()
		b := e.browser()
		r := b.get(authorizeURL(request(pairs...)))
		if b.param(r, "error") != code || b.param(r, "state") != "s-1" {
			t.Errorf("%s: answer %q, want error %q with the state", name, r.header.Get("Location"), code)
		}
	}
	for _, client := range []struct{ id, uri string }{{"web", callback}, {"spa", "https://spa.example.com/cb"}, {"native", "http://127.0.0.1:1234/cb"}} {
		pairs := []string{"client_id", client.id, "redirect_uri", client.uri}
		f("5 no challenge, "+client.id, "invalid_request", append(pairs, "code_challenge", "")...)
		f("6 plain, "+client.id, "invalid_request", append(pairs, "code_challenge_method", "plain")...)
		f("6 no method, "+client.id, "invalid_request", append(pairs, "code_challenge_method", "")...)
	}
	f("7 short challenge", "invalid_request", "code_challenge", "short")
	f("7 long challenge", "invalid_request", "code_challenge", challenge(verifier)+"A")
	f("7 padded challenge", "invalid_request", "code_challenge", challenge(verifier)[:42]+"=")
	f("8 token", "unsupported_response_type", "response_type", "token")
	f("8 id_token", "unsupported_response_type", "response_type", "id_token")
	f("8 hybrid", "unsupported_response_type", "response_type", "code id_token")
	f("8 missing", "invalid_request", "response_type", "")
	f("8 fragment", "invalid_request", "response_mode", "fragment")
	f("15 scope beyond the client", "invalid_scope", "scope", "openid gatehouse:admin")
	f("15 the server's own scope for a user", "invalid_scope", "scope", "openid gatehouse:admin", "client_id", "first", "redirect_uri", "https://first.example.com/cb")
	f("15 scope that does not exist", "invalid_scope", "scope", "openid nonsense")
	f("56 unknown resource", "invalid_target", "resource", "https://evil.example.com")
	f("request object", "invalid_request_object", "request", "eyJhbGciOiJub25lIn0.e30.")
	f("request_uri", "request_uri_not_supported", "request_uri", "https://127.0.0.1/x")
	f("prompt none and login", "invalid_request", "prompt", "none login")
	f("max_age", "invalid_request", "max_age", "soon")
	f("id_token_hint", "invalid_request", "id_token_hint", "x.y.z")

	b := e.browser()
	for _, name := range []string{"nonce", "scope", "code_challenge", "response_type", "prompt"} {
		b.sent(b.get(authorizeURL(request())+"&"+name+"=x&"+name+"=x"), "invalid_request")
	}
	r := b.get(authorizeURL(request()) + "&state=other")
	b.sent(r, "invalid_request")
	if b.param(r, "state") != "" {
		t.Error("9: an ambiguous state was sent back")
	}
	if r := b.get(authorizeURL(request("unknown", "x", "prompt", ""))); !strings.HasPrefix(r.header.Get("Location"), "/oauth/login") {
		t.Errorf("9: an unknown and an empty parameter: %d %s", r.status, r.header.Get("Location"))
	}
}

func TestOAuth06_MetadataListsOnlyS256AndCode(t *testing.T) {
	e := start(t)
	m := e.get("/.well-known/openid-configuration").json
	for name, want := range map[string]string{"code_challenge_methods_supported": "S256", "response_types_supported": "code"} {
		if l, _ := m[name].([]any); len(l) != 1 || l[0] != want {
			t.Errorf("%s = %v, want only %s", name, m[name], want)
		}
	}
	if m["authorization_response_iss_parameter_supported"] != true {
		t.Error("10: iss in answers is not advertised")
	}
}

func TestOAuth10_AnswersNameTheIssuer(t *testing.T) {
	e := start(t)
	b := e.browser()
	if r := b.run(request(), "alice", "allow"); b.param(r, "iss") != e.config.Issuer || b.code(r) == "" {
		t.Errorf("success answer: %s", r.header.Get("Location"))
	}
	b = e.browser()
	b.sent(b.run(request("prompt", "consent"), "alice", "deny"), "access_denied")
}

func TestOAuth11_StateComesBackByteForByte(t *testing.T) {
	e := start(t)
	f := func(state string) {
		t.Helper()
		e.secret(state)
		b := e.browser()
		r := b.get(authorizeURL(request("state", state)))
		login := b.get(r.header.Get("Location"))
		if strings.Contains(login.body, state) {
			t.Errorf("state %.20q is in the page", state)
		}
		r = b.run(request("state", state), "alice", "allow")
		if got := b.param(r, "state"); got != state || b.code(r) == "" {
			t.Errorf("state %.20q came back as %.20q", state, got)
		}
	}
	f("<script>alert('state')</script> & \"quotes\" +%20")
	f("ünïcödé – 状態 – \u202e – 0123456789")
	f(strings.Repeat("0123456789abcdef", 128))
	e.browser().get(authorizeURL(request("state", strings.Repeat("x", 7000)))).page(t, 400)
}

func TestOAuth12_FormsAreAnsweredWith303(t *testing.T) {
	e := start(t)
	b := e.browser()
	r := b.get(authorizeURL(request()))
	page := b.get(r.header.Get("Location"))
	r = b.post("/oauth/login", with(fields(page.body), "username", "alice", "password", password))
	if r.status != http.StatusSeeOther {
		t.Fatalf("login answered with %d", r.status)
	}
	r = b.get(r.header.Get("Location"))
	page = b.get(r.header.Get("Location"))
	r = b.post("/oauth/consent", with(fields(page.body), "decision", "allow"))
	if r.status != http.StatusSeeOther {
		t.Fatalf("consent answered with %d", r.status)
	}
	if r = b.get(r.header.Get("Location")); r.status != http.StatusSeeOther || b.code(r) == "" {
		t.Fatalf("authorize answered with %d", r.status)
	}
}

func TestOAuth13_PromptAndMaxAge(t *testing.T) {
	e := start(t)
	b := e.browser()
	b.sent(b.get(authorizeURL(request("prompt", "none"))), "login_required")
	if r := b.run(request("prompt", "none"), "", ""); b.param(r, "error") != "login_required" {
		t.Errorf("prompt=none without a session: %s", r.header.Get("Location"))
	}
	r := b.run(request(), "alice", "")
	if !strings.Contains(r.body, "/oauth/consent") {
		t.Fatalf("no consent page: %d", r.status)
	}
	b.sent(b.get(authorizeURL(request("prompt", "none"))), "consent_required")
	first := e.redeem(b.mustCode(request())).want(t, 200, "")
	silent := b.get(authorizeURL(request("prompt", "none")))
	if b.code(silent) == "" {
		t.Fatalf("prompt=none after consent: %s", silent.header.Get("Location"))
	}
	b.sent(b.get(authorizeURL(request("prompt", "none", "scope", "openid write:orders"))), "consent_required")

	authTime := func(r reply) float64 {
		n, _ := claims(t, r.str("id_token"), 1)["auth_time"].(float64)
		return n
	}
	e.clock.advance(5 * time.Second)
	again := func(pairs ...string) reply {
		t.Helper()
		if r := b.run(request(pairs...), "", ""); !strings.Contains(r.body, `action="/oauth/login"`) {
			t.Fatalf("%v did not ask to sign in: %d %s", pairs, r.status, r.header.Get("Location"))
		}
		return e.redeem(b.mustCode(request(pairs...))).want(t, 200, "")
	}
	second := again("prompt", "login")
	if authTime(second) < authTime(first)+5 {
		t.Error("prompt=login did not move auth_time")
	}
	e.clock.advance(5 * time.Second)
	third := again("max_age", "1")
	if authTime(third) < authTime(second)+5 {
		t.Error("max_age=1 did not move auth_time")
	}
	b.sent(b.get(authorizeURL(request("prompt", "none", "max_age", "0"))), "login_required")
	if r := b.get(authorizeURL(request("max_age", "1000"))); b.code(r) == "" {
		t.Error("max_age that is not over asked again")
	}
	if !e.active(first.str("access_token")) {
		t.Error("signing in again ended what the session had given before")
	}
	// prompt=consent asks though it is remembered.
	if r := b.run(request("prompt", "consent"), "", ""); !strings.Contains(r.body, `action="/oauth/consent"`) {
		t.Error("prompt=consent did not ask")
	}
	// A hint about somebody else.
	hint := e.redeem(b.mustCode(request())).str("id_token")
	if r := b.get(authorizeURL(request("prompt", "none", "id_token_hint", hint))); b.code(r) == "" {
		t.Error("the right hint was refused")
	}
	bob := e.browser()
	bob.run(request(), "bob", "allow")
	bob.sent(bob.get(authorizeURL(request("prompt", "none", "id_token_hint", hint))), "login_required")
	bob.sent(bob.run(request("id_token_hint", hint), "bob", ""), "login_required")
}

func TestOAuth14_CORS(t *testing.T) {
	e := start(t)
	f := func(method, path, origin string, allowed bool) {
		t.Helper()
		req, _ := http.NewRequest(method, e.url+path, nil)
		req.Header.Set("Origin", origin)
		r := e.do(http.DefaultClient, req)
		got := r.header.Get("Access-Control-Allow-Origin")
		if allowed != (got == origin) || !allowed && got != "" {
			t.Errorf("%s %s from %s: Access-Control-Allow-Origin %q, allowed should be %v", method, path, origin, got, allowed)
		}
		if r.header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s %s allows credentials", method, path)
		}
	}
	spa, evil := "https://spa.example.com", "https://evil.example.com"
	for _, path := range []string{"/oauth/token", "/oauth/revoke", "/oauth/userinfo", "/oauth/jwks", "/.well-known/openid-configuration"} {
		f(http.MethodOptions, path, spa, true)
		f(http.MethodOptions, path, evil, false)
		f(http.MethodOptions, path, "null", false)
	}
	f(http.MethodGet, "/oauth/jwks", spa, true)
	f(http.MethodGet, "/oauth/jwks", evil, false)
	for _, path := range []string{"/oauth/authorize", "/oauth/login", "/oauth/consent", "/oauth/logout", "/oauth/introspect"} {
		f(http.MethodOptions, path, spa, false)
		f(http.MethodGet, path, spa, false)
	}
	// Clients that are stored later count too.
	if err := e.store.AddClient(t.Context(), store.Client{ID: "late", RedirectURIs: []string{"https://late.example.com/cb"}}); err != nil {
		t.Fatal(err)
	}
	e.clock.advance(6 * time.Second)
	f(http.MethodGet, "/oauth/jwks", "https://late.example.com", true)
}

func TestOAuth15_ConsentIsAskedPerScopeAndNeverSkippedForPublicClients(t *testing.T) {
	e := start(t)
	asks := func(b *browser, pairs ...string) bool {
		t.Helper()
		return strings.Contains(b.run(request(pairs...), "", "").body, `action="/oauth/consent"`)
	}
	b := e.browser()
	r := e.redeem(b.mustCode(request("scope", "openid read:orders")))
	if r.str("scope") != "openid read:orders" || claims(t, r.str("access_token"), 1)["scope"] != "openid read:orders" {
		t.Errorf("granted scope: %q", r.str("scope"))
	}
	if asks(b, "scope", "read:orders openid") {
		t.Error("asked again for what was allowed")
	}
	if !asks(b, "scope", "openid write:orders") {
		t.Error("a new scope was not asked for")
	}
	spa := []string{"client_id", "spa", "redirect_uri", "https://spa.example.com/cb"}
	b.mustCode(request(spa...))
	if !asks(b, spa...) {
		t.Error("a public client got a second code silently")
	}
	b.sentTo(b.get(authorizeURL(request(append(spa, "prompt", "none")...))), "https://spa.example.com/cb", "consent_required")
	if asks(b, "client_id", "first", "redirect_uri", "https://first.example.com/cb") {
		t.Error("skip_consent did not skip")
	}
	_, err := authserver.New(t.Context(), func() authserver.Config {
		c := e.config
		c.Declared.Clients = []authserver.Client{{ID: "p", Grants: []string{"authorization_code"}, RedirectURIs: []string{callback}, SkipConsent: true}}
		return c
	}())
	if err == nil || !strings.Contains(err.Error(), "public client cannot skip consent") {
		t.Errorf("skip_consent on a public client: %v", err)
	}
}

func (b *browser) sentTo(r reply, uri, code string) {
	b.e.t.Helper()
	if to := r.header.Get("Location"); !strings.HasPrefix(to, uri) || b.param(r, "error") != code {
		b.e.t.Fatalf("answer %d to %q, want error %q", r.status, to, code)
	}
}

func TestAuthorizeTakesPOST(t *testing.T) {
	e := start(t)
	b := e.browser()
	r := b.post("/oauth/authorize", request())
	if !strings.HasPrefix(r.header.Get("Location"), "/oauth/login?i=") {
		t.Fatalf("POST: %d %s", r.status, r.header.Get("Location"))
	}
}
