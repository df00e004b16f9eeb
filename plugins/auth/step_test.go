package auth

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"context"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

const metadata = "https://api.example.com/.well-known/oauth-protected-resource"

type desk struct {
	t      testing.TB
	key    signing
	denied *Denied
	plugin *Plugin
	verify *Verifier
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	d := &desk{t: t, key: newSigning(t, "k1", "ES256"), denied: NewDenied(ownIssuer)}
	d.verify = NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: newRing(d.key)})
	d.plugin = New(Config{Verifier: d.verify, Denied: d.denied, ResourceMetadata: func(string) string { return metadata }})
	return d
}

func (d *desk) step(r *routes.Route) plugins.Handler {
	d.t.Helper()
	step, err := d.plugin.Build(r)
	if err != nil {
		d.t.Fatal(err)
	}
	return step(plugintest.OK)
}

func (d *desk) bearer(m members) string {
	d.t.Helper()
	return "Authorization: Bearer " + string(d.key.token(d.t, claimsOf(ownIssuer, m), nil))
}

func TestRefusalsSayWhatProductMdSays(t *testing.T) {
	d := newDesk(t)
	const (
		scoped = `scope="write:orders read:orders", resource_metadata="` + metadata + `"`
		bad    = `Bearer error="invalid_token", ` + scoped
	)
	d.denied.Apply([]oauth.Revocation{{Seq: 1, Level: oauth.LevelToken, ID: "dead"}})
	route := &routes.Route{Name: "r", Auth: &routes.Auth{
		Scopes: []string{"write:orders", "read:orders"}, Claims: map[string][]string{"plan": {"gold", "7"}},
	}}
	d.verify.WantClaims(ClaimsWanted([]*routes.Route{route}))
	next := d.step(route)
	good := members{"scope": "read:orders write:orders", "plan": "gold"}
	with := func(m members) members {
		all := members{}
		for _, from := range []members{good, m} {
			for name, v := range from {
				all[name] = v
			}
		}
		return all
	}
	f := func(name string, status int, reason, challenge string, header ...string) {
		t.Helper()
		x := plugintest.New("GET", "api.example.com", "/orders", header...)
		err := next(x)
		var e *plugins.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", name, err)
			return
		}
		got := ""
		for _, h := range e.Header {
			if h[0] == "WWW-Authenticate" {
				got = h[1]
			}
		}
		if e.Status != status || e.Code != reason || got != challenge {
			t.Errorf("%s: %d %s\n%s\nwant %d %s\n%s", name, e.Status, e.Code, got, status, reason, challenge)
		}
	}
	if err := next(plugintest.New("GET", "h", "/", d.bearer(good))); err != nil {
		t.Fatalf("good token: %v", err)
	}
	f("none", 401, plugins.TokenMissing, `Bearer `+scoped)
	f("other scheme", 401, plugins.TokenMissing, `Bearer `+scoped, "Authorization: Basic YTpi")
	f("scheme alone", 401, plugins.TokenMissing, `Bearer `+scoped, "Authorization: Bearer")
	f("scheme without space", 401, plugins.TokenMissing, `Bearer `+scoped, "Authorization: Bearer:x")
	f("two fields", 400, plugins.BadRequest, `Bearer error="invalid_request", `+scoped, d.bearer(good), d.bearer(good))
	f("two spellings", 400, plugins.BadRequest, `Bearer error="invalid_request", `+scoped, d.bearer(good), "AUTHORIZATION: x")
	f("no token", 401, plugins.TokenInvalid, bad, "Authorization: Bearer  ")
	f("junk", 401, plugins.TokenInvalid, bad, "Authorization: Bearer not a token")
	f("expired", 401, plugins.TokenExpired, bad, d.bearer(with(members{"exp": t0.Unix() - 60})))
	f("revoked", 401, plugins.TokenRevoked, bad, d.bearer(with(members{"jti": "dead"})))
	f("audience", 401, plugins.AudienceMismatch, bad, d.bearer(with(members{"aud": "x"})))
	f("issuer", 401, plugins.IssuerUntrusted, bad, d.bearer(with(members{"iss": "https://x.example"})))
	f("scope", 403, plugins.ScopeMissing, `Bearer error="insufficient_scope", `+scoped, d.bearer(with(members{"scope": "read:orders"})))
	f("scope prefix", 403, plugins.ScopeMissing, `Bearer error="insufficient_scope", `+scoped, d.bearer(with(members{"scope": "read:orders write:orders2"})))
	f("claim", 403, plugins.ClaimMissing, `Bearer error="insufficient_scope", resource_metadata="`+metadata+`"`, d.bearer(with(members{"plan": "tin"})))
	f("no claim", 403, plugins.ClaimMissing, `Bearer error="insufficient_scope", resource_metadata="`+metadata+`"`, d.bearer(with(members{"plan": nil})))
}

