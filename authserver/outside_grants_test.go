package authserver_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/oauth2"
)

// approve allows the device of a user code as alice.
func (e *env) approve(userCode string) {
	e.t.Helper()
	b := e.browser()
	page := b.typeCode(b.device("/oauth/device", "alice"), userCode)
	if r := b.post("/oauth/device", with(fields(page.body), "decision", "allow")); r.status != 200 {
		e.t.Fatalf("the device was not allowed: %d %s", r.status, r.body)
	}
}

func TestGoOAuth2ClientSignsInADevice(t *testing.T) {
	e := start(t)
	config := oauth2.Config{ClientID: "tv", Scopes: []string{"openid", "read:orders"}, Endpoint: oauth2.Endpoint{
		DeviceAuthURL: e.url + "/oauth/device_authorization", TokenURL: e.url + "/oauth/token",
	}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e.approve(d.UserCode)
	d.Interval = 1
	token, err := config.DeviceAccessToken(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	e.secret(d.DeviceCode, token.AccessToken, token.RefreshToken)
	if !e.active(token.AccessToken) || token.RefreshToken == "" {
		t.Error("no live tokens")
	}
}
