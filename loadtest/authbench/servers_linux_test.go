package authbench

import (
	"bufio"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func secret() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

const configuration = `listeners: [{address: "%[1]s"}]
admin: {address: "%[2]s", token: "%[3]s"}
store: "%[4]s"
authserver:
  issuer: http://%[1]s
  key_encryption_key: "%[5]s"
  scopes: {"read:orders": Read your orders}
  token_limits: {address: {limit: 0}, client: {limit: 0}, user: {limit: 0}}
  clients:
    - {id: batch, secret: "%[6]s", grants: [client_credentials], scopes: ["read:orders"]}
    - {id: asker, secret: "%[6]s", scopes: ["gatehouse:introspect"]}
    - id: web
      secret: "%[6]s"
      grants: [authorization_code, refresh_token]
      redirect_uris: [https://app.example.com/callback]
      scopes: [openid, "read:orders"]
      skip_consent: true
  users: [{name: alice, password: "%[6]s"}]
`

// gatehouse starts ours over PostgreSQL and returns its rows.
func gatehouse(t *testing.T) []*row {
	t.Helper()
	dir, password := t.TempDir(), secret()
	binary := filepath.Join(dir, "gatehouse")
	build := exec.Command("go", "build", "-o", binary, "./cmd/gatehouse")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build gatehouse: %v\n%s", err, out)
	}
	listen, admin, adminToken := loopback(t), loopback(t), secret()
	var kek [32]byte
	_, _ = rand.Read(kek[:]) // never fails
	file := filepath.Join(dir, "gatehouse.yaml")
	content := fmt.Sprintf(configuration, listen, admin, adminToken, servers.StartPostgres(t).Database(),
		base64.StdEncoding.EncodeToString(kek[:]), password)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := command(binary, "run", "-c", file)
	cmd.Stdout, cmd.Stderr = log, log
	pid := run(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := os.ReadFile(log.Name())
			servers.ShowLog(t, "gatehouse", string(out))
		}
	})
	await(t, "http://"+listen+"/.well-known/openid-configuration")
	s := target{addr: listen, pid: pid, profile: func(file string, d time.Duration) error {
		return profile("http://"+admin, adminToken, file, d)
	}}
	const token = "/oauth/token"
	tokens := issue("gatehouse: client_credentials, ES256", s, token, "batch", password, nil)
	b := signedIn(t, "http://"+listen, password)
	var families [callers]string
	for i := range families {
		families[i] = b.grant(t)
	}
	return []*row{
		tokens,
		refresh("gatehouse: refresh, rotated", s, token, "web", password, families),
		introspect(t, "gatehouse: introspection", tokens, "/oauth/introspect", "asker", password),
		document("gatehouse: JWKS", s, "/oauth/jwks"),
		document("gatehouse: discovery", s, "/.well-known/openid-configuration"),
	}
}

// profile gets a processor profile of a gatehouse.
func profile(admin, token, file string, d time.Duration) error {
	seconds := max(1, int(d/time.Second))
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", admin, seconds), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("no profile: %s", resp.Status)
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, resp.Body)
	return errors.Join(err, out.Close())
}

// provider starts npm oidc-provider, with its store in memory, and returns its
// rows. Its refresh tokens come only from a browser's login, which its
// development pages make by hand: there is no row of it.
func provider(t *testing.T) []*row {
	t.Helper()
	node := servers.Need(t, "node", "node")
	clients := filepath.Join("..", "..", "tools", "clients")
	if _, err := os.Stat(filepath.Join(clients, "node_modules")); err != nil {
		servers.Missing(t, "the npm clients are not installed: npm ci in tools/clients")
	}
	password, audience := secret(), "https://orders.example.com"
	arg, err := json.Marshal(map[string]string{"audience": audience, "secret": password})
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(node, "oidc-provider.mjs", string(arg))
	cmd.Dir = clients
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	pid := run(t, cmd)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("oidc-provider says nothing: %v", err)
	}
	go io.Copy(io.Discard, out)
	var said struct{ Issuer string }
	if err := json.Unmarshal(line, &said); err != nil {
		t.Fatal(err)
	}
	s := target{addr: strings.TrimPrefix(said.Issuer, "http://"), pid: pid}
	tokens := issue("oidc-provider: client_credentials, ES256", s, "/token", "partner", password, url.Values{"resource": {audience}})
	opaque := issue("", s, "/token", "partner", password, nil)
	return []*row{
		tokens,
		introspect(t, "oidc-provider: introspection, opaque tokens", opaque, "/token/introspection", "partner", password),
		document("oidc-provider: JWKS", s, "/jwks"),
		document("oidc-provider: discovery", s, "/.well-known/openid-configuration"),
	}
}

