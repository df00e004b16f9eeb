package authserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/register"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/loadtest/servers"
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

// openid-client and jose, unmodified: see tools/clients/openid-client-grants.mjs.
func TestOpenIDClientRunsTheGrantsWithoutARedirect(t *testing.T) {
	node := servers.Need(t, "node", "node")
	dir := filepath.Join("..", "tools", "clients")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "openid-client")); err != nil {
		servers.Missing(t, "the npm clients are not installed: npm ci in tools/clients")
	}
	p := startParties(t)
	e := start(t, p.told, exchangers, func(c *authserver.Config) {
		c.Declared.Registration = &register.Policy{
			Scopes: []string{"openid", "read:orders"},
			Grants: []string{"authorization_code", "refresh_token", deviceGrant},
		}
		c.Declared.Clients = append(c.Declared.Clients, authserver.Client{
			ID: "any", Secret: webSecret, Grants: []string{"token-exchange"}, Scopes: []string{"read:orders"},
			ClientSettings: store.ClientSettings{Exchange: &store.ExchangePolicy{SubjectTokensFrom: []string{"*"}}},
		})
	})
	given, err := json.Marshal(map[string]any{
		"issuer": e.config.Issuer, "initial": e.initialToken(`{}`).str("token"), "callback": callback, "told": p.URL + "/outside",
		"exchanger": []string{"any", webSecret},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "openid-client-grants.mjs", string(given))
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var done []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var said struct {
			Approve, Logout string
			Done            []string
		}
		if err := json.Unmarshal(lines.Bytes(), &said); err != nil {
			t.Errorf("it says %q", lines.Text())
			continue
		}
		switch {
		case said.Approve != "":
			e.approve(said.Approve)
			fmt.Fprintln(in, "allowed")
		case said.Logout != "":
			e.admin("DELETE", "/api/v1/sessions/"+said.Logout, "")
			eventually(t, func() bool { return len(p.got("outside")) == 1 })
			fmt.Fprintln(in, p.got("outside")[0])
		default:
			done = said.Done
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := "registration, device, exchange, signed introspection, back-channel logout"; strings.Join(done, ", ") != want {
		t.Errorf("done: %v", done)
	}
}
