package edge

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// policed is a gateway whose routes each have one plugin, for requests of
// HTTP/2 at /NAME/… and for calls of gRPC at /rpc.NAME/….
type policed struct {
	*issuer
	tls    *tls.Config
	copies atomic.Int32 // that the service of mirrors got
}

// policies are the plugins, and what the two routes of each say.
var policies = []struct{ name, keys string }{
	{"auth", "auth: {scopes: [read]}, cors: {origins: [https://app.test]}, headers: {response: {set: {X-Rule: always}}}"},
	{"condition", "auth: {scopes: [read], condition: \"subject == 'alice' && request.headers.exists(h, h == 'x-pass')\"}"},
	{"mtls", "auth: {scopes: [read], mtls: required}"},
	{"apikey", "api_key: {keys: [partners], scopes: [read]}"},
	{"cors", "public: true, cors: {origins: [https://app.test]}"},
	{"headers", "public: true, headers: {request: {set: {X-Gate: \"{client_ip}|{header.x-in}\"}, remove: [X-Gone]}, response: {set: {X-Out: \"{request_id}\"}, remove: [X-Seen-Method]}}"},
	{"rewrite", "public: true, rewrite: {regex: \"/(rpc[.])?rewrite/(.*)\", to: \"/new.{2}/Call\"}"},
	{"redirect", "public: true, redirect: {to: \"https://www.test{uri}\"}"},
	{"ipallow", "public: true, ip_allow: {deny: [127.0.0.0/8]}"},
	{"bodylimit", "public: true, body_limit: 16"},
	{"compress", "public: true, compress: {min_size: 1, types: [text/*, application/*]}"},
	{"cache", "public: true, cache: {}"},
	{"mirror", "public: true, mirror: {service: copies}"},
	{"canary", "public: true, canary: {service: canary, header: X-Canary}"},
	{"timeout", "public: true, timeout: 300ms"},
	{"forwardauth", "public: true, forward_auth: {url: @AUTHORITY@, timeout: 20s, request_headers: [X-Pass], response_headers: [Remote-User]}"},
	{"silent", "public: true, forward_auth: {url: \"http://127.0.0.1:9/\", timeout: 20s}"},
	{"ratelimit", "public: true, rate_limit: {limit: 1, per: 1h, by: ip}"},
	{"retry", "public: true"},
	{"breaker", "public: true"},
}

const apiKey = "a key of the tests"

func newPoliced(t *testing.T) *policed {
	t.Helper()
	p := &policed{}
	service := func(name string) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, name) }))
		s.Config.Protocols = new(http.Protocols)
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		return s.URL
	}
	authority := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Remote-User", "bob")
		if r.Header.Get("X-Pass") == "" {
			w.Header().Set("Location", "https://login.test/")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "who are you?")
		}
	}))
	t.Cleanup(authority.Close)
	main, canary, copies := service("main"), service("canary"), service("copies")
	folder := t.TempDir()
	ca := certstest.NewCA(t, "Tests")
	ca.Write(t, filepath.Join(folder, "ca.pem"))
	ca.Issue(t, certstest.Wanted{Names: []string{"a.test"}}).Write(t, filepath.Join(folder, "server.pem"), filepath.Join(folder, "server.key"))
	client := ca.Issue(t, certstest.Wanted{Subject: "client"}).TLS()
	p.tls = &tls.Config{RootCAs: ca.Pool(), ServerName: "a.test", Certificates: []tls.Certificate{client}, NextProtos: []string{"h2"}}
	var list strings.Builder
	for _, u := range policies {
		keys := strings.ReplaceAll(u.keys, "@AUTHORITY@", authority.URL)
		web, rpc := "main", "main-rpc"
		if u.name == "retry" || u.name == "breaker" {
			web, rpc = u.name, u.name+"-rpc"
		}
		for _, other := range []string{"copies", "canary"} {
			keys = strings.ReplaceAll(keys, "service: "+other, "service: "+other+"@RPC@")
		}
		fmt.Fprintf(&list, "  - {name: %s, path: /%[1]s/**, service: %s, %s}\n", u.name, web, strings.ReplaceAll(keys, "@RPC@", ""))
		fmt.Fprintf(&list, "  - {name: rpc-%s, path: /rpc.%[1]s/**, service: %s, %s}\n", u.name, rpc, strings.ReplaceAll(keys, "@RPC@", "-rpc"))
	}
	p.issuer = newIssuerOf(t, func(p *issuer) rig.Options {
		return rig.Options{
			Listeners: []string{
				"{address: 127.0.0.1:@PORT1@, protocol: h2c}",
				fmt.Sprintf("{address: 127.0.0.1:@PORT2@, tls: {cert: %[1]s/server.pem, key: %[1]s/server.key, client_ca: %[1]s/ca.pem, client_auth: request}}", folder),
			},
			Config: fmt.Sprintf(`
server: {drain_delay: 1ms}
issuers: [{issuer: %q, jwks_uri: %q, audiences: [%q]}]
api_keys: {partners: [{owner: acme, sha256: %x, scopes: [read]}]}
defaults: {services: {retries: {attempts: 1}, breaker: off, timeouts: {request: 20s}}}
services:
  main: {targets: [%[5]q]}
  main-rpc: {targets: [%[5]q], protocol: grpc}
  canary: {targets: [%[6]q]}
  canary-rpc: {targets: [%[6]q], protocol: grpc}
  copies: {targets: [%[7]q]}
  copies-rpc: {targets: [%[7]q], protocol: grpc}
  retry: {targets: ["http://127.0.0.1:9", %[5]q], retries: {attempts: 2}}
  retry-rpc: {targets: ["http://127.0.0.1:9", %[5]q], retries: {attempts: 2}, protocol: grpc}
  breaker: {targets: [%[5]q], breaker: {failures: 50%%, min_requests: 2, window: 1h, open: 30s}}
  breaker-rpc: {targets: [%[5]q], breaker: {failures: 50%%, min_requests: 2, window: 1h, open: 30s}, protocol: grpc}
routes:
%[8]s`, p.url, p.url+"/jwks", audience, sha256.Sum256([]byte(apiKey)), main, canary, copies, list.String()),
		}
	})
	return p
}

