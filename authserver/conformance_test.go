package authserver_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// The modules of the OpenID Foundation's test plans for providers, said again
// in our own words under their names. Which of them have no counterpart here,
// and why, stands in docs/conformance.md.

type module struct {
	name string
	test func(t *testing.T, e *env)
}

func runPlan(t *testing.T, plan string, modules []module, change ...func(*authserver.Config)) {
	for _, m := range modules {
		t.Run(plan+"/"+m.name, func(t *testing.T) { m.test(t, start(t, change...)) })
	}
}

// signIn does the code flow and returns the token answer, whose ID token is
// checked the way every module does.
func signIn(t *testing.T, e *env, b *browser, pairs ...string) reply {
	t.Helper()
	f := request(pairs...)
	r := e.redeem(b.mustCode(f)).want(t, 200, "")
	id := claims(t, r.str("id_token"), 1)
	if id["iss"] != e.config.Issuer || id["aud"] != "web" || id["sub"] == "" || id["exp"] == nil || id["iat"] == nil || f.Get("nonce") != "" && id["nonce"] != f.Get("nonce") {
		t.Fatalf("ID token %v", id)
	}
	return r
}

func userinfo(e *env, r reply) reply {
	return e.get("/oauth/userinfo", "Authorization", "Bearer "+r.str("access_token")).want(e.t, 200, "")
}

// accepts is a module in which further parameters change nothing.
func accepts(name string, pairs ...string) module {
	return module{name, func(t *testing.T, e *env) { signIn(t, e, e.browser(), pairs...) }}
}

// scopeGives is a module in which a scope makes userinfo tell claims.
func scopeGives(name, scope string, want ...string) module {
	return module{name, func(t *testing.T, e *env) {
		r := signIn(t, e, e.browser(), "scope", scope)
		info := userinfo(e, r)
		for _, claim := range want {
			if info.json[claim] == nil {
				t.Errorf("userinfo lacks %s: %s", claim, info.body)
			}
		}
		if info.json["sub"] != claims(t, r.str("id_token"), 1)["sub"] {
			t.Error("userinfo is about somebody else")
		}
	}}
}

func authTimeOf(t *testing.T, r reply) float64 {
	n, _ := claims(t, r.str("id_token"), 1)["auth_time"].(float64)
	return n
}