func TestTokenOutsideTheAuthorizationFieldIgnored(t *testing.T) {
	d := newDesk(t)
	next := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{}})
	token := strings.TrimPrefix(d.bearer(nil), "Authorization: Bearer ")
	for _, x := range []*plugins.Exchange{
		plugintest.New("GET", "h", "/?access_token="+token),
		plugintest.WithBody(plugintest.New("POST", "h", "/", "Content-Type: application/x-www-form-urlencoded"), "access_token="+token),
		plugintest.New("GET", "h", "/", "Cookie: access_token="+token, "X-Authorization: Bearer "+token),
	} {
		if got := code(t, next(x)); got != plugins.TokenMissing {
			t.Errorf("%s: got %q", x.Method, got)
		}
	}
}

func TestRouteDemands(t *testing.T) {
	d := newDesk(t)
	f := func(name string, auth routes.Auth, m members, want string) {
		t.Helper()
		r := &routes.Route{Name: "r", Auth: &auth}
		d.verify.WantClaims(ClaimsWanted([]*routes.Route{r}))
		if got := code(t, d.step(r)(plugintest.New("GET", "h", "/", d.bearer(m)))); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	a := routes.Auth{}
	f("any valid token", a, nil, "")
	f("token without scopes", a, members{"scope": nil}, "")
	a = routes.Auth{AnyScopes: []string{"admin", "openid"}}
	f("any: second", a, nil, "")
	f("any: none", a, members{"scope": "x y"}, plugins.ScopeMissing)
	f("any: no scope claim", a, members{"scope": nil}, plugins.ScopeMissing)
	f("scp array", a, members{"scope": nil, "scp": []string{"admin"}}, "")
	f("scope wins over scp", a, members{"scope": "x", "scp": []string{"admin"}}, plugins.ScopeMissing)
	a = routes.Auth{Scopes: []string{"read:orders"}, AnyScopes: []string{"a", "b"}}
	f("all and any", a, members{"scope": "read:orders b"}, "")
	f("all without any", a, members{"scope": "read:orders"}, plugins.ScopeMissing)
	f("any without all", a, members{"scope": "a b"}, plugins.ScopeMissing)
	a = routes.Auth{Audience: "https://billing.example.com"}
	f("audience of the route", a, members{"aud": []string{"x", "https://billing.example.com"}}, "")
	f("default audience on such a route", a, nil, plugins.AudienceMismatch)
	a = routes.Auth{Issuers: []string{"https://idp.partner.example"}}
	f("issuer of another", a, nil, plugins.IssuerUntrusted)
	a = routes.Auth{Issuers: []string{ownIssuer}}
	f("issuer listed", a, nil, "")
	a = routes.Auth{Claims: map[string][]string{"dept": {"1", "true", "it"}}}
	f("claim number", a, members{"dept": 1}, "")
	f("claim boolean", a, members{"dept": true}, "")
	f("claim in array", a, members{"dept": []any{"hr", "it"}}, "")
	f("claim object", a, members{"dept": members{"it": "it"}}, plugins.ClaimMissing)
	f("claim null", a, members{"dept": nil}, plugins.ClaimMissing)
	f("claim of other case", a, members{"dept": "IT"}, plugins.ClaimMissing)
}

// The trap of every token cache: what was decided for one route must not let
// the token through another one.
func TestCachedTokenDoesNotCarryTheVerdictOfARoute(t *testing.T) {
	d := newDesk(t)
	read := d.step(&routes.Route{Name: "read", Auth: &routes.Auth{Scopes: []string{"read:orders"}}})
	write := d.step(&routes.Route{Name: "write", Auth: &routes.Auth{Scopes: []string{"write:orders"}}})
	header := d.bearer(nil)
	for i := range 3 {
		x := plugintest.New("GET", "h", "/", header)
		if err := read(x); err != nil || x.Record.CacheHit != (i > 0) {
			t.Errorf("read: %v, hit %v", err, x.Record.CacheHit)
		}
		if got := code(t, write(plugintest.New("POST", "h", "/", header))); got != plugins.ScopeMissing {
			t.Errorf("write: got %q", got)
		}
	}
}

func TestRevocationSeenBehindAWarmCache(t *testing.T) {
	d := newDesk(t)
	next := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{}})
	header := d.bearer(nil)
	for range 2 {
		if err := next(plugintest.New("GET", "h", "/", header)); err != nil {
			t.Fatal(err)
		}
	}
	d.denied.Apply([]oauth.Revocation{{Seq: 1, Level: oauth.LevelGrant, ID: "g1"}})
	if got := code(t, next(plugintest.New("GET", "h", "/", header))); got != plugins.TokenRevoked {
		t.Errorf("got %q", got)
	}
}

