//go:build !race

// The race detector allocates by itself: `make test` runs these once without it.

package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// enforcing is a whole process in front of a tiny origin: a JWT of an external
// issuer, scope, audience, the deny set, a limit, the breaker and metrics.
type enforcing struct {
	addr    string
	request []byte
}

func startEnforcing(t testing.TB) enforcing {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	jwks, err := json.Marshal(map[string]any{"keys": []any{map[string]any{
		"kty": "EC", "crv": "P-256", "kid": "k1", "alg": "ES256", "use": "sig", "x": b64(point[1:33]), "y": b64(point[33:]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(jwks) }))
	t.Cleanup(keys.Close)

	var gatewayAt, adminAt string
	if err := freeAddress(20000+os.Getpid()%10000, &gatewayAt); err != nil {
		t.Fatal(err)
	}
	if err := freeAddress(31000+os.Getpid()%10000, &adminAt); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	config := filepath.Join(folder, "gatehouse.yaml")
	content := fmt.Sprintf(`
listeners: [{address: %[1]s}]
admin: {address: %[2]s}
store: sqlite:%[3]s/gatehouse.db
authserver:
  issuer: http://%[1]s
  key_encryption_key: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
  scopes: {"read:orders": Read}
  token_limits: {address: {limit: 0}, client: {limit: 0}, user: {limit: 0}}
  clients:
    - {id: batch, secret: "a secret of more than thirty-two bytes", grants: [client_credentials], scopes: ["read:orders", "gatehouse:introspect"]}
issuers:
  - {issuer: "https://idp.test", jwks_uri: "%[4]s", audiences: ["https://api.test"], algorithms: [ES256]}
services: {orders: {targets: ["http://%[5]s"]}}
routes:
  - name: orders
    path: /orders/**
    methods: [GET]
    service: orders
    auth: {scopes: ["read:orders"], audience: "https://api.test", issuers: ["https://idp.test"]}
    rate_limit: {limit: 60000000, per: 1m, by: client}
`, gatewayAt, adminAt, folder, keys.URL, tinyOrigin(t))
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := load(config, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p, err := newProcess(ctx, file, true, slog.New(slog.DiscardHandler))
	if err != nil {
		stop()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("the process ended with %v", err)
		}
	})
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "https://idp.test", "sub": "user-1", "aud": "https://api.test", "client_id": "app-1", "jti": "j1",
		"scope": "openid read:orders write:orders", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	token.Header["kid"], token.Header["typ"] = "k1", "at+jwt"
	signed, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	e := enforcing{gatewayAt, []byte("GET /orders/1?x=1 HTTP/1.1\r\nHost: api.test\r\nUser-Agent: test\r\nAccept: */*\r\nAuthorization: Bearer " + signed + "\r\n\r\n")}
	select {
	case err := <-done:
		done <- err
		t.Fatalf("the process ended at once: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	e.await(t)
	return e
}

// tinyOrigin answers without allocating, so that only the gateway counts.
func tinyOrigin(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	answer := []byte("HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 256\r\n\r\n" + strings.Repeat("x", 256))
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					line, err := br.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						if _, err := c.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String()
}

func (e enforcing) await(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		c, err := net.Dial("tcp", e.addr)
		if err == nil {
			_, _ = c.Write(e.request)
			_ = c.SetReadDeadline(time.Now().Add(time.Second))
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			c.Close()
			if err == nil && resp.StatusCode == http.StatusOK {
				return
			}
			if err == nil && time.Now().After(deadline) {
				body, _ := io.ReadAll(resp.Body)
				t.Fatalf("never served: %d %s", resp.StatusCode, body)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("never served: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ask returns a function that makes one enforced request on a kept connection.
func (e enforcing) ask(t testing.TB) func() { return e.send(t, e.request) }

// send returns a function that makes a request, which must succeed, on a kept
// connection.
func (e enforcing) send(t testing.TB, request []byte) func() {
	t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	buf := make([]byte, 16<<10)
	return func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(buf)
		if err != nil || string(buf[:15]) != "HTTP/1.1 200 OK" {
			t.Fatalf("%q %v", buf[:n], err)
		}
	}
}

func TestEnforcedRequestAllocatesAtMostTwice(t *testing.T) {
	ask := startEnforcing(t).ask(t)
	for range 500 {
		ask()
	}
	n := testing.AllocsPerRun(5000, ask)
	t.Logf("%.2f allocations per enforced request", n)
	if n > 2 {
		t.Errorf("%.2f allocations per enforced request, at most 2 are allowed", n)
	}
}

func BenchmarkEnforcedRequest(b *testing.B) {
	ask := startEnforcing(b).ask(b)
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}

// post is a request to the authorization server by its client.
func (e enforcing) post(path, form string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		path, e.addr, base64.StdEncoding.EncodeToString([]byte("batch:a+secret+of+more+than+thirty-two+bytes")), len(form), form)
}

// The budgets hold what a token and an introspection cost besides the
// signature: about twice what they are is a mistake.
func TestAuthorizationServerAllocatesLittle(t *testing.T) {
	e := startEnforcing(t)
	issue := e.post("/oauth/token", "grant_type=client_credentials&scope=read:orders")
	token := e.answer(t, issue, "access_token")
	f := func(what string, request []byte, budget float64) {
		t.Helper()
		ask := e.send(t, request)
		for range 500 {
			ask()
		}
		n := testing.AllocsPerRun(3000, ask)
		t.Logf("%s: %.1f allocations", what, n)
		if n > budget {
			t.Errorf("%s: %.1f allocations, at most %.0f are allowed", what, n, budget)
		}
	}
	f("client_credentials", issue, 160)
	f("introspection", e.post("/oauth/introspect", "token="+token), 40)
	f("JWKS", []byte("GET /oauth/jwks HTTP/1.1\r\nHost: "+e.addr+"\r\n\r\n"), 20)
}

// answer is a member of the JSON that a request gets.
func (e enforcing) answer(t testing.TB, request []byte, member string) string {
	t.Helper()
	c, err := net.Dial("tcp", e.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	var body map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	text, _ := body[member].(string)
	return text
}

func BenchmarkClientCredentials(b *testing.B) {
	e := startEnforcing(b)
	ask := e.send(b, e.post("/oauth/token", "grant_type=client_credentials&scope=read:orders"))
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}

func BenchmarkIntrospection(b *testing.B) {
	e := startEnforcing(b)
	token := e.answer(b, e.post("/oauth/token", "grant_type=client_credentials&scope=read:orders"), "access_token")
	ask := e.send(b, e.post("/oauth/introspect", "token="+token))
	b.ReportAllocs()
	for b.Loop() {
		ask()
	}
}