func TestConformanceBasicOP(t *testing.T) {
	runPlan(t, "oidcc-basic-certification-test-plan", []module{
		{"oidcc-server", func(t *testing.T, e *env) {
			r := signIn(t, e, e.browser())
			if r.str("token_type") != "Bearer" || r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("token answer %s", r.body)
			}
			userinfo(e, r)
		}},
		{"oidcc-response-type-missing", func(t *testing.T, e *env) {
			b := e.browser()
			b.sent(b.get(authorizeURL(request("response_type", ""))), "invalid_request")
		}},
		{"oidcc-userinfo-get", func(t *testing.T, e *env) { userinfo(e, signIn(t, e, e.browser())) }},
		{"oidcc-userinfo-post-header", func(t *testing.T, e *env) {
			e.raw("POST", "/oauth/userinfo", "", "", "Authorization", "Bearer "+signIn(t, e, e.browser()).str("access_token")).want(t, 200, "")
		}},
		accepts("oidcc-ensure-request-without-nonce-succeeds-for-code-flow", "nonce", ""),
		scopeGives("oidcc-scope-profile", "openid profile", "name"),
		scopeGives("oidcc-scope-email", "openid email", "email"),
		scopeGives("oidcc-scope-all", "openid profile email", "name", "email"),
		scopeGives("oidcc-ensure-other-scope-order-succeeds", "email openid", "email"),
		accepts("oidcc-display-page", "display", "page"),
		accepts("oidcc-display-popup", "display", "popup"),
		{"oidcc-prompt-login", func(t *testing.T, e *env) {
			b := e.browser()
			first := signIn(t, e, b)
			e.clock.advance(2 * time.Second)
			second := signIn(t, e, b, "prompt", "login")
			if authTimeOf(t, second) <= authTimeOf(t, first) || claims(t, first.str("id_token"), 1)["sub"] != claims(t, second.str("id_token"), 1)["sub"] {
				t.Error("the second sign-in is not a later one of the same person")
			}
		}},
		{"oidcc-prompt-none-not-logged-in", func(t *testing.T, e *env) {
			b := e.browser()
			b.sent(b.get(authorizeURL(request("prompt", "none"))), "login_required")
		}},
		{"oidcc-prompt-none-logged-in", func(t *testing.T, e *env) {
			b := e.browser()
			first := signIn(t, e, b)
			r := b.get(authorizeURL(request("prompt", "none")))
			second := e.redeem(b.code(r)).want(t, 200, "")
			if authTimeOf(t, first) != authTimeOf(t, second) {
				t.Error("auth_time moved though nobody signed in")
			}
		}},
		{"oidcc-max-age-1", func(t *testing.T, e *env) {
			b := e.browser()
			first := signIn(t, e, b)
			e.clock.advance(2 * time.Second)
			if second := signIn(t, e, b, "max_age", "1"); authTimeOf(t, second) <= authTimeOf(t, first) {
				t.Error("nobody had to sign in again")
			}
		}},
		{"oidcc-max-age-10000", func(t *testing.T, e *env) {
			b := e.browser()
			first := signIn(t, e, b)
			r := b.get(authorizeURL(request("max_age", "10000")))
			if second := e.redeem(b.code(r)).want(t, 200, ""); authTimeOf(t, second) != authTimeOf(t, first) {
				t.Error("auth_time moved")
			}
		}},
		accepts("oidcc-ensure-request-with-unknown-parameter-succeeds", "extra", "foobar"),
		{"oidcc-id-token-hint", func(t *testing.T, e *env) {
			b := e.browser()
			first := signIn(t, e, b)
			r := b.get(authorizeURL(request("prompt", "none", "id_token_hint", first.str("id_token"))))
			if b.code(r) == "" {
				t.Errorf("answer %d %s", r.status, r.header.Get("Location"))
			}
		}},
		accepts("oidcc-login-hint", "login_hint", "alice"),
		accepts("oidcc-ui-locales", "ui_locales", "se"),
		accepts("oidcc-claims-locales", "claims_locales", "se"),
		accepts("oidcc-ensure-request-with-acr-values-succeeds", "acr_values", "1 2"),
		{"oidcc-codereuse", func(t *testing.T, e *env) {
			code := e.browser().mustCode(request())
			e.redeem(code).want(t, 200, "")
			e.redeem(code).want(t, 400, "invalid_grant")
		}},
		{"oidcc-codereuse-30seconds", func(t *testing.T, e *env) {
			code := e.browser().mustCode(request())
			first := e.redeem(code).want(t, 200, "")
			e.clock.advance(30 * time.Second)
			e.redeem(code).want(t, 400, "invalid_grant")
			e.get("/oauth/userinfo", "Authorization", "Bearer "+first.str("access_token")).want(t, 401, "invalid_token")
		}},
		{"oidcc-ensure-registered-redirect-uri", func(t *testing.T, e *env) {
			e.browser().get(authorizeURL(request("redirect_uri", callback+"/"+rand.Text()))).page(t, 400)
		}},
		{"oidcc-ensure-post-request-succeeds", func(t *testing.T, e *env) {
			b := e.browser()
			b.origin = ""
			r := b.post("/oauth/authorize", request())
			if r.status != http.StatusSeeOther || !strings.HasPrefix(r.header.Get("Location"), "/oauth/login") {
				t.Errorf("answer %d %s", r.status, r.header.Get("Location"))
			}
		}},
		{"oidcc-server-client-secret-post", func(t *testing.T, e *env) {
			code := e.browser().mustCode(request())
			e.token("", "", redemption(code, "client_id", "web", "client_secret", webSecret)).want(t, 200, "")
		}},
		{"oidcc-unsigned-request-object-supported-correctly-or-rejected-as-unsupported", func(t *testing.T, e *env) {
			b := e.browser()
			r := b.get(authorizeURL(request("request", "eyJhbGciOiJub25lIn0.eyJzdGF0ZSI6IngifQ.")))
			if code := b.param(r, "error"); r.status == http.StatusSeeOther && code != "request_not_supported" && code != "invalid_request_object" {
				t.Errorf("answer %d %s", r.status, r.header.Get("Location"))
			}
		}},
		accepts("oidcc-claims-essential", "claims", `{"userinfo":{"name":{"essential":true}}}`),
		{"oidcc-refresh-token", func(t *testing.T, e *env) {
			first := signIn(t, e, e.browser())
			second := e.refresh(first.str("refresh_token")).want(t, 200, "")
			userinfo(e, second)
			one, two := claims(t, first.str("id_token"), 1), claims(t, second.str("id_token"), 1)
			for _, c := range []string{"iss", "sub", "aud", "auth_time"} {
				if fmt.Sprint(one[c]) != fmt.Sprint(two[c]) {
					t.Errorf("%s changed from %v to %v", c, one[c], two[c])
				}
			}
			// Another client's hands.
			e.token("other", webSecret, form("grant_type", "refresh_token", "refresh_token", second.str("refresh_token"))).want(t, 400, "invalid_grant")
		}},
		accepts("oidcc-ensure-request-with-valid-pkce-succeeds"),
		{"oidcc-redirect-uri-query-OK", func(t *testing.T, e *env) {
			const uri = "https://b.example.com/cb?tenant=1"
			b := e.browser()
			r := b.run(request("client_id", "several", "redirect_uri", uri), "alice", "allow")
			if u, _ := url.Parse(r.header.Get("Location")); u.Query().Get("tenant") != "1" || b.code(r) == "" {
				t.Errorf("redirect to %s", r.header.Get("Location"))
			}
		}},
		{"oidcc-redirect-uri-query-mismatch", func(t *testing.T, e *env) {
			e.browser().get(authorizeURL(request("client_id", "several", "redirect_uri", "https://b.example.com/cb?tenant=2"))).page(t, 400)
		}},
		{"oidcc-redirect-uri-query-added", func(t *testing.T, e *env) {
			e.browser().get(authorizeURL(request("redirect_uri", callback+"?foo=bar"))).page(t, 400)
		}},
	})
}

