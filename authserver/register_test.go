package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/fetch"
	"github.com/gatehouse/gatehouse/authserver/register"
)

// registering lets clients register with an initial access token.
func registering(c *authserver.Config) {
	c.Declared.Registration = &register.Policy{
		Scopes: []string{"openid", "profile", "read:orders"},
		Grants: []string{"authorization_code", "refresh_token", "client_credentials"},
	}
}

func open(c *authserver.Config) {
	registering(c)
	c.Declared.Registration.Open = true
}

// send sends JSON to the registration endpoints with a bearer token, "" for
// none.
func (e *env) send(method, target, token string, body any) reply {
	e.t.Helper()
	text, ok := body.(string)
	if !ok && body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			e.t.Fatal(err)
		}
		text = string(raw)
	}
	if strings.HasPrefix(target, "/") {
		target = e.url + target
	}
	req, err := http.NewRequest(method, target, strings.NewReader(text))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	r := e.do(http.DefaultClient, req)
	e.secret(r.str("client_secret"), r.str("registration_access_token"))
	return r
}

// initialToken makes an initial access token.
func (e *env) initialToken(body string) reply {
	e.t.Helper()
	r := e.admin("POST", "/api/v1/registration-tokens", body).want(e.t, 201, "")
	e.secret(r.str("token"))
	return r
}

func TestOAuth55_RegistrationNeedsAnInitialAccessToken(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		e := startOn(t, stores[0], nil, registering)
		other := startOn(t, stores[1], e, registering)
		client := map[string]any{"redirect_uris": []string{callback}}
		for _, token := range []string{"", "x", "ghi_" + strings.Repeat("A", 43)} {
			r := e.send("POST", "/oauth/register", token, client).want(t, 401, "invalid_token")
			if !strings.HasPrefix(r.header.Get("WWW-Authenticate"), "Bearer") {
				t.Errorf("challenge %q", r.header.Get("WWW-Authenticate"))
			}
		}
		// One with three uses, over two replicas.
		token := e.initialToken(`{"name":"CI","uses":3}`)
		var mu sync.Mutex
		made := 0
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				r := []*env{e, other}[i%2].send("POST", "/oauth/register", token.str("token"), client)
				mu.Lock()
				defer mu.Unlock()
				if r.status == 201 {
					made++
				} else if r.str("error") != "invalid_token" {
					t.Errorf("%d %s", r.status, r.body)
				}
			})
		}
		wg.Wait()
		if made != 3 {
			t.Fatalf("%d clients were registered with 3 uses", made)
		}
		late := e.initialToken(`{"expires_in":60}`)
		if list := e.admin("GET", "/api/v1/registration-tokens", "").body; !strings.Contains(list, late.str("id")) || strings.Contains(list, "ghi_") {
			t.Errorf("list %s", list)
		}
		e.clock.advance(time.Minute)
		e.send("POST", "/oauth/register", late.str("token"), client).want(t, 401, "invalid_token")
		gone := e.initialToken(`{"uses":2}`)
		e.admin("DELETE", "/api/v1/registration-tokens/"+gone.str("id"), "").want(t, 204, "")
		e.send("POST", "/oauth/register", gone.str("token"), client).want(t, 401, "invalid_token")
		e.admin("DELETE", "/api/v1/registration-tokens/"+gone.str("id"), "").problem(t, 404, "no such")
		for _, bad := range []string{`{"uses":0}`, `{"expires_in":0}`, `{"scopes":["gatehouse:admin"]}`, `{"scopes":["nonsense"]}`} {
			e.admin("POST", "/api/v1/registration-tokens", bad).problem(t, 400, "")
		}
		e.events("client.registered", 3)
		e.events("registration_token.added", 3)
		e.events("registration_token.removed", 1)
	})
}