func command(words ...string) *exec.Cmd {
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = append(os.Environ(), "NODE_ENV=production")
	return cmd
}

// run starts cmd on the servers' core, and ends it with the test.
func run(t *testing.T, cmd *exec.Cmd) (pid int) {
	t.Helper()
	if err := onServersCore(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func loopback(t *testing.T) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(servers.FreePort(t)))
}

func await(t *testing.T, link string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := client.Get(link)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not answer: %v", link, err)
		}
	}
}

// client is for what is not measured.
var client = &http.Client{
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       30 * time.Second,
}

// person is a browser in which alice has signed in.
type person struct {
	http           *http.Client
	base, password string
}

func signedIn(t *testing.T, base, password string) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &person{http: &http.Client{Jar: jar, CheckRedirect: client.CheckRedirect, Timeout: client.Timeout}, base: base, password: password}
}

var (
	formTag     = regexp.MustCompile(`<form[^>]*\baction="([^"]*/oauth/login[^"]*)"`)
	hiddenInput = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// grant gets a first refresh token, signing in where that is asked for.
func (p *person) grant(t *testing.T) string {
	t.Helper()
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	verifier := base64.RawURLEncoding.EncodeToString(raw[:])
	sum := sha256.Sum256([]byte(verifier))
	const callback = "https://app.example.com/callback"
	link := p.base + "/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {"web"}, "redirect_uri": {callback}, "scope": {"openid read:orders"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}.Encode()
	var fields url.Values
	for range 10 {
		to, page := p.visit(t, link, fields)
		fields = nil
		if strings.HasPrefix(to, callback) {
			u, err := url.Parse(to)
			if err != nil {
				t.Fatal(err)
			}
			addr := strings.TrimPrefix(p.base, "http://")
			c, err := dial(addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.conn.Close()
			body, err := c.ask(form(addr, "/oauth/token", "web", p.password, url.Values{
				"grant_type": {"authorization_code"}, "code": {u.Query().Get("code")}, "redirect_uri": {callback}, "code_verifier": {verifier},
			}))
			if err != nil {
				t.Fatal(err)
			}
			return text(body, "refresh_token")
		}
		if to != "" {
			link = to
			continue
		}
		action := formTag.FindStringSubmatch(page)
		if action == nil {
			t.Fatal("neither a redirect nor a login page")
		}
		fields = url.Values{"username": {"alice"}, "password": {p.password}}
		for _, m := range hiddenInput.FindAllStringSubmatch(page, -1) {
			fields.Set(m[1], html.UnescapeString(m[2]))
		}
		link = p.resolve(t, link, html.UnescapeString(action[1]))
	}
	t.Fatal("the login does not end")
	return ""
}

func (p *person) visit(t *testing.T, link string, form url.Values) (to, page string) {
	t.Helper()
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	req, err := http.NewRequest(method, link, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", p.base)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if l := resp.Header.Get("Location"); l != "" {
		return p.resolve(t, link, l), ""
	}
	return "", string(body)
}

func (p *person) resolve(t *testing.T, from, to string) string {
	t.Helper()
	u, err := url.Parse(from)
	if err == nil {
		u, err = u.Parse(to)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u.String()
}