func TestConformanceConfigOP(t *testing.T) {
	runPlan(t, "oidcc-config-certification-test-plan", []module{
		{"oidcc-discovery-endpoint-verification", func(t *testing.T, e *env) {
			m := e.get("/.well-known/openid-configuration").want(t, 200, "").json
			if m["issuer"] != e.config.Issuer {
				t.Errorf("issuer %v", m["issuer"])
			}
			for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint", "revocation_endpoint", "introspection_endpoint"} {
				if s, _ := m[name].(string); !strings.HasPrefix(s, e.config.Issuer+"/") {
					t.Errorf("%s is %q", name, s)
				}
			}
			for name, want := range map[string]string{
				"response_types_supported": "code", "subject_types_supported": "public", "scopes_supported": "openid",
				"id_token_signing_alg_values_supported": "ES256", "grant_types_supported": "authorization_code", "code_challenge_methods_supported": "S256",
			} {
				if l, _ := m[name].([]any); !slices.Contains(l, any(want)) {
					t.Errorf("%s is %v, without %s", name, m[name], want)
				}
			}
			keys, _ := e.get("/oauth/jwks").want(t, 200, "").json["keys"].([]any)
			seen := map[any]bool{}
			for _, k := range keys {
				kid := k.(map[string]any)["kid"]
				if kid == nil || seen[kid] || k.(map[string]any)["d"] != nil {
					t.Errorf("key %v", kid)
				}
				seen[kid] = true
			}
			if len(keys) == 0 {
				t.Error("no keys")
			}
		}},
	})
}