func TestOAuth55_RegisteredClientWorksAndLooksAfterItself(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil, open)
		r := e.send("POST", "/oauth/register", "", map[string]any{
			"client_name": "My app", "redirect_uris": []string{callback}, "grant_types": []string{"authorization_code", "refresh_token"},
			"scope": "openid read:orders write:orders gatehouse:admin nonsense", "client_uri": "https://app.example.com/",
			"logo_uri": "https://app.example.com/logo.png", "contacts": []string{"me@example.com"}, "an_unknown_member": map[string]any{"x": 1},
		}).want(t, 201, "")
		id, secret, token := r.str("client_id"), r.str("client_secret"), r.str("registration_access_token")
		if id == "" || len(secret) < 40 || r.json["client_secret_expires_at"] != 0.0 || r.json["client_id_issued_at"] == nil || token == "" ||
			r.str("registration_client_uri") != e.config.Issuer+"/oauth/register/"+id || r.str("token_endpoint_auth_method") != "client_secret_basic" || r.str("logo_uri") == "" {
			t.Fatalf("answer %s", r.body)
		}
		// Software gives itself no scope: what is not on the list is left out.
		if r.str("scope") != "openid read:orders" {
			t.Errorf("scope %q", r.str("scope"))
		}
		b := e.browser()
		page := b.run(request("client_id", id, "scope", "openid"), "alice", "")
		if !strings.Contains(page.body, "My app") || !strings.Contains(page.body, "app.example.com") {
			t.Fatalf("no consent page: %d %s", page.status, page.body)
		}
		code := e.browser().mustCode(request("client_id", id, "scope", "openid"))
		got := e.token(id, secret, redemption(code)).want(t, 200, "")
		if r := e.browser().run(request("client_id", id, "scope", "write:orders"), "alice", "allow"); !strings.Contains(r.header.Get("Location"), "invalid_scope") {
			t.Errorf("a scope beyond the registration: %s", r.header.Get("Location"))
		}

		shown := e.send("GET", "/oauth/register/"+id, token, nil).want(t, 200, "")
		if shown.str("client_name") != "My app" || shown.str("client_secret") != "" || shown.str("registration_access_token") != token || shown.str("client_uri") != "https://app.example.com/" {
			t.Errorf("shown %s", shown.body)
		}
		for _, wrong := range []string{"", "x", secret} {
			e.send("GET", "/oauth/register/"+id, wrong, nil).want(t, 401, "invalid_token")
			e.send("DELETE", "/oauth/register/"+id, wrong, nil).want(t, 401, "invalid_token")
			e.send("GET", "/oauth/register/unknown", wrong, nil).want(t, 401, "invalid_token")
		}
		e.send("GET", "/oauth/register/web", token, nil).want(t, 401, "invalid_token")
		another := e.send("POST", "/oauth/register", "", map[string]any{"redirect_uris": []string{callback}}).want(t, 201, "")
		e.send("GET", "/oauth/register/"+id, another.str("registration_access_token"), nil).want(t, 401, "invalid_token")

		change := map[string]any{"client_id": id, "client_name": "My new app", "redirect_uris": []string{callback}, "scope": "openid profile read:orders"}
		e.send("PUT", "/oauth/register/"+id, token, map[string]any{"redirect_uris": []string{callback}}).want(t, 400, "invalid_client_metadata")
		changed := e.send("PUT", "/oauth/register/"+id, token, change).want(t, 200, "")
		next := changed.str("registration_access_token")
		if next == token || next == "" || changed.str("scope") != "openid read:orders" || changed.str("client_uri") != "" || changed.str("client_name") != "My new app" {
			t.Errorf("changed %s", changed.body)
		}
		e.send("PUT", "/oauth/register/"+id, token, change).want(t, 401, "invalid_token")
		e.send("GET", "/oauth/register/"+id, token, nil).want(t, 401, "invalid_token")
		if !e.active(got.str("access_token")) {
			t.Fatal("a change ended the tokens")
		}
		if r := e.send("DELETE", "/oauth/register/"+id, next, nil); r.status != 204 {
			t.Fatalf("remove: %d %s", r.status, r.body)
		}
		if e.active(got.str("access_token")) {
			t.Error("a token outlives its client")
		}
		e.token(id, secret, form("grant_type", "refresh_token", "refresh_token", got.str("refresh_token"))).want(t, 401, "invalid_client")
		e.send("GET", "/oauth/register/"+id, next, nil).want(t, 401, "invalid_token")
	})
}

