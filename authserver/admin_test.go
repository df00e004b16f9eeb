package authserver_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/authserver/admin"
)

// admin sends a request to the admin API as the operator ops.
func (e *env) admin(method, path, body string) reply {
	e.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	e.server.Admin().ServeHTTP(rec, req.WithContext(admin.WithActor(req.Context(), "static-token")))
	r := reply{status: rec.Code, header: rec.Header(), body: rec.Body.String()}
	_ = json.Unmarshal(rec.Body.Bytes(), &r.json)
	e.secret(r.str("secret"))
	return r
}

func (r reply) problem(t testing.TB, status int, detail string) {
	t.Helper()
	if r.status != status || !strings.Contains(r.str("detail"), detail) || r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("answer %d %s, want a problem %d about %q", r.status, r.body, status, detail)
	}
}

func TestAdminClients(t *testing.T) {
	e := start(t)
	made := e.admin("POST", "/api/v1/clients", `{"id":"reports","grants":["client_credentials"],"scopes":["read:orders"]}`).want(t, 201, "")
	secret := made.str("secret")
	e.token("reports", secret, clientCredentials).want(t, 200, "")
	if r := e.admin("GET", "/api/v1/clients/reports", ""); r.str("secret") != "" || strings.Contains(r.body, "hash") {
		t.Error("the secret is shown again")
	}
	if r := e.admin("GET", "/api/v1/clients", ""); !strings.Contains(r.body, `"id":"reports"`) || !strings.Contains(r.body, `"id":"web"`) {
		t.Errorf("list: %s", r.body)
	}

	// Two secrets are valid during a rotation.
	second := e.admin("POST", "/api/v1/clients/reports/secret", "").want(t, 200, "").str("secret")
	e.token("reports", secret, clientCredentials).want(t, 200, "")
	e.token("reports", second, clientCredentials).want(t, 200, "")
	third := e.admin("POST", "/api/v1/clients/reports/secret", `{"keep":false}`).want(t, 200, "").str("secret")
	e.token("reports", secret, clientCredentials).want(t, 401, "invalid_client")
	e.token("reports", second, clientCredentials).want(t, 401, "invalid_client")
	live := e.token("reports", third, clientCredentials).want(t, 200, "")

	e.admin("PUT", "/api/v1/clients/reports", `{"grants":["client_credentials"],"scopes":["read:orders"],"disabled":true}`).want(t, 200, "")
	e.token("reports", third, clientCredentials).want(t, 401, "invalid_client")
	if e.active(live.str("access_token")) {
		t.Error("a token of a disabled client is active")
	}
	e.admin("DELETE", "/api/v1/clients/reports", "").want(t, 204, "")
	e.admin("GET", "/api/v1/clients/reports", "").problem(t, 404, "no such client")

	e.admin("POST", "/api/v1/clients", `{"id":"web","grants":[],"scopes":[]}`).problem(t, 409, "declared")
	e.admin("DELETE", "/api/v1/clients/web", "").problem(t, 409, "declared")
	e.admin("POST", "/api/v1/clients", `{"id":"x","grants":["authorization_code"],"redirect_uris":["javascript:alert(1)"]}`).problem(t, 400, "invalid_redirect_uri")
	e.admin("POST", "/api/v1/clients", `{"id":"x","scopes":["nonsense"]}`).problem(t, 400, "not declared")
	e.admin("POST", "/api/v1/clients", `{"id":"x","nonsense":1}`).problem(t, 400, "unknown field")
	e.admin("POST", "/api/v1/clients", `{"id":1}`).problem(t, 400, "id must not be a number")
	e.admin("POST", "/api/v1/clients", `{`).problem(t, 400, "")
	e.admin("POST", "/api/v1/clients", "").problem(t, 415, "application/json")
	e.admin("PUT", "/api/v1/clients/nobody", `{}`).problem(t, 404, "no such client")
	if ev := e.events("client.added", 1); ev[0].Actor != "static-token" || ev[0].Client != "reports" {
		t.Errorf("audit %+v", ev[0])
	}
}