func TestConformanceRPInitiatedLogout(t *testing.T) {
	const bye = "https://app.example.com/bye"
	// logsOut is a module in which a request to end the session, made of an ID
	// token, leads to want: a redirect, or a page of ours.
	logsOut := func(name string, ask func(hint string) url.Values, want string) module {
		return module{name, func(t *testing.T, e *env) {
			b := e.browser()
			r := signIn(t, e, b)
			answer := b.get("/oauth/logout?" + ask(r.str("id_token")).Encode())
			switch {
			case want == "page" || want == "question":
				if answer.header.Get("Location") != "" || !strings.HasPrefix(answer.header.Get("Content-Type"), "text/html") {
					t.Errorf("answer %d %s", answer.status, answer.header.Get("Location"))
				}
			case answer.header.Get("Location") != want:
				t.Errorf("redirect to %q, want %q", answer.header.Get("Location"), want)
			}
			silent := b.get(authorizeURL(request("prompt", "none")))
			ended := b.param(silent, "error") == "login_required"
			if wantEnded := want != "question" && answer.status < 400; ended != wantEnded {
				t.Errorf("the session has ended: %v, want %v", ended, wantEnded)
			}
		}}
	}
	hinted := func(pairs ...string) func(string) url.Values {
		return func(hint string) url.Values { return with(form("id_token_hint", hint), pairs...) }
	}
	runPlan(t, "oidcc-rp-initiated-logout-certification-test-plan", []module{
		logsOut("oidcc-rp-initiated-logout", hinted("post_logout_redirect_uri", bye, "state", "s"), bye+"?state=s"),
		logsOut("oidcc-rp-initiated-logout-no-state", hinted("post_logout_redirect_uri", bye), bye),
		logsOut("oidcc-rp-initiated-logout-no-post-logout-redirect-uri", hinted("state", "s"), "page"),
		logsOut("oidcc-rp-initiated-logout-bad-post-logout-redirect-uri", hinted("post_logout_redirect_uri", "https://evil.example.com/"), "page"),
		logsOut("oidcc-rp-initiated-logout-query-added-to-post-logout-redirect-uri", hinted("post_logout_redirect_uri", bye+"?foo=bar"), "page"),
		logsOut("oidcc-rp-initiated-logout-modified-id-token-hint", func(hint string) url.Values {
			return form("id_token_hint", hint[:len(hint)-4]+"AAAA", "post_logout_redirect_uri", bye)
		}, "page"),
		logsOut("oidcc-rp-initiated-logout-bad-id-token-hint", func(string) url.Values {
			return form("id_token_hint", "not-a-token", "post_logout_redirect_uri", bye)
		}, "page"),
		logsOut("oidcc-rp-initiated-logout-no-id-token-hint", func(string) url.Values {
			return form("post_logout_redirect_uri", bye, "client_id", "web", "state", "s")
		}, "question"),
		logsOut("oidcc-rp-initiated-logout-no-params", func(string) url.Values { return url.Values{} }, "question"),
		logsOut("oidcc-rp-initiated-logout-only-state", func(string) url.Values { return form("state", "s") }, "question"),
	})
}

func TestConformanceBackchannelLogout(t *testing.T) {
	t.Run("oidcc-backchannel-rp-initiated-logout-certification-test-plan/oidcc-backchannel-rp-initiated-logout", func(t *testing.T) {
		p := startParties(t)
		e := start(t, p.told)
		b := e.browser()
		r := e.redeem(b.mustCode(request())).want(t, 200, "")
		b.get("/oauth/logout?" + form("id_token_hint", r.str("id_token")).Encode())
		eventually(t, func() bool { return len(p.got("web")) == 1 })
		c, id := claims(t, p.got("web")[0], 1), claims(t, r.str("id_token"), 1)
		if c["iss"] != e.config.Issuer || c["aud"] != "web" || c["sub"] != id["sub"] || c["sid"] != id["sid"] || c["nonce"] != nil || c["jti"] == nil || c["events"] == nil {
			t.Errorf("logout token %v", c)
		}
	})
	runPlan(t, "oidcc-backchannel-rp-initiated-logout-certification-test-plan", []module{
		{"oidcc-backchannel-discovery-endpoint-verification", func(t *testing.T, e *env) {
			m := e.get("/.well-known/openid-configuration").json
			if m["backchannel_logout_supported"] != true || m["backchannel_logout_session_supported"] != true {
				t.Errorf("metadata %v %v", m["backchannel_logout_supported"], m["backchannel_logout_session_supported"])
			}
		}},
	})
}