func TestTokenStopsAtTheGatewayUnlessForwarded(t *testing.T) {
	d := newDesk(t)
	for _, forward := range []bool{false, true} {
		next := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{ForwardToken: forward}})
		x := plugintest.New("GET", "h", "/", "Accept: */*", "aUTHORIZATION: bEARER "+strings.TrimPrefix(d.bearer(nil), "Authorization: Bearer "))
		if err := next(x); err != nil {
			t.Fatal(err)
		}
		if x.Fields[1].Drop == forward || x.Fields[0].Drop {
			t.Errorf("forward %v: drops %v %v", forward, x.Fields[0].Drop, x.Fields[1].Drop)
		}
	}
}

func TestShadowModeDecidesAndLetsPass(t *testing.T) {
	d := newDesk(t)
	d.denied.Apply([]oauth.Revocation{{Seq: 1, Level: oauth.LevelToken, ID: "dead"}})
	next := d.step(&routes.Route{Name: "r", Mode: "shadow", Auth: &routes.Auth{Scopes: []string{"read:orders"}}})
	f := func(name, reason string, principal bool, header ...string) {
		t.Helper()
		x := plugintest.New("GET", "h", "/", header...)
		if err := next(x); err != nil || plugintest.Client(x).Status != 200 {
			t.Errorf("%s: %v", name, err)
		}
		if x.Record.ShadowReason != reason || (x.Principal != nil) != principal {
			t.Errorf("%s: reason %q, principal %v", name, x.Record.ShadowReason, x.Principal)
		}
		if len(x.Fields) > 0 && x.Fields[0].Drop != principal {
			t.Errorf("%s: dropped %v", name, x.Fields[0].Drop)
		}
	}
	f("good", "", true, d.bearer(nil))
	f("no token", plugins.TokenMissing, false)
	f("basic", plugins.TokenMissing, false, "Authorization: Basic YTpi")
	f("scope", plugins.ScopeMissing, true, d.bearer(members{"scope": "x"}))
	f("revoked", plugins.TokenRevoked, false, d.bearer(members{"jti": "dead"}))
	f("audience", plugins.AudienceMismatch, false, d.bearer(members{"aud": "x"}))
}

