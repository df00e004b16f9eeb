package authserver_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
)

func TestOAuth40_Revocation(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start()
		r := e.grant()
		revoke := func(client, secret, token string) reply {
			t.Helper()
			return e.post("/oauth/revoke", client, secret, form("token", token))
		}
		// Not its own, unknown, nonsense: 200 and nothing happens.
		revoke("other", webSecret, r.str("access_token")).want(t, 200, "")
		revoke("other", webSecret, r.str("refresh_token")).want(t, 200, "")
		revoke("web", webSecret, "nonsense").want(t, 200, "")
		revoke("web", webSecret, "ghr_"+strings.Repeat("A", 70)).want(t, 200, "")
		if !e.active(r.str("access_token")) {
			t.Fatal("another client revoked the token")
		}
		revoke("", "", r.str("access_token")).want(t, 401, "invalid_client")
		revoke("web", "wrong", r.str("access_token")).want(t, 401, "invalid_client")
		e.post("/oauth/revoke", "", "", form("token", r.str("access_token"), "client_id", "web")).want(t, 401, "invalid_client")
		revoke("web", webSecret, "").want(t, 400, "invalid_request")
		// An access token alone.
		revoke("web", webSecret, r.str("access_token")).want(t, 200, "")
		if e.active(r.str("access_token")) {
			t.Error("active after its revocation")
		}
		next := e.refresh(r.str("refresh_token")).want(t, 200, "")
		if !e.active(next.str("access_token")) {
			t.Error("revoking one access token ended the grant")
		}
		// A refresh token is its whole grant; a spent one too.
		revoke("web", webSecret, r.str("refresh_token")).want(t, 200, "")
		e.refresh(next.str("refresh_token")).want(t, 400, "invalid_grant")
		if e.active(next.str("access_token")) {
			t.Error("the access token is active after its grant was revoked")
		}
		// A public client revokes its own.
		b := e.browser()
		code := b.mustCode(request("client_id", "spa", "redirect_uri", "https://spa.example.com/cb"))
		spa := e.token("", "", redemption(code, "client_id", "spa", "redirect_uri", "https://spa.example.com/cb")).want(t, 200, "")
		e.post("/oauth/revoke", "", "", form("token", spa.str("refresh_token"), "client_id", "spa")).want(t, 200, "")
		e.token("", "", form("grant_type", "refresh_token", "client_id", "spa", "refresh_token", spa.str("refresh_token"))).want(t, 400, "invalid_grant")
		if ev := e.events("token.revoked", 3); ev[0].Actor != "client:web" || ev[0].Grant == "" {
			t.Errorf("audit %+v", ev[0])
		}
	})
}