func TestAdminUsers(t *testing.T) {
	e := start(t)
	made := e.admin("POST", "/api/v1/users", `{"name":"carol","password":"`+password+`","email":"carol@example.com"}`).want(t, 201, "")
	subject := made.str("subject")
	signIn := func(pw string) reply {
		b := e.browser()
		return b.post("/oauth/login", with(fields(b.loginPage().body), "username", "carol", "password", pw))
	}
	grant := func() reply {
		b := e.browser()
		return e.redeem(b.code(b.run(request(), "carol", "allow"))).want(t, 200, "")
	}
	r := grant()
	if claims(t, r.str("access_token"), 1)["sub"] != subject {
		t.Error("another subject")
	}
	// A new password ends everything.
	e.secret("another long password")
	e.admin("PATCH", "/api/v1/users/"+subject, `{"password":"another long password"}`).want(t, 200, "")
	e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
	if e.active(r.str("access_token")) {
		t.Error("active after the password changed")
	}
	if got := signIn(password).status; got != http.StatusUnprocessableEntity {
		t.Errorf("the old password: %d", got)
	}
	e.admin("PATCH", "/api/v1/users/"+subject, `{"password":"`+password+`"}`).want(t, 200, "")
	r = grant()
	// So does disabling.
	e.admin("PATCH", "/api/v1/users/"+subject, `{"disabled":true}`).want(t, 200, "")
	e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
	if got := signIn(password).status; got != http.StatusUnprocessableEntity {
		t.Errorf("a disabled user signs in: %d", got)
	}
	e.admin("PATCH", "/api/v1/users/"+subject, `{"disabled":false}`).want(t, 200, "")
	r = grant()
	if s := e.admin("GET", "/api/v1/users/"+subject+"/sessions", ""); !strings.Contains(s.body, `"id":"ses_`) {
		t.Errorf("sessions: %s", s.body)
	}
	if g := e.admin("GET", "/api/v1/users/"+subject+"/grants", ""); !strings.Contains(g.body, `"client":"web"`) {
		t.Errorf("grants: %s", g.body)
	}
	e.admin("DELETE", "/api/v1/users/"+subject, "").want(t, 204, "")
	e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
	if e.active(r.str("access_token")) {
		t.Error("active after the user was removed")
	}
	again := e.admin("POST", "/api/v1/users", `{"name":"carol","password":"`+password+`"}`).want(t, 201, "")
	if again.str("subject") == subject {
		t.Error("a subject was used again")
	}
	e.admin("POST", "/api/v1/users", `{"name":"carol","password":"`+password+`"}`).problem(t, 409, "exists")
	e.admin("POST", "/api/v1/users", `{"name":"alice","password":"`+password+`"}`).problem(t, 409, "exists")
	e.admin("POST", "/api/v1/users", `{"name":"dave","password":"short"}`).problem(t, 400, "password")
	e.admin("POST", "/api/v1/users", `{"name":" dave ","password":"`+password+`"}`).problem(t, 400, "name")
	e.admin("GET", "/api/v1/users/usr_nobody", "").problem(t, 404, "no such user")
	alice := e.grant()
	sub, _ := claims(t, alice.str("access_token"), 1)["sub"].(string)
	e.admin("PATCH", "/api/v1/users/"+sub, `{"disabled":true}`).problem(t, 409, "declared")
}

func TestAdminResetsFactorsOfWhoLostThem(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		r, b := e.grant(), e.browser()
		subject, _ := claims(t, r.str("access_token"), 1)["sub"].(string)
		b.signIn("alice", password)
		b.enrol()
		e.browser().factorPage("alice")
		e.admin("DELETE", "/api/v1/users/"+subject+"/factors", "").want(t, 200, "")
		b.signedOut(t)
		e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
		if e.active(r.str("access_token")) {
			t.Error("a token from before lives")
		}
		e.browser().signIn("alice", password).shows(t, 200, "alice")
		e.admin("DELETE", "/api/v1/users/usr_nobody/factors", "").problem(t, 404, "no such user")
		if ev := e.events("factors.reset", 1); len(ev) != 1 || ev[0].Actor != "static-token" || ev[0].Subject != subject {
			t.Errorf("audit %+v", ev)
		}
	})
}

