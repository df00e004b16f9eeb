package authserver_test

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// The promises here are those of clients that others wrote, unmodified.

func TestGoOIDCClientRunsEveryFlow(t *testing.T) {
	e := start(t)
	ctx := context.Background()
	provider, err := oidc.NewProvider(ctx, e.config.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	for name, style := range map[string]oauth2.AuthStyle{"basic": oauth2.AuthStyleInHeader, "post": oauth2.AuthStyleInParams, "auto": oauth2.AuthStyleAutoDetect} {
		t.Run(name, func(t *testing.T) {
			endpoint := provider.Endpoint()
			endpoint.AuthStyle = style
			config := oauth2.Config{ClientID: "web", ClientSecret: webSecret, Endpoint: endpoint, RedirectURL: callback,
				Scopes: []string{oidc.ScopeOpenID, "profile", "email", "read:orders"}}
			testClient(t, e, provider, config)
		})
	}
	t.Run("public", func(t *testing.T) {
		testClient(t, e, provider, oauth2.Config{ClientID: "native", Endpoint: provider.Endpoint(),
			RedirectURL: "http://127.0.0.1:40123/cb", Scopes: []string{oidc.ScopeOpenID, "profile", "email"}})
	})
	t.Run("client credentials", func(t *testing.T) {
		config := clientcredentials.Config{ClientID: "batch:1", ClientSecret: bSecret, TokenURL: provider.Endpoint().TokenURL, Scopes: []string{"read:orders"}}
		token, err := config.Token(ctx)
		if err != nil {
			t.Fatal(err)
		}
		e.secret(token.AccessToken)
		if token.Type() != "Bearer" || token.Expiry.IsZero() {
			t.Errorf("token %v %v", token.Type(), token.Expiry)
		}
	})
}

func testClient(t *testing.T, e *env, provider *oidc.Provider, config oauth2.Config) {
	ctx := context.Background()
	pkce := oauth2.GenerateVerifier()
	b := e.browser()
	u, err := url.Parse(config.AuthCodeURL("the state", oidc.Nonce("the nonce"), oauth2.S256ChallengeOption(pkce)))
	if err != nil {
		t.Fatal(err)
	}
	r := b.run(u.Query(), "alice", "allow")
	if b.param(r, "state") != "the state" {
		t.Fatalf("answer %d %s", r.status, r.header.Get("Location"))
	}
	token, err := config.Exchange(ctx, b.code(r), oauth2.VerifierOption(pkce))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	e.secret(token.AccessToken, token.RefreshToken, raw, pkce)
	id, err := provider.Verifier(&oidc.Config{ClientID: config.ClientID}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if id.Nonce != "the nonce" {
		t.Errorf("nonce %q", id.Nonce)
	}
	if err := id.VerifyAccessToken(token.AccessToken); err != nil {
		t.Error(err)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		t.Fatal(err)
	}
	if info.Subject != id.Subject || info.Email != "alice@example.com" {
		t.Errorf("userinfo %+v", info)
	}
	expired := *token
	expired.Expiry = e.clock.now().AddDate(-1, 0, 0)
	next, err := config.TokenSource(ctx, &expired).Token()
	if err != nil {
		t.Fatal(err)
	}
	e.secret(next.AccessToken, next.RefreshToken)
	if next.RefreshToken == token.RefreshToken {
		t.Error("the refresh token was not rotated")
	}
	var places struct {
		Revocation string `json:"revocation_endpoint"`
	}
	if err := provider.Claims(&places); err != nil {
		t.Fatal(err)
	}
	res, err := http.PostForm(places.Revocation, with(form("token", next.RefreshToken, "client_id", config.ClientID), "client_secret", config.ClientSecret))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Errorf("revocation: %d", res.StatusCode)
	}
	if _, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(next)); err == nil {
		t.Error("userinfo after the grant was revoked")
	}
}

// provider is the server as coreos/go-oidc discovers it.
func provider(t testing.TB, e *env) *oidc.Provider {
	t.Helper()
	p, err := oidc.NewProvider(context.Background(), e.config.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
