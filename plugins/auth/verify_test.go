package auth

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTokensOfEveryAllowedAlgorithmAccepted(t *testing.T) {
	var keys []signing
	for _, alg := range []string{"ES256", "EdDSA", "RS256", "ES384", "PS256"} {
		keys = append(keys, newSigning(t, "k-"+alg, alg))
	}
	idp, r := newProvider(t, keys...), newRing(keys...)
	v := external(t, newClock(), r, trusting(idp, "ES256", "EdDSA", "RS256", "ES384", "PS256"))
	for _, k := range keys {
		if _, err := verify(v, k.token(t, claimsOf(idp.URL, nil), nil), t0); err != nil {
			t.Errorf("external %s: %v", k.alg, err)
		}
		_, err := verify(v, k.token(t, claimsOf(ownIssuer, nil), nil), t0)
		if own := slices.Contains([]string{"ES256", "EdDSA", "RS256"}, k.alg); (err == nil) != own {
			t.Errorf("own %s: %v", k.alg, err)
		}
	}
}

// What issuers out there send besides RFC 9068.
func TestUsualExternalTokensAccepted(t *testing.T) {
	k := newSigning(t, "a", "ES256")
	idp := newProvider(t, k)
	f := func(name string, terms func(*routes.Issuer), m, header members, check func(p *plugins.Principal) bool) {
		t.Helper()
		issuer := trusting(idp, "ES256")
		if terms != nil {
			terms(&issuer)
		}
		v := external(t, newClock(), newRing(), issuer)
		tok, err := verify(v, k.token(t, claimsOf(idp.URL, m), header), t0)
		if (err == nil) != (check != nil) {
			t.Errorf("%s: %v", name, err)
		} else if err == nil && !check(tok.Principal) {
			t.Errorf("%s: %+v", name, tok.Principal)
		}
	}
	ok := func(*plugins.Principal) bool { return true }
	f("typ JWT", nil, nil, members{"typ": "JWT"}, ok)
	f("without typ", nil, nil, members{"typ": nil}, ok)
	f("media type", nil, nil, members{"typ": "application/AT+jwt"}, ok)
	f("own type", func(i *routes.Issuer) { i.TokenTypes = []string{"x+jwt"} }, nil, members{"typ": "X+JWT"}, ok)
	f("other than the own type", func(i *routes.Issuer) { i.TokenTypes = []string{"x+jwt"} }, nil, nil, nil)
	f("JWT where at+jwt is demanded", func(i *routes.Issuer) { i.TokenTypes = []string{"at+jwt"} }, nil, members{"typ": "JWT"}, nil)
	f("without typ where at+jwt is demanded", func(i *routes.Issuer) { i.TokenTypes = []string{"at+jwt"} }, nil, members{"typ": nil}, nil)
	f("fractions of seconds", nil, members{"iat": float64(t0.Unix()) - 0.5, "exp": float64(t0.Unix()) + 60.25}, nil,
		func(p *plugins.Principal) bool { return p.Expiry.Equal(t0.Add(time.Minute)) })
	f("azp", nil, members{"client_id": nil, "azp": "app"}, nil, func(p *plugins.Principal) bool { return p.ClientID == "app" })
	f("client_id wins over azp", nil, members{"azp": "app"}, nil, func(p *plugins.Principal) bool { return p.ClientID == "web" })
	f("no jti, iat and client", nil, members{"jti": nil, "iat": nil, "client_id": nil}, nil,
		func(p *plugins.Principal) bool { return p.Issued.IsZero() && p.TokenID == "" })
	f("null claims", nil, members{"nbf": (*int)(nil), "sid": (*string)(nil)}, nil, ok)
	f("scp", nil, members{"scope": nil, "scp": "a b a"}, nil, func(p *plugins.Principal) bool { return slices.Equal(p.Scopes, []string{"a", "b"}) })
	f("roles", func(i *routes.Issuer) { i.ScopeClaim = "roles" }, members{"roles": []string{"r1", "r2"}}, nil,
		func(p *plugins.Principal) bool { return slices.Equal(p.Scopes, []string{"r1", "r2"}) })
	f("no roles: scope does not stand in", func(i *routes.Issuer) { i.ScopeClaim = "roles" }, nil, nil,
		func(p *plugins.Principal) bool { return len(p.Scopes) == 0 })
	f("auth_time and acr", nil, members{"auth_time": t0.Unix() - 5, "acr": "2"}, nil,
		func(p *plugins.Principal) bool { return p.AuthTime.Equal(t0.Add(-5*time.Second)) && p.ACR == "2" })
	f("ID token", nil, members{"nonce": "n"}, members{"typ": "JWT"}, nil)
	f("leeway of 30 s", nil, members{"nbf": t0.Unix() + 30, "iat": t0.Unix() + 30, "exp": t0.Unix() - 29}, nil, ok)
}

func TestIssuerWithJWKSURINeedsNoDiscovery(t *testing.T) {
	k := newSigning(t, "a", "ES256")
	idp := newProvider(t, k)
	issuer := routes.Issuer{Issuer: "https://idp.partner.example", JWKSURI: idp.URL + "/jwks", Audiences: []string{ownAudience}}
	v := external(t, newClock(), newRing(), issuer)
	if _, err := verify(v, k.token(t, claimsOf(issuer.Issuer, nil), nil), t0); err != nil {
		t.Error(err)
	}
	if idp.discovers.Load() != 0 || idp.fetches.Load() != 1 {
		t.Errorf("%d discoveries, %d fetches", idp.discovers.Load(), idp.fetches.Load())
	}
}
