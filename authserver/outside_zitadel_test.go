package authserver_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/client/rs"
	"github.com/zitadel/oidc/v3/pkg/client/tokenexchange"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// zitadel's relying party, token exchanger and resource server, unmodified.
func TestZitadelClientsRunDeviceExchangeIntrospectionAndRevocation(t *testing.T) {
	e := start(t, exchangers)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	party, err := rp.NewRelyingPartyOIDC(ctx, e.config.Issuer, "tv", "", "", []string{"openid", "read:orders"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := rp.DeviceAuthorization(ctx, []string{"openid", "read:orders"}, party, nil)
	if err != nil {
		t.Fatal(err)
	}
	e.approve(d.UserCode)
	tokens, err := rp.DeviceAccessToken(ctx, d.DeviceCode, time.Second, party)
	if err != nil {
		t.Fatal(err)
	}
	e.secret(d.DeviceCode, tokens.AccessToken, tokens.RefreshToken, tokens.IDToken)
	id, err := rp.VerifyTokens[*oidc.IDTokenClaims](ctx, tokens.AccessToken, tokens.IDToken, party.IDTokenVerifier())
	if err != nil {
		t.Fatal(err)
	}
	exchanger, err := tokenexchange.NewTokenExchangerClientCredentials(ctx, e.config.Issuer, "quiet", webSecret)
	if err != nil {
		t.Fatal(err)
	}
	exchanged, err := tokenexchange.ExchangeToken(ctx, exchanger, tokens.AccessToken, oidc.AccessTokenType, "", "", nil, nil, []string{"read:orders"}, oidc.AccessTokenType)
	if err != nil {
		t.Fatal(err)
	}
	e.secret(exchanged.AccessToken)
	server, err := rs.NewResourceServerClientCredentials(ctx, e.config.Issuer, "rs", webSecret)
	if err != nil {
		t.Fatal(err)
	}
	told, err := rs.Introspect[*oidc.IntrospectionResponse](ctx, server, exchanged.AccessToken)
	if err != nil || !told.Active || told.Subject != id.Subject || told.ClientID != "quiet" {
		t.Errorf("introspection %+v, %v", told, err)
	}
	if err := rp.RevokeToken(ctx, party, tokens.RefreshToken, "refresh_token"); err != nil {
		t.Fatal(err)
	}
	if told, err = rs.Introspect[*oidc.IntrospectionResponse](ctx, server, exchanged.AccessToken); err != nil || told.Active {
		t.Errorf("after the grant was revoked: %+v, %v", told, err)
	}
}

func TestZitadelRelyingPartyRunsCodeUserinfoRefreshAndLogout(t *testing.T) {
	e := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	party, err := rp.NewRelyingPartyOIDC(ctx, e.config.Issuer, "web", webSecret, callback, []string{"openid", "profile", "email", "read:orders"})
	if err != nil {
		t.Fatal(err)
	}
	b := e.browser()
	u, err := url.Parse(rp.AuthURL("the state", party, rp.WithCodeChallenge(challenge(verifier))))
	if err != nil {
		t.Fatal(err)
	}
	r := b.run(u.Query(), "alice", "allow")
	if b.param(r, "state") != "the state" {
		t.Fatalf("answer %d %s", r.status, r.header.Get("Location"))
	}
	tokens, err := rp.CodeExchange[*oidc.IDTokenClaims](ctx, b.code(r), party, rp.WithCodeVerifier(verifier))
	if err != nil {
		t.Fatal(err)
	}
	e.secret(tokens.AccessToken, tokens.RefreshToken, tokens.IDToken)
	info, err := rp.Userinfo[*oidc.UserInfo](ctx, tokens.AccessToken, tokens.TokenType, tokens.IDTokenClaims.Subject, party)
	if err != nil || info.Email != "alice@example.com" {
		t.Errorf("userinfo %+v, %v", info, err)
	}
	next, err := rp.RefreshTokens[*oidc.IDTokenClaims](ctx, party, tokens.RefreshToken, "", "")
	if err != nil {
		t.Fatal(err)
	}
	e.secret(next.AccessToken, next.RefreshToken, next.IDToken)
	if next.RefreshToken == tokens.RefreshToken || next.IDTokenClaims.Subject != tokens.IDTokenClaims.Subject {
		t.Error("the refresh gave what was there, or for another subject")
	}
	// The library asks for the logout by itself, where no browser's cookie is.
	to, err := rp.EndSession(ctx, party, next.IDToken, "https://app.example.com/bye", "bye state", "", nil)
	if err != nil || to.Query().Get("state") != "bye state" {
		t.Errorf("logout leads to %v, %v", to, err)
	}
}