// serve tells what it was asked, in the head for calls of gRPC.
func (p *policed) serve(w http.ResponseWriter, r *http.Request, name string) {
	if name == "copies" {
		p.copies.Add(1)
	}
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if strings.HasSuffix(r.URL.Path, "/slow") {
		<-r.Context().Done()
		return
	}
	var seen strings.Builder
	fmt.Fprintf(&seen, "%s %s %s %d", name, r.Method, r.URL.Path, len(content))
	for _, f := range []string{"X-Gate", "X-Gone", "Remote-User", "X-Auth-Subject", "X-Auth-Client", "X-Api-Key"} {
		if v := r.Header.Values(f); len(v) > 0 {
			fmt.Fprintf(&seen, " %s=%s", f, strings.Join(v, "+"))
		}
	}
	h := w.Header()
	h.Set("X-Seen-Method", r.Method)
	down := strings.HasSuffix(r.URL.Path, "/down")
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		h.Set("Content-Type", "application/grpc")
		h.Set("X-Seen", seen.String())
		h.Set("Trailer", "Grpc-Status")
		_, _ = w.Write(message0)
		h.Set("Grpc-Status", map[bool]string{false: "0", true: "14"}[down])
		return
	}
	h.Set("Content-Type", "text/plain")
	h.Set("Cache-Control", "max-age=60")
	if down {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = io.WriteString(w, seen.String())
}

// message0 is an empty message of gRPC, with its length.
var message0 = []byte{0, 0, 0, 0, 0}

// web makes a request; its content, if there is any, has no declared length.
func (p *policed) web(c *frames, path string, content []string, fields ...string) reply {
	m := message(append([]string{":authority", "a.test", ":path", path}, fields...)...)
	return c.ask(m, content...)
}

// call makes a call of gRPC, of one message.
func (p *policed) call(c *frames, path string, fields ...string) reply {
	m := message(append([]string{":authority", "a.test", ":method", "POST", ":path", path, "content-type", "application/grpc", "te", "trailers"}, fields...)...)
	return c.ask(m, string(message0))
}

// grpc is the status of a call, with the reason of a refusal, which must be a
// single field section (Trailers-Only).
func (r reply) grpc(t *testing.T) string {
	t.Helper()
	if kind, _ := r.field("content-type"); r.status != 200 || kind != "application/grpc" || !r.whole {
		t.Errorf("no answer of gRPC: %s %v %q", r.outcome(), r.head, r.body)
	}
	if v, ok := lookUp(r.trailer, "grpc-status"); ok {
		return v
	}
	v, ok := r.field("grpc-status")
	if !ok || r.body != "" || !r.sole {
		t.Errorf("neither trailers nor trailers only: %v %q", r.head, r.body)
	}
	text, _ := r.field("grpc-message")
	reason, _, _ := strings.Cut(text, ":")
	return v + " " + reason
}

