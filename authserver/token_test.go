package authserver_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/store"
)

var clientCredentials = form("grant_type", "client_credentials")

// raw sends a token request as it stands.
func (e *env) raw(method, path, contentType, body string, header ...string) reply {
	e.t.Helper()
	req, err := http.NewRequest(method, e.url+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return e.do(http.DefaultClient, req)
}

const urlencoded = "application/x-www-form-urlencoded"

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

func TestOAuth24_TokenEndpointIsStrictAboutTheRequest(t *testing.T) {
	e := start(t)
	batch := basic(url.QueryEscape("batch:1"), url.QueryEscape(bSecret))
	f := func(name string, status int, code string, r reply) {
		t.Helper()
		if r.status != status || r.str("error") != code {
			t.Errorf("%s: %d %q, want %d %q", name, r.status, r.str("error"), status, code)
		}
		if r.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: Cache-Control %q", name, r.header.Get("Cache-Control"))
		}
	}
	f("right", 200, "", e.raw("POST", "/oauth/token", urlencoded, clientCredentials.Encode(), "Authorization", batch))
	f("right with charset", 200, "", e.raw("POST", "/oauth/token", urlencoded+"; charset=UTF-8", clientCredentials.Encode(), "Authorization", batch))
	f("GET", 405, "invalid_request", e.get("/oauth/token?grant_type=client_credentials"))
	f("credentials in the query", 400, "invalid_request", e.raw("POST", "/oauth/token?client_id=other&client_secret="+webSecret, urlencoded, clientCredentials.Encode()))
	f("JSON", 415, "invalid_request", e.raw("POST", "/oauth/token", "application/json", `{"grant_type":"client_credentials"}`, "Authorization", batch))
	f("no content type", 415, "invalid_request", e.raw("POST", "/oauth/token", "", clientCredentials.Encode(), "Authorization", batch))
	f("two methods", 400, "invalid_request", e.token("other", webSecret, with(clientCredentials, "client_id", "other", "client_secret", webSecret)))
	f("another client_id", 400, "invalid_request", e.token("other", webSecret, with(clientCredentials, "client_id", "web")))
	f("two Authorization fields", 400, "invalid_request", e.raw("POST", "/oauth/token", urlencoded, clientCredentials.Encode(), "Authorization", batch, "Authorization", batch))
	f("parameter twice", 400, "invalid_request", e.raw("POST", "/oauth/token", urlencoded, "grant_type=client_credentials&grant_type=client_credentials", "Authorization", batch))
	f("broken escape", 400, "invalid_request", e.raw("POST", "/oauth/token", urlencoded, "grant_type=%zz", "Authorization", batch))
	f("too large", 413, "invalid_request", e.raw("POST", "/oauth/token", urlencoded, "a="+strings.Repeat("x", 70000), "Authorization", batch))
	f("no client", 401, "invalid_client", e.token("", "", clientCredentials))
	f("no grant type", 400, "invalid_request", e.token("other", webSecret, form("scope", "read:orders")))
	f("form post", 200, "", e.token("", "", with(clientCredentials, "client_id", "other", "client_secret", webSecret)))
	f("same client_id besides Basic", 200, "", e.token("other", webSecret, with(clientCredentials, "client_id", "other")))
}

func TestOAuth25_WrongSecretIsInvalidClient(t *testing.T) {
	e := start(t)
	r := e.token("other", "wrong", clientCredentials).want(t, 401, "invalid_client")
	if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Basic ") {
		t.Errorf("challenge %q", r.header.Get("WWW-Authenticate"))
	}
	unknown := e.token("nobody", "wrong", clientCredentials).want(t, 401, "invalid_client")
	if unknown.body != r.body {
		t.Error("an unknown client is told from a wrong secret")
	}
	r = e.token("", "", with(clientCredentials, "client_id", "other", "client_secret", "wrong")).want(t, 401, "invalid_client")
	if r.header.Get("WWW-Authenticate") != "" {
		t.Error("a Basic challenge though Basic was not used")
	}
	e.token("", "", with(clientCredentials, "client_id", "other")).want(t, 401, "invalid_client") // a confidential client without its secret
	e.token("spa", "guess", clientCredentials).want(t, 401, "invalid_client")
	e.token("other", "", clientCredentials).want(t, 401, "invalid_client")
	for _, bad := range []string{"Basic", "Basic !", basic("", "x"), "Basic " + base64.StdEncoding.EncodeToString([]byte("nocolon")), "Bearer x", basic("%zz", "x")} {
		e.raw("POST", "/oauth/token", urlencoded, clientCredentials.Encode(), "Authorization", bad).want(t, 401, "invalid_client")
	}
	if ev := e.events("token.refused", 1); ev[0].Client != "other" || ev[0].Actor != "unknown" || ev[0].Reason != "invalid_client" {
		t.Errorf("audit of a wrong secret: %+v", ev[0])
	}
}

