package gateway_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/gateway/server"
	"github.com/gatehouse/gatehouse/plugins/all"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/breaker"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/retry"
	"github.com/gatehouse/gatehouse/routes"
)

// everyday is a gateway with all plugins in their order, on a socket.
func everyday(t *testing.T, file string, instance netip.AddrPort) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	config, err := routes.Load(path, routes.Options{Plugins: all.Names()})
	if err != nil {
		t.Fatal(err)
	}
	gw := gateway.New(gateway.Config{
		Plugins: all.All(all.Deps{
			Auth: auth.New(auth.Config{}), RateLimit: ratelimit.New(ratelimit.Config{}),
			Retry: retry.New(nil), Breaker: breaker.New(),
		}),
		Discover: func(s *routes.Service, found func([]discovery.Endpoint)) (func(), error) {
			found([]discovery.Endpoint{{ID: s.Name, Addr: instance, Weight: 1}})
			return func() {}, nil
		},
		Settle: time.Second, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err := gw.Load(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Config{Handler: gw.Serve, Limits: limits, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln, server.Transport{}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-done
		gw.Close()
	})
	return "http://" + ln.Addr().String()
}

const everydayFile = `
listeners: [{address: 127.0.0.1:8080}]
issuers:
  - {issuer: https://idp.example, jwks_uri: https://idp.example/jwks, audiences: [https://api.example.com]}
services:
  orders: {targets: [http://127.0.0.1:9000]}
  orders-v2: {targets: [http://127.0.0.1:9000]}
routes:
  - path: /open/**
    service: orders
    public: true
    rewrite: {strip_prefix: /open, add_prefix: /api}
    headers: {request: {set: {X-Gate: "{client_ip}"}}, response: {set: {Server: gate}}}
    cors: {origins: [https://app.example]}
    compress: {}
    cache: {}
    canary: {service: orders-v2, header: X-Canary}
  - path: /closed/**
    methods: [GET]
    service: orders
    auth: {}
    cors: {origins: [https://app.example]}
    headers: {response: {set: {X-Gate: always}}}
  - {path: /mirrored, service: orders, public: true, mirror: {service: orders-v2}}
  - {path: /old, public: true, redirect: {to: /open/new}}
`

func TestEverydayPluginsWorkTogetherOnTheWire(t *testing.T) {
	var asked atomic.Int64
	large := strings.Repeat("0123456789abcdef", 40_000)
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			n := asked.Add(1)
			kind, content, more := "application/json", fmt.Sprintf(`{"n": %d, "path": %q, "gate": %q, "of": %q}`, n, r.URL.Path, r.Header.Get("X-Gate"), strings.Repeat("x", 2000)), ""
			switch r.URL.Path {
			case "/api/image":
				kind, content = "image/png", large
			case "/api/cached":
				more = "Cache-Control: max-age=60\r\n"
			case "/api/chunked":
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(large), large)
				continue
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nServer: origin\r\nAccess-Control-Allow-Origin: *\r\nContent-Type: %s\r\n%sETag: \"1\"\r\nContent-Length: %d\r\n\r\n", kind, more, len(content))
			if r.Method != http.MethodHead {
				_, _ = io.WriteString(c, content)
			}
		}
	})
	origin := everyday(t, everydayFile, u.addr)
	client := &http.Client{
		Transport:     &http.Transport{DisableCompression: true, MaxConnsPerHost: 1},
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer client.CloseIdleConnections()
	// All over one connection: a wrong length would show in the next answer.
	call := func(method, path string, header ...string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, origin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range header {
			name, value, _ := strings.Cut(h, ": ")
			req.Header.Add(name, value)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var r io.Reader = resp.Body
		if resp.Header.Get("Content-Encoding") == "gzip" && method != http.MethodHead {
			if r, err = gzip.NewReader(r); err != nil {
				t.Fatal(err)
			}
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return resp, string(content)
	}
	want := func(resp *http.Response, status int, fields ...string) {
		t.Helper()
		if resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", resp.Request.URL, resp.StatusCode, status)
		}
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			if got := strings.Join(resp.Header.Values(name), ", "); got != value {
				t.Errorf("%s: %s: %q, want %q", resp.Request.URL, name, got, value)
			}
		}
	}

	resp, content := call("GET", "/open/a", "Accept-Encoding: gzip", "Origin: https://app.example", "X-Gate: forged")
	want(resp, 200, "Content-Encoding: gzip", "Server: gate", "Access-Control-Allow-Origin: https://app.example", `ETag: W/"1"`, "Content-Length: ")
	if !strings.Contains(content, `"path": "/api/a", "gate": "127.0.0.1"`) {
		t.Errorf("content %.80s", content)
	}
	resp, _ = call("HEAD", "/open/a", "Accept-Encoding: gzip")
	want(resp, 200, "Server: gate")
	resp, content = call("GET", "/open/image", "Accept-Encoding: gzip")
	want(resp, 200, "Content-Encoding: ", fmt.Sprint("Content-Length: ", len(large)))
	if content != large {
		t.Errorf("image: %d bytes", len(content))
	}
	resp, content = call("GET", "/open/chunked", "Accept-Encoding: gzip")
	if want(resp, 200, "Content-Encoding: gzip"); content != large {
		t.Errorf("chunked: %d bytes", len(content))
	}

	_, first := call("GET", "/open/cached")
	before := asked.Load()
	resp, content = call("GET", "/open/cached", "Accept-Encoding: gzip")
	if want(resp, 200, "Content-Encoding: gzip", "Cache-Status: gatehouse; hit", "Server: gate"); content != first || asked.Load() != before {
		t.Errorf("cached: %.40s, was %.40s", content, first)
	}
	resp, content = call("GET", "/open/cached", `If-None-Match: "1"`)
	if want(resp, 304, "Content-Length: "); content != "" {
		t.Errorf("304 with %q", content)
	}
	// The other service has its own store.
	if _, content = call("GET", "/open/cached", "X-Canary: true"); content == first || asked.Load() != before+1 {
		t.Errorf("canary: %.40s", content)
	}
	call("POST", "/open/cached")
	if _, content = call("GET", "/open/cached"); content == first {
		t.Error("a POST did not invalidate")
	}

	resp, _ = call("GET", "/closed/a", "Origin: https://app.example")
	want(resp, 401, "Access-Control-Allow-Origin: https://app.example", "Content-Type: application/problem+json", "X-Gate: always")
	resp, _ = call("OPTIONS", "/closed/a", "Origin: https://app.example", "Access-Control-Request-Method: GET")
	want(resp, 204, "Access-Control-Allow-Origin: https://app.example", "Access-Control-Allow-Methods: GET")
	resp, _ = call("OPTIONS", "/closed/a", "Origin: https://evil.example", "Access-Control-Request-Method: GET")
	want(resp, 403)
	resp, _ = call("GET", "/old")
	want(resp, 307, "Location: /open/new")

	before = asked.Load()
	resp, _ = call("GET", "/mirrored")
	want(resp, 200)
	for began := time.Now(); asked.Load() < before+2; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatal("no copy arrived")
		}
	}
}
