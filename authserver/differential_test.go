package authserver_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// oracle starts npm oidc-provider and returns its issuer.
func oracle(t *testing.T) string {
	t.Helper()
	node := servers.Need(t, "node", "node")
	dir := filepath.Join("..", "tools", "clients")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		servers.Missing(t, "the npm clients are not installed: npm ci in tools/clients")
	}
	arg, err := json.Marshal(map[string]string{"secret": webSecret, "callback": callback})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(node, "oidc-oracle.mjs", string(arg))
	cmd.Dir = dir
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
		in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("oidc-provider says nothing: %v", err)
	}
	go io.Copy(io.Discard, out)
	var said struct{ Issuer string }
	if err := json.Unmarshal(line, &said); err != nil {
		t.Fatal(err)
	}
	return said.Issuer
}

// asked is one request to both servers, by the names of endpoints.
type asked struct {
	name                string
	method, endpoint    string
	query, form         url.Values
	client, contentType string
	secret              string
	header              [2]string
}

// outcome is what of an answer is compared: the status of an API, or how a
// browser is sent on, and the error.
func (a asked) outcome(t *testing.T, base string, endpoints map[string]string) string {
	t.Helper()
	link := base + endpoints[a.endpoint]
	if a.query != nil {
		link += "?" + a.query.Encode()
	}
	req, err := http.NewRequest(a.method, link, strings.NewReader(a.form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if a.form != nil {
		req.Header.Set("Content-Type", urlencoded)
	}
	if a.contentType != "" {
		req.Header.Set("Content-Type", a.contentType)
	}
	if a.client != "" {
		req.SetBasicAuth(url.QueryEscape(a.client), url.QueryEscape(a.secret))
	}
	if a.header[0] != "" {
		req.Header.Set(a.header[0], a.header[1])
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if to := resp.Header.Get("Location"); to != "" {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(to, callback) {
			return strings.TrimSpace(fmt.Sprintf("%d to the client with %s", resp.StatusCode, u.Query().Get("error")))
		}
		return fmt.Sprintf("%d to a page of the server", resp.StatusCode)
	}
	var said struct {
		Error  string
		Active *bool
	}
	_ = json.Unmarshal(body, &said) // pages are not JSON
	s := fmt.Sprintf("%d", resp.StatusCode)
	if said.Error != "" {
		s += " " + said.Error
	}
	if said.Active != nil {
		s += fmt.Sprintf(" active=%v", *said.Active)
	}
	return s
}

// TestAnswersDifferFromOIDCProviderOnlyWhereDocumented sends the same requests
// to oidc-provider, which is certified, and to ours. Every difference stands
// in docs/conformance.md with its reason.
func TestAnswersDifferFromOIDCProviderOnlyWhereDocumented(t *testing.T) {
	theirs := oracle(t)
	e := start(t, func(c *authserver.Config) {
		c.Declared.Clients = append(c.Declared.Clients, authserver.Client{
			ID: "batch", Secret: webSecret, Grants: []string{"client_credentials"}, Scopes: []string{"read:orders"},
		})
	})
	ours := map[string]string{"authorize": "/oauth/authorize", "token": "/oauth/token", "introspect": "/oauth/introspect",
		"revoke": "/oauth/revoke", "userinfo": "/oauth/userinfo", "par": "/oauth/par", "jwks": "/oauth/jwks"}
	their := map[string]string{"authorize": "/auth", "token": "/token", "introspect": "/token/introspection",
		"revoke": "/token/revocation", "userinfo": "/me", "par": "/request", "jwks": "/jwks"}
	page, err := os.ReadFile(filepath.Join("..", "docs", "conformance.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(page)) {
		if cells := strings.Split(line, "|"); len(cells) > 5 {
			documented[strings.TrimSpace(cells[1])+"|"+strings.TrimSpace(cells[2])+"|"+strings.TrimSpace(cells[3])] = true
		}
	}
	used := 0
	for _, a := range differential() {
		mine, other := a.outcome(t, e.url, ours), a.outcome(t, theirs, their)
		if mine == other {
			continue
		}
		if !documented[a.name+"|"+mine+"|"+other] {
			t.Errorf("not documented: | %s | %s | %s | why |", a.name, mine, other)
		} else {
			used++
		}
	}
	if rows := strings.Count(string(page), "\n| ") - strings.Count(string(page), "\n| ---"); used == 0 || rows < used {
		t.Errorf("%d documented differences were seen", used)
	}
}

func differential() []asked {
	authorization := func(name string, pairs ...string) asked {
		return asked{name: name, method: "GET", endpoint: "authorize", query: with(request("scope", "openid read:orders"), pairs...)}
	}
	token := func(name, client, secret string, pairs ...string) asked {
		return asked{name: name, method: "POST", endpoint: "token", client: client, secret: secret, form: form(pairs...)}
	}
	const cc = "client_credentials"
	return []asked{
		authorization("good request"),
		authorization("unknown client", "client_id", "nobody"),
		authorization("no client", "client_id", ""),
		authorization("unregistered redirect_uri", "redirect_uri", "https://evil.example.com/"),
		authorization("redirect_uri with more query", "redirect_uri", callback+"?x=1"),
		authorization("no redirect_uri, one registered", "redirect_uri", ""),
		authorization("no response_type", "response_type", ""),
		authorization("response_type token", "response_type", "token"),
		authorization("response_type code id_token", "response_type", "code id_token"),
		authorization("no code_challenge", "code_challenge", "", "code_challenge_method", ""),
		authorization("plain code_challenge", "code_challenge_method", "plain"),
		authorization("no code_challenge_method", "code_challenge_method", ""),
		authorization("short code_challenge", "code_challenge", "short"),
		authorization("scope not for this client", "scope", "openid write:everything"),
		authorization("no scope", "scope", ""),
		authorization("prompt none without a session", "prompt", "none"),
		authorization("prompt none login", "prompt", "none login"),
		authorization("unknown prompt", "prompt", "dance"),
		authorization("max_age no number", "max_age", "x"),
		authorization("request object without signature", "request", "eyJhbGciOiJub25lIn0.e30."),
		authorization("unknown request_uri", "request_uri", "urn:ietf:params:oauth:request_uri:unknown"),
		authorization("response_mode fragment", "response_mode", "fragment"),
		authorization("unknown response_mode", "response_mode", "pigeon"),
		authorization("unknown parameter", "foo", "bar"),
		{name: "authorize: parameter twice", method: "GET", endpoint: "authorize", query: url.Values{"client_id": {"web", "web"}, "redirect_uri": {callback}, "response_type": {"code"}}},
		token("no grant_type", "web", webSecret),
		token("unknown grant_type", "web", webSecret, "grant_type", "dance"),
		token("password grant", "web", webSecret, "grant_type", "password", "username", "a", "password", "b"),
		token("grant that the client has not", "web", webSecret, "grant_type", cc),
		token("unknown client", "nobody", webSecret, "grant_type", cc),
		token("wrong secret", "batch", "wrong", "grant_type", cc),
		token("no client", "", "", "grant_type", cc),
		token("secret in the body", "", "", "grant_type", cc, "client_id", "batch", "client_secret", webSecret),
		token("secret in header and body", "batch", webSecret, "grant_type", cc, "client_id", "batch", "client_secret", webSecret),
		token("good client_credentials", "batch", webSecret, "grant_type", cc, "scope", "read:orders"),
		token("client_credentials, scope not allowed", "batch", webSecret, "grant_type", cc, "scope", "write:everything"),
		token("unknown code", "web", webSecret, "grant_type", "authorization_code", "code", "x", "redirect_uri", callback, "code_verifier", verifier),
		token("no code", "web", webSecret, "grant_type", "authorization_code", "redirect_uri", callback, "code_verifier", verifier),
		token("unknown refresh token", "web", webSecret, "grant_type", "refresh_token", "refresh_token", "x"),
		token("no refresh token", "web", webSecret, "grant_type", "refresh_token"),
		{name: "token: GET", method: "GET", endpoint: "token", query: form("grant_type", cc)},
		{name: "token: JSON", method: "POST", endpoint: "token", client: "batch", secret: webSecret, contentType: "application/json", form: form("grant_type", cc)},
		{name: "token: parameter twice", method: "POST", endpoint: "token", client: "batch", secret: webSecret, form: url.Values{"grant_type": {cc, cc}}},
		{name: "introspect: no client", method: "POST", endpoint: "introspect", form: form("token", "x")},
		{name: "introspect: unknown token", method: "POST", endpoint: "introspect", client: "batch", secret: webSecret, form: form("token", "x")},
		{name: "introspect: no token", method: "POST", endpoint: "introspect", client: "batch", secret: webSecret, form: url.Values{}},
		{name: "revoke: no client", method: "POST", endpoint: "revoke", form: form("token", "x")},
		{name: "revoke: unknown token", method: "POST", endpoint: "revoke", client: "web", secret: webSecret, form: form("token", "x")},
		{name: "revoke: no token", method: "POST", endpoint: "revoke", client: "web", secret: webSecret, form: url.Values{}},
		{name: "userinfo: no token", method: "GET", endpoint: "userinfo"},
		{name: "userinfo: bad token", method: "GET", endpoint: "userinfo", header: [2]string{"Authorization", "Bearer x"}},
		{name: "par: no client", method: "POST", endpoint: "par", form: request()},
		{name: "par: good request", method: "POST", endpoint: "par", client: "web", secret: webSecret, form: request("scope", "openid read:orders")},
		{name: "par: request_uri", method: "POST", endpoint: "par", client: "web", secret: webSecret, form: request("scope", "openid read:orders", "request_uri", "urn:x")},
		{name: "jwks", method: "GET", endpoint: "jwks"},
	}
}