// TestConformanceFAPI2SecurityProfile is the subset of the plan that does not
// need a bank: pushed requests, private_key_jwt, DPoP.
func TestConformanceFAPI2SecurityProfile(t *testing.T) {
	key, holder := newClientKey(t, "ES256", "k1"), newClientKey(t, "ES256", "")
	profile := signingClients(store.ClientSettings{AuthMethod: "private_key_jwt", JWKS: jwks(t, key), RequirePAR: true, DPoPBound: true})
	asClient := func(e *env, f url.Values) url.Values {
		return merged(f, asserted(e.assertion(key, "signer", nil, nil)))
	}
	params := func(pairs ...string) url.Values {
		return with(request("client_id", "signer", "scope", "openid read:orders"), pairs...)
	}
	push := func(e *env, f url.Values) reply { return e.post("/oauth/par", "", "", asClient(e, f)) }
	authorize := func(e *env, uri string, pairs ...string) (code string, r reply) {
		b := e.browser()
		r = b.run(with(form("client_id", "signer", "request_uri", uri), pairs...), "alice", "allow")
		return b.code(r), r
	}
	redeem := func(e *env, code string, k *clientKey, pairs ...string) reply {
		f := asClient(e, redemption(code, pairs...))
		if k == nil {
			return e.tokenWith("", "", f)
		}
		return e.tokenWith("", "", f, "DPoP", e.proof(*k, "POST", "/oauth/token", nil, nil))
	}
	happy := func(t *testing.T, e *env) (code string) {
		t.Helper()
		code, r := authorize(e, push(e, params()).want(t, 201, "").str("request_uri"))
		if code == "" {
			t.Fatalf("no code: %d %s", r.status, r.header.Get("Location"))
		}
		return code
	}
	const plan = "fapi2-security-profile-final-test-plan"
	runPlan(t, plan, []module{
		{"fapi2-security-profile-final-discovery-end-point-verification", func(t *testing.T, e *env) {
			m := e.get("/.well-known/oauth-authorization-server").json
			for name, want := range map[string]string{
				"token_endpoint_auth_methods_supported": "private_key_jwt", "code_challenge_methods_supported": "S256", "dpop_signing_alg_values_supported": "ES256",
			} {
				if l, _ := m[name].([]any); !slices.Contains(l, any(want)) {
					t.Errorf("%s: %v", name, m[name])
				}
			}
			if m["pushed_authorization_request_endpoint"] == nil || m["authorization_response_iss_parameter_supported"] != true {
				t.Error("no pushed requests, or no iss in answers")
			}
		}},
		{"fapi2-security-profile-final-happy-flow", func(t *testing.T, e *env) {
			r := redeem(e, happy(t, e), &holder).want(t, 200, "")
			if r.str("token_type") != "DPoP" {
				t.Errorf("token_type %q", r.str("token_type"))
			}
		}},
		{"fapi2-security-profile-final-user-rejects-authentication", func(t *testing.T, e *env) {
			b := e.browser()
			r := b.run(form("client_id", "signer", "request_uri", push(e, params()).str("request_uri")), "alice", "deny")
			b.sent(r, "access_denied")
		}},
		{"fapi2-security-profile-final-par-attempt-reuse-request_uri", func(t *testing.T, e *env) {
			uri := push(e, params()).str("request_uri")
			authorize(e, uri)
			e.browser().get(authorizeURL(form("client_id", "signer", "request_uri", uri))).page(t, 400)
		}},
		{"fapi2-security-profile-final-par-attempt-to-use-expired-request_uri", func(t *testing.T, e *env) {
			uri := push(e, params()).str("request_uri")
			e.clock.advance(61 * time.Second)
			e.browser().get(authorizeURL(form("client_id", "signer", "request_uri", uri))).page(t, 400)
		}},
		{"fapi2-security-profile-final-par-attempt-to-use-request_uri-for-different-client", func(t *testing.T, e *env) {
			uri := push(e, params()).str("request_uri")
			e.browser().get(authorizeURL(form("client_id", "web", "request_uri", uri))).page(t, 400)
		}},
		{"fapi2-security-profile-final-par-authorization-request-containing-request_uri-form-param", func(t *testing.T, e *env) {
			push(e, params("request_uri", "urn:x")).want(t, 400, "invalid_request")
		}},
		{"fapi2-security-profile-final-par-ensure-pkce-required", func(t *testing.T, e *env) {
			push(e, params("code_challenge", "", "code_challenge_method", "")).want(t, 400, "invalid_request")
		}},
		{"fapi2-security-profile-final-par-plain-pkce-rejected", func(t *testing.T, e *env) {
			push(e, params("code_challenge", verifier, "code_challenge_method", "plain")).want(t, 400, "invalid_request")
		}},
		{"fapi2-security-profile-final-par-ensure-pkce-code-verifier-required", func(t *testing.T, e *env) {
			redeem(e, happy(t, e), &holder, "code_verifier", "").want(t, 400, "invalid_grant")
		}},
		{"fapi2-security-profile-final-par-incorrect-pkce-code-verifier-rejected", func(t *testing.T, e *env) {
			redeem(e, happy(t, e), &holder, "code_verifier", strings.Repeat("w", 50)).want(t, 400, "invalid_grant")
		}},
		{"fapi2-security-profile-final-ensure-unsigned-authorization-request-without-using-par-fails", func(t *testing.T, e *env) {
			b := e.browser()
			b.sent(b.get(authorizeURL(params())), "invalid_request")
		}},
		{"fapi2-security-profile-final-ensure-holder-of-key-required", func(t *testing.T, e *env) {
			if r := redeem(e, happy(t, e), nil); r.status != 400 || r.str("access_token") != "" {
				t.Errorf("answer %d %s", r.status, r.str("error"))
			}
		}},
		{"fapi2-security-profile-final-ensure-authorization-code-is-bound-to-client", func(t *testing.T, e *env) {
			e.token("web", webSecret, redemption(happy(t, e))).want(t, 400, "invalid_grant")
		}},
		{"fapi2-security-profile-final-attempt-reuse-authorization-code-after-one-second", func(t *testing.T, e *env) {
			code := happy(t, e)
			redeem(e, code, &holder).want(t, 200, "")
			e.clock.advance(time.Second)
			redeem(e, code, &holder).want(t, 400, "invalid_grant")
		}},
		{"fapi2-security-profile-final-ensure-client-assertion-in-token-endpoint", func(t *testing.T, e *env) {
			r := e.tokenWith("", "", redemption(happy(t, e), "client_id", "signer"), "DPoP", e.proof(holder, "POST", "/oauth/token", nil, nil))
			if r.str("error") != "invalid_client" && r.str("error") != "invalid_request" {
				t.Errorf("answer %d %s", r.status, r.str("error"))
			}
		}},
		{"fapi2-security-profile-final-par-test-array-as-audience-for-client-assertion", func(t *testing.T, e *env) {
			a := e.assertion(key, "signer", nil, members{"aud": []string{e.config.Issuer}})
			e.post("/oauth/par", "", "", merged(params(), asserted(a))).want(t, 201, "")
		}},
		{"fapi2-security-profile-final-par-test-token-endpoint-as-audience-fails", func(t *testing.T, e *env) {
			a := e.assertion(key, "signer", nil, members{"aud": e.config.Issuer + "/oauth/token"})
			e.post("/oauth/par", "", "", merged(params(), asserted(a))).want(t, 401, "invalid_client")
		}},
		{"fapi2-security-profile-final-dpop-negative-tests", func(t *testing.T, e *env) {
			code := happy(t, e)
			f := asClient(e, redemption(code))
			e.tokenWith("", "", f, "DPoP", e.proof(holder, "GET", "/oauth/token", nil, nil)).want(t, 400, "invalid_dpop_proof")
			f = asClient(e, redemption(code))
			e.tokenWith("", "", f, "DPoP", e.proof(holder, "POST", "/oauth/token", members{"alg": "none"}, nil)).want(t, 400, "invalid_dpop_proof")
		}},
	}, profile)
}