// TestPluginsOverHTTP2 drives every plugin over HTTP/2, and over gRPC.
func TestPluginsOverHTTP2(t *testing.T) {
	p := newPoliced(t)
	alice := "Bearer " + p.token(t, map[string]any{"sub": "alice", "client_id": "web", "scope": "read"})
	narrow := "Bearer " + p.token(t, map[string]any{"sub": "alice", "client_id": "web", "scope": "other"})
	bob := "Bearer " + p.token(t, map[string]any{"sub": "bob", "client_id": "web", "scope": "read"})
	c := dialFrames(t, p.gw.Extra[0])
	tested := map[string]bool{}
	run := func(name string, f func(t *testing.T, web, rpc string)) {
		t.Helper()
		tested[name] = true
		t.Run(name, func(t *testing.T) { f(t, "/"+name+"/x", "/rpc."+name+"/x") })
	}
	// wants compares the status and some fields; a field without a value must
	// not be there.
	wants := func(t *testing.T, r reply, status int, fields ...string) {
		t.Helper()
		if r.status != status || !r.whole {
			t.Errorf("got %s %v %q, want %d", r.outcome(), r.head, r.body, status)
		}
		for i := 0; i < len(fields); i += 2 {
			if v, _ := r.field(fields[i]); v != fields[i+1] {
				t.Errorf("%s: %q, want %q", fields[i], v, fields[i+1])
			}
		}
	}
	code := func(t *testing.T, r reply, want string) {
		t.Helper()
		if got := r.grpc(t); got != want {
			t.Errorf("got status %q, want %q (%v)", got, want, r.head)
		}
	}
	saw := func(t *testing.T, r reply, want string) {
		t.Helper()
		got := r.body
		if v, ok := r.field("x-seen"); ok {
			got = v
		}
		if got != want {
			t.Errorf("the service saw %q, want %q", got, want)
		}
	}
	run("auth", func(t *testing.T, web, rpc string) {
		for _, origin := range []string{"https://app.test", ""} {
			wants(t, p.web(c, web, nil, "origin", origin), 401, "content-type", "application/problem+json", "access-control-allow-origin", origin, "x-rule", "always")
			r := p.call(c, rpc, "origin", origin)
			code(t, r, "16 token_missing")
			wants(t, r, 200, "access-control-allow-origin", origin, "x-rule", "always")
		}
		wants(t, p.web(c, web, abc, ":method", "POST", "authorization", narrow), 403)
		code(t, p.call(c, rpc, "authorization", narrow), "7 scope_missing")
		saw(t, p.web(c, web, abc, ":method", "POST", "authorization", alice), "main POST /auth/x 3 X-Auth-Subject=alice X-Auth-Client=web")
		r := p.call(c, rpc, "authorization", alice, "x-auth-subject", "root")
		code(t, r, "0")
		saw(t, r, "main POST /rpc.auth/x 5 X-Auth-Subject=alice X-Auth-Client=web")
	})
	run("condition", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web, nil, "authorization", bob, "x-pass", "1"), 403)
		wants(t, p.web(c, web, nil, "authorization", alice), 403)
		wants(t, p.web(c, web, nil, "authorization", alice, "x-pass", "1"), 200)
		code(t, p.call(c, rpc, "authorization", bob, "x-pass", "1"), "7 condition_denied")
		code(t, p.call(c, rpc, "authorization", alice, "x-pass", "1"), "0")
	})
	run("mtls", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web, nil, "authorization", alice), 403)
		code(t, p.call(c, rpc, "authorization", alice), "7 client_certificate_required")
		nc, err := tls.Dial("tcp", p.gw.Extra[1], p.tls)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		c := speakFrames(t, nc)
		wants(t, p.web(c, web, nil, ":scheme", "https", "authorization", alice), 200)
		code(t, p.call(c, rpc, ":scheme", "https", "authorization", alice), "0")
	})
	run("apikey", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web, nil), 401)
		wants(t, p.web(c, web, nil, "x-api-key", "wrong"), 401)
		saw(t, p.web(c, web, nil, "x-api-key", apiKey), "main GET /apikey/x 0 X-Auth-Subject=key:acme X-Auth-Client=acme")
		code(t, p.call(c, rpc), "16 api_key_missing")
		r := p.call(c, rpc, "x-api-key", apiKey)
		code(t, r, "0")
		saw(t, r, "main POST /rpc.apikey/x 5 X-Auth-Subject=key:acme X-Auth-Client=acme")
	})
	run("cors", func(t *testing.T, web, rpc string) {
		ask := []string{":method", "OPTIONS", "access-control-request-method", "GET"}
		wants(t, p.web(c, web, nil, append(ask, "origin", "https://app.test")...), 204, "access-control-allow-origin", "https://app.test", "content-length", "")
		wants(t, p.web(c, web, nil, append(ask, "origin", "https://evil.test")...), 403)
		wants(t, p.web(c, web, nil, "origin", "https://app.test"), 200, "access-control-allow-origin", "https://app.test", "vary", "Origin")
		r := p.call(c, rpc, "origin", "https://app.test")
		code(t, r, "0")
		wants(t, r, 200, "access-control-allow-origin", "https://app.test")
	})
	run("headers", func(t *testing.T, web, rpc string) {
		for path, r := range map[string]reply{"GET " + web + " 0": p.web(c, web, nil, "x-in", "1", "x-gate", "forged", "x-gone", "1"), "POST " + rpc + " 5": p.call(c, rpc, "x-in", "1", "x_gate", "forged", "x-gone", "1")} {
			saw(t, r, "main "+path+" X-Gate=127.0.0.1|1")
			if id, _ := r.field("x-out"); len(id) != 32 {
				t.Errorf("X-Out: %q", id)
			}
			wants(t, r, 200, "x-seen-method", "")
		}
	})
	run("rewrite", func(t *testing.T, web, rpc string) {
		saw(t, p.web(c, web, nil), "main GET /new.x/Call 0")
		saw(t, p.call(c, rpc), "main POST /new.x/Call 5")
	})
	run("redirect", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web+"?a=b", nil), 307, "location", "https://www.test"+web+"?a=b", "content-length", "0")
		wants(t, p.web(c, web, abc, ":method", "POST"), 307)
		wants(t, p.call(c, rpc), 307) // which clients of gRPC report and do not follow
	})
	run("ipallow", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web, nil), 403)
		code(t, p.call(c, rpc), "7 address_denied")
	})
	run("bodylimit", func(t *testing.T, web, rpc string) {
		much := []string{strings.Repeat("a", 10), strings.Repeat("b", 10)}
		wants(t, p.web(c, web, much[:1], ":method", "POST"), 200)
		wants(t, p.web(c, web, much, ":method", "POST", "content-length", "20"), 413)
		wants(t, p.web(c, web, much, ":method", "POST"), 413)
		code(t, p.call(c, rpc), "0")
		call := message(":authority", "a.test", ":method", "POST", ":path", rpc, "content-type", "application/grpc", "te", "trailers")
		code(t, c.ask(call, much...), "8 body_too_large")
		code(t, c.ask(append(call, "content-length", "20"), much...), "8 body_too_large")
	})
	run("compress", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web, nil, "accept-encoding", "gzip"), 200, "content-encoding", "gzip", "vary", "Accept-Encoding")
		wants(t, p.web(c, web, nil), 200, "content-encoding", "", "vary", "Accept-Encoding")
		r := p.call(c, rpc, "accept-encoding", "gzip")
		code(t, r, "0")
		if wants(t, r, 200, "content-encoding", ""); r.body != string(message0) {
			t.Errorf("the message became %q", r.body)
		}
	})
	run("cache", func(t *testing.T, web, rpc string) {
		first := p.web(c, web, nil)
		wants(t, first, 200, "cache-status", "gatehouse; fwd=miss")
		again := p.web(c, web, nil)
		if wants(t, again, 200, "cache-status", "gatehouse; hit"); again.body != first.body {
			t.Errorf("got %q, was %q", again.body, first.body)
		}
		for range 2 {
			r := p.call(c, rpc)
			code(t, r, "0")
			if _, ok := r.field("age"); ok {
				t.Errorf("a call came from the store: %v", r.head)
			}
		}
	})
	run("mirror", func(t *testing.T, web, rpc string) {
		saw(t, p.web(c, web, nil), "main GET /mirror/x 0")
		rig.Eventually(t, "a copy arrives", func() bool { return p.copies.Load() == 1 })
		r := p.call(c, rpc, "content-length", fmt.Sprint(len(message0)))
		code(t, r, "0")
		saw(t, r, "main POST /rpc.mirror/x 5")
		rig.Eventually(t, "a copy of the call arrives", func() bool { return p.copies.Load() == 2 })
		// Nobody knows how long the messages of a call become.
		code(t, p.call(c, rpc), "0")
	})
	run("canary", func(t *testing.T, web, rpc string) {
		for value, want := range map[string]string{"true": "canary", "false": "main"} {
			saw(t, p.web(c, web, nil, "x-canary", value), want+" GET /canary/x 0")
			r := p.call(c, rpc, "x-canary", value)
			code(t, r, "0")
			saw(t, r, want+" POST /rpc.canary/x 5")
		}
	})
	run("timeout", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web+"/slow", nil), 504)
		code(t, p.call(c, rpc+"/slow"), "4 upstream_timeout")
	})
	run("forwardauth", func(t *testing.T, web, rpc string) {
		r := p.web(c, web, abc, ":method", "POST")
		if wants(t, r, 401, "location", "https://login.test/"); r.body != "who are you?" {
			t.Errorf("got %q", r.body)
		}
		saw(t, p.web(c, web, abc, ":method", "POST", "x-pass", "1", "remote-user", "root", "remote_user", "root"), "main POST /forwardauth/x 3 Remote-User=bob")
		code(t, p.call(c, rpc), "16 forward_auth_denied")
		r = p.call(c, rpc, "x-pass", "1")
		code(t, r, "0")
		saw(t, r, "main POST /rpc.forwardauth/x 5 Remote-User=bob")
	})
	run("silent", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web, nil), 503, "retry-after", "1")
		code(t, p.call(c, rpc), "14 forward_auth_unavailable")
	})
	run("ratelimit", func(t *testing.T, web, rpc string) {
		wants(t, p.web(c, web, nil), 200)
		if r := p.web(c, web, nil); r.status != 429 || r.headless("retry-after") {
			t.Errorf("got %s %v", r.outcome(), r.head)
		}
		code(t, p.call(c, rpc), "0")
		r := p.call(c, rpc)
		if code(t, r, "8 rate_limited"); r.headless("retry-after") {
			t.Errorf("got %v", r.head)
		}
	})
	run("retry", func(t *testing.T, web, rpc string) {
		for range 4 { // whichever instance is asked first
			wants(t, p.web(c, web, nil), 200)
			code(t, p.call(c, rpc), "0")
		}
	})
	run("breaker", func(t *testing.T, web, rpc string) {
		for path, ask := range map[string]func(string) string{
			web: func(path string) string {
				r := p.web(c, path, nil)
				return fmt.Sprint(r.status, " ", strings.Contains(r.body, "breaker_open"))
			},
			rpc: func(path string) string { return p.call(c, path).grpc(t) },
		} {
			for range 2 {
				if got := ask(path + "/down"); got != "503 false" && got != "14" {
					t.Errorf("%s: %s", path, got)
				}
			}
			if got := ask(path); got != "503 true" && got != "14 breaker_open" {
				t.Errorf("%s: %s", path, got)
			}
		}
	})
	for _, u := range policies {
		if !tested[u.name] {
			t.Errorf("%s was not driven", u.name)
		}
	}
	if err := everyPlugin(tested); err != nil {
		t.Error(err)
	}
	if r := c.ask(message(":authority", "a.test", ":path", "/cors/x")); r.status != 200 {
		t.Errorf("the connection did not survive: %s", r.outcome())
	}
}

// headless reports that a field is not there.
func (r reply) headless(name string) bool { _, ok := r.field(name); return !ok }

// everyPlugin compares with the folders below plugins.
func everyPlugin(tested map[string]bool) error {
	under := map[string]string{"clientcert": "mtls", "template": "headers"}
	files, err := filepath.Glob("../../plugins/*/*.go")
	if err != nil {
		return err
	}
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		if other, ok := under[name]; ok {
			name = other
		}
		if !tested[name] && !slices.Contains([]string{"all", "plugintest"}, name) {
			return fmt.Errorf("the plugin %s was not driven", name)
		}
	}
	return nil
}