func TestBuildRefusesWhatWouldOpenARoute(t *testing.T) {
	d := newDesk(t)
	f := func(want string, r routes.Route) {
		t.Helper()
		if _, err := d.plugin.Build(&r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	at := routes.Pos{File: "g.yaml", Line: 3, Column: 5}
	f("g.yaml:3:5: route \"r\": has neither auth nor public", routes.Route{Name: "r", Pos: at})
	f("has auth and public", routes.Route{Name: "r", Public: true, Auth: &routes.Auth{}})
	f(`scope "a b"`, routes.Route{Name: "r", Auth: &routes.Auth{Scopes: []string{"a b"}}})
	f(`scope ""`, routes.Route{Name: "r", Auth: &routes.Auth{AnyScopes: []string{""}}})
	if step, err := d.plugin.Build(&routes.Route{Public: true}); step != nil || err != nil {
		t.Errorf("public: %v", err)
	}
}

type broken struct{ TokenVerifier }

func (broken) Verify(context.Context, []byte, netip.Addr, time.Time) (*Token, bool, error) {
	return nil, false, errors.New("no such thing")
}

func TestUnknownErrorOfAVerifierRefuses(t *testing.T) {
	step, err := New(Config{Verifier: broken{}}).Build(&routes.Route{Name: "r", Auth: &routes.Auth{}})
	if err != nil {
		t.Fatal(err)
	}
	x := plugintest.New("GET", "h", "/", "Authorization: Bearer x")
	if got := code(t, step(plugintest.OK)(x)); got != plugins.Internal {
		t.Errorf("got %q", got)
	}
}

func TestJudgeAgreesWithTheConfigurationsExpectations(t *testing.T) {
	d := newDesk(t)
	if err := d.verify.SetIssuers([]routes.Issuer{{Issuer: "https://idp.partner.example", Audiences: []string{"https://partner"}}}); err != nil {
		t.Fatal(err)
	}
	r := &routes.Route{Name: "r", Auth: &routes.Auth{Scopes: []string{"read:orders"}, Claims: map[string][]string{"plan": {"gold"}}}}
	d.verify.WantClaims(ClaimsWanted([]*routes.Route{r}))
	f := func(claims, want string) {
		t.Helper()
		tok, err := d.verify.Assume([]byte(claims))
		if err == nil {
			err = d.plugin.Judge(r, tok, t0)
		}
		if got := code(t, err); got != want {
			t.Errorf("%s: got %q, want %q", claims, got, want)
		}
	}
	f(`{"scope":"read:orders","plan":"gold"}`, "")
	f(`{"scope":"read:orders"}`, plugins.ClaimMissing)
	f(`{"scope":"x"}`, plugins.ScopeMissing)
	f(`{"iss":"https://idp.partner.example","scope":"read:orders"}`, plugins.AudienceMismatch)
	f(`{"iss":"https://idp.partner.example","aud":"https://partner","scope":"read:orders","plan":["gold"]}`, "")
	f(`{"iss":"https://stranger.example"}`, plugins.IssuerUntrusted)
	if got := code(t, d.plugin.Judge(r, nil, t0)); got != plugins.TokenMissing {
		t.Errorf("no token: %q", got)
	}
	if err := d.plugin.Judge(&routes.Route{Public: true}, nil, t0); err != nil {
		t.Errorf("public: %v", err)
	}
}

func TestClaimsWantedAreThoseOfRulesAndLimits(t *testing.T) {
	got := ClaimsWanted([]*routes.Route{
		{Public: true, RateLimits: []*routes.RateLimit{{By: "ip"}, {By: "claim:tenant"}}},
		{Auth: &routes.Auth{Claims: map[string][]string{"plan": {"x"}, "tenant": {"y"}}}, RateLimits: []*routes.RateLimit{{By: "client"}}},
	})
	if !slices.Equal(got, []string{"plan", "tenant"}) {
		t.Errorf("got %v", got)
	}
}
