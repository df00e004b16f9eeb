package authserver_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/upstream"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// upstreamProvider starts npm oidc-provider, where this server is the client gatehouse.
func upstreamProvider(t *testing.T, redirect string) (issuer string) {
	t.Helper()
	const folder = "../tools/clients"
	node := servers.Need(t, "node", "node")
	if _, err := os.Stat(folder + "/node_modules/oidc-provider"); err != nil {
		servers.Missing(t, "npm ci has not run in tools/clients")
	}
	settings, err := json.Marshal(map[string]string{"redirect": redirect, "secret": webSecret})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "upstream-provider.mjs", string(settings))
	cmd.Dir, cmd.Stderr = folder, os.Stderr
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
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed is no news
	})
	var said struct{ Issuer string }
	lines := bufio.NewScanner(out)
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &said) != nil || said.Issuer == "" {
		t.Fatalf("oidc-provider says %q", lines.Text())
	}
	return said.Issuer
}

// TestUpstreamLoginWithOIDCProvider signs in with a certified provider, which
// tells names in userinfo and not in the ID token.
func TestUpstreamLoginWithOIDCProvider(t *testing.T) {
	issuer := ""
	e := start(t, func(c *authserver.Config) {
		issuer = upstreamProvider(t, c.Issuer+"/oauth/upstream/callback")
		c.Upstream = []upstream.Provider{{Name: "partner", Title: "Partner & Co", Issuer: issuer, ClientID: "gatehouse", ClientSecret: webSecret,
			Scopes: []string{"profile", "email"}, GroupsClaim: "groups", Roles: map[string][]string{"admins": {"admin"}}}}
		for i := range c.Declared.Clients {
			if c.Declared.Clients[i].ID == "web" {
				c.Declared.Clients[i].Claims = map[string]string{"roles": "user.roles"}
			}
		}
	})
	b := e.browser()
	to := b.toProvider()
	// The way through the provider's own pages, with its cookies.
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	there := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for range 10 {
		if strings.HasPrefix(to, e.config.Issuer) {
			break
		}
		if strings.HasPrefix(to, "/") {
			to = issuer + to
		}
		resp, err := there.Get(to)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if to = resp.Header.Get("Location"); to == "" {
			t.Fatalf("the provider answers %s", resp.Status)
		}
	}
	r := b.finish(b.get(strings.TrimPrefix(to, e.config.Issuer)))
	says := claims(t, e.redeem(b.code(r)).want(t, 200, "").str("access_token"), 1)
	if fmt.Sprint(says["roles"]) != "[admin]" {
		t.Errorf("claims %v", says)
	}
	user := e.admin("GET", "/api/v1/users/"+says["sub"].(string), "").want(t, 200, "")
	if user.str("name") != "pat" || user.str("email") != "pat@example.com" {
		t.Errorf("user %s", user.body)
	}
}
