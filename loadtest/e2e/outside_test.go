package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// script is a program of tools/clients that talks in lines of JSON.
type script struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	log *output
}

// runScript starts a script with one argument of JSON.
func runScript(t *testing.T, name string, argument any) *script {
	t.Helper()
	const folder = "../../tools/clients"
	node := servers.Need(t, "node", "node")
	if _, err := os.Stat(folder + "/node_modules/openid-client"); err != nil {
		servers.Missing(t, "the npm packages of tools/clients are not installed (npm ci there): %v", err)
	}
	given, err := json.Marshal(argument)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{Cmd: exec.Command(node, name, string(given)), log: &output{}}
	s.Dir, s.Stderr = folder, s.log
	tieToUs(s.Cmd)
	if s.in, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewScanner(out)
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Process.Kill()
		_ = s.Wait()
		if t.Failed() {
			servers.ShowLog(t, name, s.log.String())
		}
	})
	return s
}

// said is the next line of a script that is JSON; libraries remark on things in
// others.
func (s *script) said(t *testing.T, v any) {
	t.Helper()
	for json := false; !json; json = strings.HasPrefix(s.out.Text(), "{") {
		if !s.out.Scan() {
			t.Fatalf("the script ended: %v\n%s", s.out.Err(), s.log)
		}
	}
	if err := json.Unmarshal(s.out.Bytes(), v); err != nil {
		t.Fatalf("the script said %q: %v", s.out.Bytes(), err)
	}
}

func (s *script) tell(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

// openidClientWorks has npm openid-client, unmodified, do all that it can.
func openidClientWorks(t *testing.T, c *cluster) {
	s := runScript(t, "openid-client.mjs", map[string]any{
		"issuer": c.issuer, "api": c.a.url + "/orders/1", "redirect": callback,
		"web": []string{"web", webSecret}, "batch": []string{"batch", batchSecret}, "inspector": []string{"inspector", batchSecret},
	})
	for {
		var message struct {
			Authorize string
			Done      []string
		}
		s.said(t, &message)
		if message.Authorize == "" {
			t.Logf("openid-client did: %s", strings.Join(message.Done, ", "))
			if len(message.Done) != 9 {
				t.Error("not everything was done")
			}
			return
		}
		p := newBrowser(t, "alice", password).visit(t, message.Authorize, callback)
		if p.to == nil {
			t.Fatalf("the login did not end at the client: %d %s", p.status, p.body)
		}
		s.tell(t, p.to.String())
	}
}

// goClientsWork has coreos/go-oidc and x/oauth2 do the same, with the code got
// at one gateway and the API called at the other.
func goClientsWork(t *testing.T, c *cluster) {
	ctx := t.Context()
	provider, err := oidc.NewProvider(ctx, c.issuer)
	if err != nil {
		t.Fatal(err)
	}
	config := oauth2.Config{ClientID: "web", ClientSecret: webSecret, Endpoint: provider.Endpoint(), RedirectURL: callback,
		Scopes: []string{oidc.ScopeOpenID, "profile", "email", "read:orders"}}
	verifier := oauth2.GenerateVerifier()
	p := newBrowser(t, "alice", password).visit(t, config.AuthCodeURL("state", oidc.Nonce("nonce"), oauth2.S256ChallengeOption(verifier)), callback)
	if p.to == nil || p.to.Query().Get("state") != "state" || p.to.Query().Get("iss") != c.issuer {
		t.Fatalf("the login ended at %v", p.to)
	}
	token, err := config.Exchange(ctx, p.to.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := token.Extra("id_token").(string)
	id, err := provider.Verifier(&oidc.Config{ClientID: "web"}).Verify(ctx, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.VerifyAccessToken(token.AccessToken); err != nil || id.Nonce != "nonce" {
		t.Errorf("ID token: nonce %q, %v", id.Nonce, err)
	}
	info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil || info.Subject != id.Subject || info.Email != "alice@example.com" {
		t.Errorf("userinfo %+v %v", info, err)
	}
	expired := *token
	expired.Expiry = time.Now().Add(-time.Hour)
	for name, client := range map[string]*http.Client{
		"code":               config.Client(ctx, token),
		"refresh":            config.Client(ctx, &expired),
		"client credentials": (&clientcredentials.Config{ClientID: "batch", ClientSecret: batchSecret, TokenURL: provider.Endpoint().TokenURL}).Client(ctx),
	} {
		for _, g := range []*gateway{c.a, c.b} {
			resp, err := client.Get(g.url + "/orders/1")
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s", name, resp.Status)
			}
		}
	}
}

// foreignIssuerRotatesItsKeys has npm oidc-provider as a further issuer, that
// was configured under way, and replaces its only key under load.
func foreignIssuerRotatesItsKeys(t *testing.T, c *cluster) {
	s := runScript(t, "oidc-provider.mjs", map[string]string{"audience": c.issuer, "secret": batchSecret})
	var partner struct{ Issuer, Kid string }
	s.said(t, &partner)
	issue := func() (string, error) { return partnerToken(t.Context(), partner.Issuer, c.issuer) }
	first, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	c.b.call("GET", "/orders/1", first).want(t, 401, "issuer_untrusted")
	writeFile(t, c.extra("partner"), fmt.Sprintf("issuers: [{issuer: %q, audiences: [%q], algorithms: [ES256]}]\n", partner.Issuer, c.issuer))
	t.Cleanup(func() { _ = os.Remove(c.extra("partner")) })
	eventually(t, "the new issuer is trusted", c.both(func(g *gateway) bool {
		return g.call("GET", "/orders/1", first).status == http.StatusOK
	}))

	var newest atomic.Pointer[string]
	newest.Store(&first)
	calls := load{
		next: func(int64) request { return request{"GET", "/orders/1", *newest.Load()} },
		to:   []*gateway{c.a, c.b}, callers: 6, pace: 5 * time.Millisecond,
	}.start(t)
	time.Sleep(300 * time.Millisecond)
	s.tell(t, "rotate")
	s.said(t, &partner)
	second, err := issue()
	if err != nil {
		t.Fatal(err)
	}
	if first, second := keyID(t, first), keyID(t, second); first == second || second != partner.Kid {
		t.Fatalf("the key was not replaced: %s, then %s", first, second)
	}
	newest.Store(&second)
	answers := calls.lasts(700 * time.Millisecond)
	allOK(t, answers)
	for _, g := range []*gateway{c.a, c.b} {
		g.call("GET", "/orders/1", second).want(t, 200, "")
		g.call("GET", "/orders/1", first).want(t, 401, "token_invalid") // its key is gone
	}
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*gateway{c.a, c.b} {
		g.call("GET", "/orders/1", second).want(t, 200, "") // the issuer is away, its keys are known
	}
	t.Logf("%d requests through the rotation, none failed", len(answers))
}

// partnerToken is a fresh access token of the foreign issuer.
func partnerToken(ctx context.Context, issuer, audience string) (string, error) {
	token, err := (&clientcredentials.Config{
		ClientID: "partner", ClientSecret: batchSecret, TokenURL: issuer + "/token", Scopes: []string{"read:orders"},
		EndpointParams: url.Values{"resource": {audience}},
	}).Token(ctx)
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}

func keyID(t *testing.T, token string) string {
	t.Helper()
	encoded, _, _ := strings.Cut(token, ".")
	raw, err := b64.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(raw, &header); err != nil {
		t.Fatal(err)
	}
	return header.Kid
}