func TestOAuth41_IntrospectionTellsOnlyWhoMayKnow(t *testing.T) {
	e := start(t)
	r := e.grant()
	inspect := func(client, secret, token string) reply {
		t.Helper()
		return e.post("/oauth/introspect", client, secret, form("token", token))
	}
	inactive := func(name string, r reply) {
		t.Helper()
		if r.status != 200 || r.body != `{"active":false}` {
			t.Errorf("%s: %d %s, want exactly inactive", name, r.status, r.body)
		}
	}
	own := inspect("web", webSecret, r.str("access_token")).want(t, 200, "")
	want := claims(t, r.str("access_token"), 1)
	for _, name := range []string{"sub", "client_id", "scope", "exp", "iat", "jti", "iss"} {
		if own.json[name] != want[name] {
			t.Errorf("%s = %v, token says %v", name, own.json[name], want[name])
		}
	}
	if own.json["active"] != true || own.str("token_type") != "Bearer" {
		t.Errorf("own token: %s", own.body)
	}
	if inspect("rs", webSecret, r.str("access_token")).json["active"] != true {
		t.Error("a resource server with the scope may not know")
	}
	inactive("another client's token", inspect("other", webSecret, r.str("access_token")))
	inactive("another client's refresh token", inspect("rs", webSecret, r.str("refresh_token")))
	if refresh := inspect("web", webSecret, r.str("refresh_token")); refresh.json["active"] != true || refresh.str("client_id") != "web" {
		t.Errorf("own refresh token: %s", refresh.body)
	}
	inactive("ID token", inspect("web", webSecret, r.str("id_token")))
	inactive("nonsense", inspect("web", webSecret, "nonsense"))
	e.refresh(r.str("refresh_token")).want(t, 200, "")
	inactive("spent refresh token", inspect("web", webSecret, r.str("refresh_token")))
	inspect("", "", r.str("access_token")).want(t, 401, "invalid_client")
	inspect("web", "wrong", r.str("access_token")).want(t, 401, "invalid_client")
	e.post("/oauth/introspect", "", "", form("token", r.str("access_token"), "client_id", "spa")).want(t, 401, "invalid_client")
	inspect("web", webSecret, "").want(t, 400, "invalid_request")
	// An audience that is no more.
	foreign := e.grant("resource", "https://billing.example.com")
	d := declared()
	d.Resources = nil
	if err := e.server.Reload(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	inactive("foreign audience", inspect("rs", webSecret, foreign.str("access_token")))
	e.get("/oauth/userinfo", "Authorization", "Bearer "+foreign.str("access_token")).want(t, 401, "invalid_token")
	e.clock.advance(15*time.Minute + 31*time.Second)
	inactive("expired", inspect("web", webSecret, r.str("access_token")))
}

func TestOAuth41_IntrospectionSignsItsAnswerOnRequest(t *testing.T) {
	e := start(t)
	token := e.grant().str("access_token")
	ask := func(client, token, accept string) reply {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, e.url+"/oauth/introspect", strings.NewReader(form("token", token).Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Accept", accept)
		req.SetBasicAuth(client, webSecret)
		r := e.do(http.DefaultClient, req).want(t, 200, "")
		if r.header.Get("Vary") != "Accept" {
			t.Errorf("Vary %q", r.header.Get("Vary"))
		}
		return r
	}
	const media = "application/token-introspection+jwt"
	for _, accept := range []string{"", "*/*", "application/json", media + ";q=0"} {
		if r := ask("rs", token, accept); r.header.Get("Content-Type") != "application/json" || r.json["active"] != true {
			t.Errorf("Accept %q: %s", accept, r.body)
		}
	}
	r := ask("rs", token, "application/json;q=0.5, "+media)
	if r.header.Get("Content-Type") != media {
		t.Fatalf("content type %s", r.header.Get("Content-Type"))
	}
	header, c := claims(t, r.body, 0), claims(t, r.body, 1)
	inner, _ := c["token_introspection"].(map[string]any)
	if header["typ"] != "token-introspection+jwt" || c["iss"] != e.config.Issuer || c["aud"] != "rs" || c["iat"] == nil || c["exp"] != nil ||
		inner["active"] != true || inner["client_id"] != "web" || inner["scope"] != "openid profile read:orders" {
		t.Errorf("%v %v", header, c)
	}
	if _, err := provider(t, e).Verifier(&oidc.Config{ClientID: "rs", SkipExpiryCheck: true}).Verify(t.Context(), r.body); err != nil {
		t.Errorf("signature: %v", err)
	}
	inner, _ = claims(t, ask("rs", "unknown", media).body, 1)["token_introspection"].(map[string]any)
	if len(inner) != 1 || inner["active"] != false {
		t.Errorf("an unknown token: %v", inner)
	}
	// It is a statement about a token, and no token.
	e.get("/oauth/userinfo", "Authorization", "Bearer "+r.body).want(t, 401, "invalid_token")
	if e.active(r.body) {
		t.Error("the answer passes for a token")
	}
}

func TestOAuth42_LogoutAtTheWishOfAnApplication(t *testing.T) {
	const bye = "https://app.example.com/bye"
	e := start(t)
	b := e.browser()
	r := e.redeem(b.mustCode(request())).want(t, 200, "")
	logout := func(b *browser, pairs ...string) reply { return b.get("/oauth/logout?" + form(pairs...).Encode()) }
	signedIn := func(b *browser) bool { return strings.Contains(b.get("/oauth/login").body, "signed in as") }

	logout(b, "id_token_hint", r.str("id_token"), "post_logout_redirect_uri", "https://evil.example.com/").page(t, 400)
	logout(b, "post_logout_redirect_uri", bye).page(t, 400)
	logout(b, "client_id", "nobody", "post_logout_redirect_uri", bye).page(t, 400)
	logout(b, "client_id", "other", "id_token_hint", r.str("id_token")).page(t, 400)
	logout(b, "id_token_hint", r.str("access_token")).page(t, 400)
	logout(b, "id_token_hint", "x", "post_logout_redirect_uri", bye).page(t, 400)
	if !signedIn(b) {
		t.Fatal("a refused request signed out")
	}
	// Without a hint, and with somebody else's, the person is asked.
	ask := logout(b, "client_id", "web", "post_logout_redirect_uri", bye, "state", "s & t")
	if !strings.Contains(ask.body, `action="/oauth/logout"`) || !signedIn(b) {
		t.Fatalf("not asked: %d", ask.status)
	}
	bob := e.browser()
	bobs := e.redeem(bob.code(bob.run(request(), "bob", "allow"))).want(t, 200, "")
	if r := logout(b, "id_token_hint", bobs.str("id_token")); !strings.Contains(r.body, `action="/oauth/logout"`) || !signedIn(b) {
		t.Error("another user's ID token signed out")
	}
	// With its own hint, expired meanwhile, at once.
	e.clock.advance(time.Hour)
	done := logout(b, "id_token_hint", r.str("id_token"), "post_logout_redirect_uri", bye, "state", "s & t")
	if done.status != http.StatusSeeOther || done.header.Get("Location") != bye+"?state="+url.QueryEscape("s & t") {
		t.Fatalf("logout: %d %s", done.status, done.header.Get("Location"))
	}
	if signedIn(b) {
		t.Error("still signed in")
	}
	e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
	if ev := e.events("logout", 1); ev[0].Client != "web" || ev[0].Session == "" {
		t.Errorf("audit %+v", ev[0])
	}
	// The person's answer on the page.
	f := fields(logout(bob, "client_id", "web", "post_logout_redirect_uri", bye).body)
	if r := bob.post("/oauth/logout", f); r.header.Get("Location") != bye || signedIn(bob) {
		t.Errorf("own form: %d %s", r.status, r.header.Get("Location"))
	}
	// POST from the application comes without cookies.
	carol := e.browser()
	r = e.redeem(carol.mustCode(request())).want(t, 200, "")
	again := e.browser().post("/oauth/logout", form("id_token_hint", r.str("id_token"), "post_logout_redirect_uri", bye), "Origin", "https://app.example.com")
	if to := again.header.Get("Location"); again.status != 303 || carol.get(to).header.Get("Location") != bye || signedIn(carol) {
		t.Errorf("cross-site POST: %d", again.status)
	}
}