func TestOAuth26_BasicCredentialsAreFormDecoded(t *testing.T) {
	e := start(t)
	f := func(id, secret string, status int) {
		t.Helper()
		r := e.raw("POST", "/oauth/token", urlencoded, clientCredentials.Encode(), "Authorization", basic(id, secret))
		if r.status != status {
			t.Errorf("%q: %d, want %d", id, r.status, status)
		}
	}
	encoded := url.QueryEscape(bSecret)
	f("batch%3A1", encoded, 200)
	f("batch%3a1", encoded, 200)
	f("batch:1", encoded, 401) // the first colon ends the id
	f("batch%3A1", bSecret, 401)
}

func TestOAuth28_ReplayedCodeRevokesWhatItGave(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		code := e.browser().mustCode(request())
		first := e.redeem(code).want(t, 200, "")
		if !e.active(first.str("access_token")) {
			t.Fatal("not active before the replay")
		}
		e.redeem(code).want(t, 400, "invalid_grant")
		if e.active(first.str("access_token")) {
			t.Error("the access token is active after the replay")
		}
		e.refresh(first.str("refresh_token")).want(t, 400, "invalid_grant")
		e.get("/oauth/userinfo", "Authorization", "Bearer "+first.str("access_token")).want(t, 401, "invalid_token")
		grant := claims(t, first.str("access_token"), 1)["grant"]
		entries, _, err := e.store.RevokedSince(t.Context(), 0, 100)
		if err != nil || len(entries) == 0 || entries[0].Level != "grant" || entries[0].ID != grant {
			t.Errorf("revocation log %v %v, want the grant %v", entries, err, grant)
		}
		if ev := e.events("code.replayed", 1); ev[0].Grant != grant {
			t.Errorf("audit %+v", ev[0])
		}
	})
}

func TestOAuth29_WrongRedemptionSpoilsNothing(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start()
		b := e.browser()
		code := b.mustCode(request())
		e.redeem(code, "code_verifier", strings.Repeat("x", 50)).want(t, 400, "invalid_grant")
		e.token("other", webSecret, redemption(code)).want(t, 400, "invalid_grant")
		first := e.redeem(code).want(t, 200, "") // the third try is its owner's
		// A wrong replay revokes nothing.
		e.redeem(code, "code_verifier", strings.Repeat("x", 50)).want(t, 400, "invalid_grant")
		if !e.active(first.str("access_token")) {
			t.Error("a wrong replay revoked the tokens")
		}

		code = b.mustCode(request())
		e.redeem(code, "redirect_uri", "https://evil.example.com/").want(t, 400, "invalid_grant")
		e.redeem(code, "code_verifier", strings.Repeat("x", 50)).want(t, 400, "invalid_grant")
		e.token("spa", "", nil).want(t, 401, "invalid_client")
		e.token("", "", with(redemption(code), "client_id", "spa")).want(t, 400, "invalid_grant")
		e.redeem(code).want(t, 400, "invalid_grant") // three wrong tries are enough
		e.redeem("ghc_"+strings.Repeat("A", 43)).want(t, 400, "invalid_grant")
		e.redeem("nonsense").want(t, 400, "invalid_grant")
		e.redeem("").want(t, 400, "invalid_request")
	})
}

func TestOAuth30_OfManyRedemptionsOneSucceeds(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		a := startOn(t, stores[0], nil)
		b := startOn(t, stores[1], a)
		code := a.browser().mustCode(request())
		h := []http.Handler{a.server.Handler(), b.server.Handler()}
		const n = 200
		var granted, refused atomic.Int32
		var group sync.WaitGroup
		gate := make(chan struct{})
		for i := range n {
			group.Go(func() {
				<-gate
				for {
					req := httptest.NewRequest("POST", "/oauth/token", strings.NewReader(redemption(code).Encode()))
					req.Header.Set("Content-Type", urlencoded)
					req.SetBasicAuth("web", webSecret)
					rec := httptest.NewRecorder()
					h[i%2].ServeHTTP(rec, req)
					switch rec.Code {
					case 200:
						granted.Add(1)
					case 400:
						refused.Add(1)
					case 503: // nothing was granted; an honest client tries again
						continue
					default:
						t.Errorf("answer %d %s", rec.Code, rec.Body)
					}
					return
				}
			})
		}
		close(gate)
		group.Wait()
		if granted.Load() != 1 || refused.Load() != n-1 {
			t.Errorf("%d of %d redemptions succeeded", granted.Load(), n)
		}
	})
}