func TestAdminKeysRevocationsAudit(t *testing.T) {
	e := start(t)
	r := e.grant()
	e.admin("POST", "/api/v1/keys/rotate", "").want(t, 204, "")
	keys := e.admin("GET", "/api/v1/keys", "").want(t, 200, "")
	for _, private := range []string{`"d"`, "sealed", "Sealed"} {
		if strings.Contains(keys.body, private) {
			t.Errorf("keys hold %s: %s", private, keys.body)
		}
	}
	if !strings.Contains(keys.body, `"state":"next"`) {
		t.Errorf("no next key after a rotation: %s", keys.body)
	}
	jti, _ := claims(t, r.str("access_token"), 1)["jti"].(string)
	e.admin("POST", "/api/v1/revocations", `{"level":"token","id":"`+jti+`"}`).want(t, 200, "")
	if e.active(r.str("access_token")) {
		t.Error("active after its jti was revoked")
	}
	e.refresh(r.str("refresh_token")).want(t, 200, "")
	grant, _ := claims(t, r.str("access_token"), 1)["grant"].(string)
	e.admin("DELETE", "/api/v1/grants/"+grant, "").want(t, 200, "")
	e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
	e.admin("POST", "/api/v1/revocations", `{"level":"nonsense","id":"x"}`).problem(t, 400, "no such revocation level")
	e.admin("POST", "/api/v1/revocations", `{"level":"token"}`).problem(t, 400, "id")
	if l := e.admin("GET", "/api/v1/revocations?limit=1", ""); !strings.Contains(l.body, jti) || strings.Contains(l.body, grant) {
		t.Errorf("revocations: %s", l.body)
	}
	e.events("token.issued", 1)
	if a := e.admin("GET", "/api/v1/audit?limit=1000", ""); !strings.Contains(a.body, `"action":"keys.rotated"`) || !strings.Contains(a.body, `"action":"token.issued"`) {
		t.Errorf("audit: %s", a.body)
	}
	e.admin("GET", "/api/v1/audit?after=x", "").problem(t, 400, "after")

	// A session from the list, by its id.
	other := e.grant()
	sid, _ := claims(t, other.str("access_token"), 1)["sid"].(string)
	e.admin("DELETE", "/api/v1/sessions/"+sid, "").want(t, 200, "")
	e.refresh(other.str("refresh_token")).want(t, 400, "invalid_grant")
	// And the emergency brake.
	last := e.grant()
	e.admin("POST", "/api/v1/revocations", `{"level":"issuer","id":"`+e.config.Issuer+`"}`).want(t, 200, "")
	if e.active(last.str("access_token")) {
		t.Error("active after the issuer's epoch")
	}
}

func TestAdminCreatesClientsThatProveThemselvesByKeys(t *testing.T) {
	e := start(t)
	key := newClientKey(t, "ES256", "k1")
	set := string(jwks(t, key))
	made := e.admin("POST", "/api/v1/clients", `{"id":"keyed","grants":["client_credentials"],"scopes":["read:orders"],
		"token_endpoint_auth_method":"private_key_jwt","jwks":`+set+`,"resources":["https://orders.example.com"]}`).want(t, 201, "")
	if made.str("secret") != "" || made.json["public"] != false {
		t.Errorf("answer %s", made.body)
	}
	got := e.token("", "", asserted(e.assertion(key, "keyed", nil, nil), "grant_type", "client_credentials")).want(t, 200, "")
	if claims(t, got.str("access_token"), 1)["aud"] != "https://orders.example.com" {
		t.Errorf("answer %s", got.body)
	}
	shown := e.admin("GET", "/api/v1/clients/keyed", "").want(t, 200, "")
	if shown.str("token_endpoint_auth_method") != "private_key_jwt" || shown.json["jwks"] == nil {
		t.Errorf("shown %s", shown.body)
	}
	f := func(rest, problem string) {
		t.Helper()
		e.admin("POST", "/api/v1/clients", `{"id":"x","grants":["client_credentials"],`+rest+`}`).problem(t, 400, problem)
	}
	f(`"token_endpoint_auth_method":"private_key_jwt"`, "jwks or jwks_uri is missing")
	f(`"token_endpoint_auth_method":"private_key_jwt","jwks":{"keys":[{"kty":"oct","k":"AAAA"}]}`, "private part")
	f(`"token_endpoint_auth_method":"private_key_jwt","jwks_uri":"http://example.com/"`, "https")
	f(`"token_endpoint_auth_method":"tls_client_auth"`, "exactly one")
	f(`"token_endpoint_auth_method":"magic"`, "does not exist")
	f(`"public":true,"token_endpoint_auth_method":"private_key_jwt"`, "public client")
	e.admin("PUT", "/api/v1/clients/keyed", `{"grants":["client_credentials"],"scopes":[],"token_endpoint_auth_method":"none"}`).problem(t, 400, "cannot be changed")
	e.admin("POST", "/api/v1/clients/keyed/secret", "").problem(t, 409, "no secret")
}