func TestOAuth55_RegistrationRefusals(t *testing.T) {
	e := start(t, open)
	f := func(status int, code string, pairs ...any) {
		t.Helper()
		m := map[string]any{"redirect_uris": []string{callback}}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(string)] = pairs[i+1]
		}
		e.send("POST", "/oauth/register", "", m).want(t, status, code)
	}
	uris := func(list ...string) []string { return list }
	// The list of line 3.
	for _, bad := range []string{"http://app.example.com/cb", "javascript:alert(1)", "data:text/html,x", "https://app.example.com/cb#f",
		"https://*.example.com/cb", "https://user@app.example.com/cb", "/cb", ""} {
		f(400, "invalid_redirect_uri", "redirect_uris", uris(bad))
		f(400, "invalid_redirect_uri", "post_logout_redirect_uris", uris(bad))
	}
	f(400, "invalid_redirect_uri", "application_type", "web", "redirect_uris", uris("http://127.0.0.1/cb"))
	f(201, "", "application_type", "native", "redirect_uris", uris("http://127.0.0.1/cb", "com.example.app:/cb"), "token_endpoint_auth_method", "none")
	const invalid = "invalid_client_metadata"
	f(400, invalid, "redirect_uris", uris())
	f(400, invalid, "grant_types", uris("password"))
	f(400, invalid, "grant_types", uris("urn:ietf:params:oauth:grant-type:token-exchange"))
	f(400, invalid, "grant_types", uris("urn:ietf:params:oauth:grant-type:device_code")) // not in the policy
	f(400, invalid, "grant_types", uris("client_credentials"), "token_endpoint_auth_method", "none")
	f(400, invalid, "response_types", uris("token"))
	f(400, invalid, "token_endpoint_auth_method", "tls_client_auth")
	f(400, invalid, "token_endpoint_auth_method", "private_key_jwt")
	f(400, invalid, "subject_type", "pairwise")
	f(400, invalid, "id_token_signed_response_alg", "none")
	f(400, invalid, "application_type", "other")
	f(400, invalid, "client_name", 5)
	f(400, invalid, "client_name", strings.Repeat("x", 3000))
	f(400, invalid, "client_name", "a\u0007b")
	f(400, "unapproved_software_statement", "software_statement", "x.y.z")
	e.send("POST", "/oauth/register", "", "{").want(t, 400, invalid)
	e.send("POST", "/oauth/register", "", `"x"`).want(t, 400, invalid)
	e.send("POST", "/oauth/register", "", strings.Repeat(" ", 70<<10)).want(t, 413, "invalid_request")
	e.post("/oauth/register", "", "", form("a", "b")).want(t, 415, "invalid_request")
	// Addresses that only this server could reach.
	for _, name := range []string{"logo_uri", "client_uri", "policy_uri", "tos_uri", "jwks_uri", "sector_identifier_uri", "backchannel_logout_uri"} {
		for _, bad := range []string{"http://app.example.com/", "https://127.0.0.1/", "https://169.254.169.254/latest/meta-data", "https://localhost/", "https://10.0.0.7/", "https://[::1]/", "file:///etc/passwd"} {
			f(400, invalid, name, bad, "token_endpoint_auth_method", "private_key_jwt")
		}
	}
	closed := start(t)
	closed.send("POST", "/oauth/register", "", map[string]any{"redirect_uris": []string{callback}}).want(t, 404, "invalid_request")
	if body := closed.get("/.well-known/openid-configuration").body; strings.Contains(body, "registration_endpoint") {
		t.Error("advertised where nobody can register")
	}
	if r := e.get("/.well-known/openid-configuration"); r.str("registration_endpoint") != e.config.Issuer+"/oauth/register" {
		t.Error("not advertised")
	}
}

func TestOAuth55_SectorDocumentIsFetchedGuarded(t *testing.T) {
	listed := `["` + callback + `"]`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			w.Write([]byte(listed))
		case "/other":
			w.Write([]byte(`["https://other.example.com/cb"]`))
		case "/big":
			w.Write([]byte(`["` + strings.Repeat("x", 70<<10) + `"]`))
		case "/redirect":
			http.Redirect(w, r, "/ok", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	e := start(t, open, func(c *authserver.Config) {
		c.Fetch = fetch.New(fetch.Config{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	})
	for path, status := range map[string]int{"/ok": 201, "/other": 400, "/big": 400, "/redirect": 400, "/none": 400} {
		r := e.send("POST", "/oauth/register", "", map[string]any{"redirect_uris": []string{callback}, "sector_identifier_uri": server.URL + path})
		if r.status != status || status == 400 && strings.Contains(r.body, "127.0.0.1") {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
}

func TestOAuth55_RegistrationOfOneAddressIsLimited(t *testing.T) {
	e := start(t, registering)
	for range 100 {
		e.send("POST", "/oauth/register", "x", "{}").want(t, 401, "invalid_token")
	}
	if r := e.send("POST", "/oauth/register", "x", "{}"); r.status != 429 || r.header.Get("Retry-After") == "" {
		t.Errorf("%d %v", r.status, r.header)
	}
}