func TestOAuth31_CodeIsBoundAndShortLived(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		e := start()
		b := e.browser()
		code := b.mustCode(request())
		e.clock.advance(61 * time.Second)
		e.redeem(code).want(t, 400, "invalid_grant")

		code = b.mustCode(request("nonce", "the nonce", "resource", "https://orders.example.com"))
		e.redeem(code, "resource", "https://billing.example.com").want(t, 400, "invalid_target")
		r := e.redeem(code).want(t, 200, "")
		if claims(t, r.str("id_token"), 1)["nonce"] != "the nonce" {
			t.Error("the nonce is lost")
		}
		if aud := claims(t, r.str("access_token"), 1)["aud"]; aud != "https://orders.example.com" {
			t.Errorf("aud %v", aud)
		}
		// Signing out, disabling, removing: the code dies with the session.
		code = b.mustCode(request())
		page := b.get("/oauth/login")
		b.post("/oauth/logout", fields(page.body))
		e.redeem(code).want(t, 400, "invalid_grant")
	})
}

func TestOAuth32_NoRedemptionWithoutPKCE(t *testing.T) {
	e := start(t)
	b := e.browser()
	code := b.mustCode(request())
	e.redeem(code, "code_verifier", "").want(t, 400, "invalid_grant")
	e.redeem(code).want(t, 200, "")
	// A record without a challenge, which no version of ours writes.
	forged := "ghc_" + strings.Repeat("B", 43)
	err := e.store.AddCode(t.Context(), store.Code{Hash: digest(forged), ClientID: "web", RedirectURI: callback,
		Subject: "usr_x", Grant: "AAAAAAAAAAAAAAAAAAAAAA", Expires: e.clock.now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	e.redeem(forged).want(t, 400, "invalid_grant")
	e.redeem(forged, "code_verifier", "").want(t, 400, "invalid_grant")
}

func TestOAuth33_ClientCredentials(t *testing.T) {
	e := start(t)
	r := e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")
	c := claims(t, r.str("access_token"), 1)
	if c["sub"] != "client:batch:1" || c["client_id"] != "batch:1" || c["scope"] != "read:orders" || c["aud"] != e.config.Issuer {
		t.Errorf("claims %v", c)
	}
	if r.str("refresh_token") != "" || r.str("id_token") != "" || r.str("token_type") != "Bearer" {
		t.Errorf("answer %v", r.body)
	}
	for _, name := range []string{"sid", "grant", "auth_time", "acr"} {
		if c[name] != nil {
			t.Errorf("claim %s in a client's own token", name)
		}
	}
	r = e.token("other", webSecret, with(clientCredentials, "scope", "openid write:orders offline_access")).want(t, 200, "")
	if r.str("scope") != "write:orders" || r.str("id_token") != "" {
		t.Errorf("scopes about a person in a client's own token: %s", r.str("scope"))
	}
	e.token("batch:1", bSecret, with(clientCredentials, "scope", "write:orders")).want(t, 400, "invalid_scope")
	e.token("", "", with(clientCredentials, "client_id", "spa")).want(t, 400, "unauthorized_client")
	r = e.token("batch:1", bSecret, with(clientCredentials, "resource", "https://billing.example.com")).want(t, 200, "")
	if aud := claims(t, r.str("access_token"), 1)["aud"]; aud != "https://billing.example.com" {
		t.Errorf("aud %v", aud)
	}
	e.token("batch:1", bSecret, with(clientCredentials, "resource", "https://evil.example.com")).want(t, 400, "invalid_target")
}

func TestOAuth34_GrantsAreLimitedToTheClients(t *testing.T) {
	e := start(t)
	e.token("web", webSecret, clientCredentials).want(t, 400, "unauthorized_client")
	e.token("batch:1", bSecret, redemption("ghc_"+strings.Repeat("A", 43))).want(t, 400, "unauthorized_client")
	e.token("several", webSecret, form("grant_type", "refresh_token", "refresh_token", "x")).want(t, 400, "unauthorized_client")
	for _, grant := range []string{"password", "implicit", "urn:ietf:params:oauth:grant-type:saml2-bearer"} {
		e.token("web", webSecret, form("grant_type", grant, "username", "alice", "password", password)).want(t, 400, "unsupported_grant_type")
	}
	b := e.browser()
	r := b.get(authorizeURL(request("client_id", "batch:1")))
	r.page(t, 400)
}
