package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/gateway/server"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/rewrite"
	"github.com/gatehouse/gatehouse/routes"
)

var limits = routes.Server{
	MaxURLBytes:    8 << 10,
	MaxConnections: 1000, MaxTunnels: 2, MaxHeaderBytes: 16 << 10, MaxHeaders: 100, HeaderTimeout: 2 * time.Second,
	IdleTimeout: 5 * time.Second, BodyIdleTimeout: 2 * time.Second, WriteIdleTimeout: 2 * time.Second,
}

// upstream is a scripted instance: serve is called for every connection.
type upstream struct {
	addr  netip.AddrPort
	conns atomic.Int64
}

func script(t testing.TB, serve func(c net.Conn, br *bufio.Reader)) *upstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	var open sync.Map
	t.Cleanup(func() {
		ln.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			u.conns.Add(1)
			open.Store(c, nil)
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	return u
}

// readHead reads a request's head as it came.
func readHead(br *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := br.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String(), err
		}
	}
}

// always answers every request without content with the same bytes.
func always(answer string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, br *bufio.Reader) {
		for {
			if _, err := readHead(br); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

type rig struct {
	gw     *gateway.Gateway
	server *server.Server
	addr   string
}

// serve puts a gateway in front of instances, with one route for everything.
func serve(t testing.TB, change func(*routes.Route), steps []plugins.Plugin, instances ...netip.AddrPort) *rig {
	t.Helper()
	gw := gateway.New(gateway.Config{
		Plugins: steps,
		Discover: func(_ *routes.Service, found func([]discovery.Endpoint)) (func(), error) {
			var eps []discovery.Endpoint
			for i, a := range instances {
				eps = append(eps, discovery.Endpoint{ID: fmt.Sprint(i), Addr: a, Weight: 1})
			}
			found(eps)
			return func() {}, nil
		},
		Settle: time.Second, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	r := route("everything", "/**")
	if change != nil {
		change(r)
	}
	if err := gw.Load(context.Background(), &routes.File{Routes: []*routes.Route{r}}); err != nil {
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
	return &rig{gw, s, ln.Addr().String()}
}

func route(name, path string) *routes.Route {
	streams := routes.Streams{IdleTimeout: time.Minute, MaxLifetime: time.Hour}
	return &routes.Route{Name: name, Path: path, Service: "orders", Public: true, Streams: streams, Upstream: &routes.Service{
		Name: "orders", MaxConnections: 100,
		Timeouts: routes.Timeouts{Connect: time.Second, Request: 2 * time.Second, Idle: 2 * time.Second},
	}}
}

// ask sends raw on a fresh connection and returns the answer's bytes until the
// gateway closes or is silent.
func (r *rig) ask(t testing.TB, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err == io.EOF {
			return b.String() + "<closed>"
		}
		if err != nil {
			return b.String()
		}
	}
}

func TestUpstreamReceivesTheLinesAsTheyCameAndTheGatewaysOwn(t *testing.T) {
	heads := make(chan string, 1)
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		head, _ := readHead(br)
		heads <- head
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	r := serve(t, func(r *routes.Route) { r.Rewrite = &routes.Rewrite{StripPrefix: "/api"} },
		[]plugins.Plugin{rewrite.New()}, u.addr)
	r.ask(t, "GET /api/%7euser/../a//b?x=1;y=%2F HTTP/1.1\r\nhOsT: api.example.com:80\r\nCookie: b=2; ;c\r\nX-Dup: 1\r\nx-dup: 2\r\n"+
		"Connection: X-Secret, X-Forwarded-For\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\n"+
		"X-Auth-Subject: root\r\nX_Auth_Subject: root\r\nx-auth.client: root\r\nTransfer_Encoding: chunked\r\nX-Forwarded-For: 6.6.6.6\r\nX-Original-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\n\r\n")
	head := <-heads
	const want = "GET /a/b?x=1;y=%2F HTTP/1.1\r\nhOsT: api.example.com:80\r\nCookie: b=2; ;c\r\nX-Dup: 1\r\nx-dup: 2\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: api.example.com:80\r\nX-Request-Id: "
	if !strings.HasPrefix(head, want) {
		t.Errorf("got\n%s\nwant\n%s", head, want)
	}
	for _, gone := range []string{"Secret", "Keep-Alive", "TE:", "Upgrade", "HTTP2", "Proxy", "root", "Transfer", "6.6.6.6", "admin", "DELETE"} {
		if strings.Contains(head, gone) {
			t.Errorf("%s reached the upstream:\n%s", gone, head)
		}
	}
}

func TestAnswersOfEveryFraming(t *testing.T) {
	f := func(name, method, answer, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			u := script(t, func(c net.Conn, br *bufio.Reader) {
				_, _ = readHead(br)
				_, _ = io.WriteString(c, answer)
			})
			r := serve(t, nil, nil, u.addr)
			if got := r.ask(t, method+" /x HTTP/1.1\r\nHost: a\r\n\r\n"); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
	const d = "Date: x\r\n"
	f("length", "GET", "HTTP/1.1 200 Fine\r\n"+d+"Content-Length: 2\r\n\r\nok", "HTTP/1.1 200 Fine\r\n"+d+"Content-Length: 2\r\n\r\nok")
	f("chunked", "GET", "HTTP/1.1 200 OK\r\n"+d+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\n"+d+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	f("until close", "GET", "HTTP/1.0 200 OK\r\n"+d+"\r\nok", "HTTP/1.1 200 OK\r\n"+d+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	f("HEAD", "HEAD", "HTTP/1.1 200 OK\r\n"+d+"Content-Length: 2\r\n\r\n", "HTTP/1.1 200 OK\r\n"+d+"Content-Length: 2\r\n\r\n")
	f("204", "GET", "HTTP/1.1 204 No Content\r\n"+d+"\r\n", "HTTP/1.1 204 No Content\r\n"+d+"\r\n")
	f("304", "GET", "HTTP/1.1 304 Not Modified\r\n"+d+"Content-Length: 9\r\n\r\n", "HTTP/1.1 304 Not Modified\r\n"+d+"Content-Length: 9\r\n\r\n")
	f("103 first", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"+d+"Content-Length: 0\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"+d+"Content-Length: 0\r\n\r\n")
	f("100 unasked", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"+d+"Content-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n"+d+"Content-Length: 0\r\n\r\n")
	f("hop by hop", "GET", "HTTP/1.1 200 OK\r\n"+d+"Connection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nX-Auth-Subject: me\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\n"+d+"Content-Length: 0\r\n\r\n")
	f("S45 cut content", "GET", "HTTP/1.1 200 OK\r\n"+d+"Content-Length: 9\r\n\r\nok", "HTTP/1.1 200 OK\r\n"+d+"Content-Length: 9\r\n\r\nok<closed>")
	f("S45 cut chunks", "GET", "HTTP/1.1 200 OK\r\n"+d+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "HTTP/1.1 200 OK\r\n"+d+"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n<closed>")
}

func TestInvalidAnswersBecomeBadGateway(t *testing.T) {
	f := func(name, answer, reason string, status int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			u := script(t, func(c net.Conn, br *bufio.Reader) {
				_, _ = readHead(br)
				_, _ = io.WriteString(c, answer)
			})
			r := serve(t, nil, nil, u.addr)
			got := r.ask(t, "POST /x HTTP/1.1\r\nHost: a\r\n\r\n")
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", status)) || !strings.Contains(got, `"reason":"`+reason+`"`) {
				t.Errorf("got %q", got)
			}
			if strings.Contains(got, u.addr.String()) || strings.Contains(got, "hunter2") {
				t.Errorf("the answer tells internals: %q", got)
			}
		})
	}
	f("S43 both lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "upstream_invalid", 502)
	f("S43 two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "upstream_invalid", 502)
	f("S43 coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", "upstream_invalid", 502)
	f("S43 control", "HTTP/1.1 200 OK\r\nX: a\x01hunter2\r\n\r\nok", "upstream_invalid", 502)
	f("P2 switching", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "upstream_invalid", 502)
	f("not HTTP", "hunter2\r\n\r\n", "upstream_invalid", 502)
	f("closed at once", "", "upstream_reset", 502)
	f("half a head", "HTTP/1.1 200 OK\r\nX: 1\r\n", "upstream_reset", 502)
}

func TestUnreachableAndSlowInstances(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := ln.Addr().(*net.TCPAddr).AddrPort()
	ln.Close()
	if got := serve(t, nil, nil, free).ask(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.Contains(got, "upstream_connect") {
		t.Errorf("refused connection: %q", got)
	}
	if got := serve(t, nil, nil).ask(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "no_healthy_instance") || !strings.Contains(got, "Retry-After: ") {
		t.Errorf("no instance: %q", got)
	}
	u := script(t, func(c net.Conn, br *bufio.Reader) { _, _ = io.Copy(io.Discard, br) })
	slow := serve(t, func(r *routes.Route) { r.Upstream.Timeouts.Request = 100 * time.Millisecond }, nil, u.addr)
	if got := slow.ask(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 504 ") || !strings.Contains(got, "upstream_timeout") {
		t.Errorf("slow instance: %q", got)
	}
}

func TestContentReachesTheUpstreamInEveryFraming(t *testing.T) {
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			content, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: %d\r\n\r\n%s", len(content), content)
		}
	})
	r := serve(t, nil, nil, u.addr)
	large := strings.Repeat("0123456789", 50_000)
	for _, content := range []string{"a", large} {
		for _, chunked := range []bool{false, true} {
			req, err := http.NewRequest("POST", "http://"+r.addr+"/x", strings.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			if chunked {
				req.ContentLength = -1
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(got) != content {
				t.Errorf("%d bytes, chunked %v: got %d bytes back, %v", len(content), chunked, len(got), err)
			}
		}
	}
}

func TestEarlyAnswerReachesTheClientWhileContentIsStillSent(t *testing.T) {
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		_, _ = readHead(br)
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Much\r\nDate: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!")
	})
	r := serve(t, nil, nil, u.addr)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n%s", strings.Repeat("a", 100_000))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(body) != "no!" {
		t.Errorf("got %d %q", resp.StatusCode, body)
	}
}

func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan struct{})
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		_, _ = readHead(br)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
		<-next
		_, _ = io.WriteString(c, "3\r\ntwo\r\n0\r\n\r\n")
	})
	r := serve(t, nil, nil, u.addr)
	resp, err := http.Get("http://" + r.addr + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 3)
	if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "one" {
		t.Fatalf("first event: %q %v", buf, err)
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "two" {
		t.Errorf("rest: %q %v", rest, err)
	}
}

func TestLargeAnswersArriveWhole(t *testing.T) {
	const size = 40 << 20
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		_, _ = readHead(br)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		piece := bytes.Repeat([]byte("x"), 1<<20)
		for range size >> 20 {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	})
	r := serve(t, nil, nil, u.addr)
	resp, err := http.Get("http://" + r.addr + "/large")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		t.Errorf("%d of %d bytes, %v", n, size, err)
	}
}

// careless is a plugin that forgets to authenticate.
type careless struct{}

func (careless) Name() string { return "careless" }

func (careless) Build(*routes.Route) (plugins.Step, error) {
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error { return next(x) }
	}, nil
}

func TestFinalGateRefusesAProtectedRouteWithoutAPrincipal(t *testing.T) {
	u := script(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	protect := func(r *routes.Route) { r.Public, r.Auth = false, &routes.Auth{Scopes: []string{"read"}} }
	r := serve(t, protect, []plugins.Plugin{careless{}}, u.addr)
	if got := r.ask(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "principal_missing") {
		t.Errorf("got %q", got)
	}
	if u.conns.Load() != 0 {
		t.Error("the upstream was asked")
	}
}

func TestRoutingAnswers(t *testing.T) {
	u := script(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	r := serve(t, func(r *routes.Route) { r.Path, r.Methods = "/orders/*", []string{"GET", "POST"} }, nil, u.addr)
	f := func(line, want string) {
		t.Helper()
		if got := r.ask(t, line+" HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
	f("GET /orders/1", " 200 OK")
	f("GET /other", " 404 ")
	f("GET /other", `"reason":"no_route"`)
	f("DELETE /orders/1", " 405 ")
	f("DELETE /orders/1", "Allow: GET, POST\r\n")
	f("GET /orders/a%2Fb", " 400 ")
}

func BenchmarkPlainRequest(b *testing.B) {
	u := script(b, always("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 5\r\n\r\nhello"))
	r := serve(b, nil, nil, u.addr)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	request := []byte("GET /orders/1 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}

// browsers is a plugin that answers preflights of every route.
type browsers struct{}

func (browsers) Name() string                              { return "browsers" }
func (browsers) Build(*routes.Route) (plugins.Step, error) { return nil, nil }
func (browsers) Preflight(r *routes.Route) (plugins.Handler, error) {
	if !r.Public {
		return nil, nil
	}
	return func(x *plugins.Exchange) error {
		x.AddResponseField("X-Preflight-Of", x.Route.Name)
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 204}); err != nil {
			return err
		}
		return x.Client.Finish()
	}, nil
}

func TestPreflightsAreAnsweredByTheRouteOfTheRequestToCome(t *testing.T) {
	u := script(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-From: service\r\n\r\n"))
	f := func(public bool, method, header, want string) {
		t.Helper()
		r := serve(t, func(r *routes.Route) { r.Methods, r.Public, r.Mode = []string{"POST"}, public, "shadow" },
			[]plugins.Plugin{browsers{}}, u.addr)
		got := r.ask(t, method+" /a HTTP/1.1\r\nHost: a\r\n"+header+"\r\n")
		if !strings.Contains(got, want) {
			t.Errorf("%s %q: got\n%s\nwant %s", method, header, got, want)
		}
	}
	const origin = "Origin: https://app.example\r\n"
	f(true, "OPTIONS", origin+"Access-Control-Request-Method: POST\r\n", "HTTP/1.1 204 No Content\r\nX-Preflight-Of: everything\r\n")
	f(true, "OPTIONS", origin+"Access-Control-Request-Method: GET\r\n", "HTTP/1.1 405 ")
	f(true, "OPTIONS", origin, "HTTP/1.1 405 ")
	f(true, "OPTIONS", "Access-Control-Request-Method: POST\r\n", "HTTP/1.1 405 ")
	f(true, "POST", origin+"Access-Control-Request-Method: POST\r\n", "X-From: service")
	f(false, "OPTIONS", origin+"Access-Control-Request-Method: POST\r\n", "HTTP/1.1 405 ")
}

func TestARouteWithoutAServiceIsAnsweredByItsSteps(t *testing.T) {
	change := func(r *routes.Route) { r.Service, r.Upstream = "", nil }
	answered := serve(t, change, []plugins.Plugin{answering{}})
	if got := answered.ask(t, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 204 ") {
		t.Errorf("got %q", got)
	}
	forgotten := serve(t, change, nil)
	if got := forgotten.ask(t, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 500 ") {
		t.Errorf("got %q", got)
	}
}

type answering struct{}

func (answering) Name() string { return "answering" }
func (answering) Build(*routes.Route) (plugins.Step, error) {
	return func(plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if err := x.Client.WriteHead(plugins.ResponseHead{Status: 204}); err != nil {
				return err
			}
			return x.Client.Finish()
		}
	}, nil
}

// toOther is a plugin that sends requests with a field to another service.
type toOther struct{ other *routes.Service }

func (toOther) Name() string                              { return "other" }
func (toOther) Build(*routes.Route) (plugins.Step, error) { return nil, nil }
func (p toOther) Branches(r *routes.Route) []*routes.Route {
	branch := *r
	branch.Service, branch.Upstream = p.other.Name, p.other
	return []*routes.Route{&branch}
}
func (toOther) BuildBranches(_ *routes.Route, others []plugins.Handler) (plugins.Step, error) {
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if _, n := x.Field("x-other"); n > 0 {
				return others[0](x)
			}
			return next(x)
		}
	}, nil
}

// marking notes the service whose chain it stands in.
type marking struct{}

func (marking) Name() string { return "marking" }
func (marking) Build(r *routes.Route) (plugins.Step, error) {
	service := r.Service
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			x.AddResponseField("X-Chain-Of", service)
			return next(x)
		}
	}, nil
}

func TestBranchesReachTheirServiceThroughStepsOfTheirOwn(t *testing.T) {
	u := script(t, always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	other := *route("x", "/").Upstream
	other.Name = "other"
	r := serve(t, nil, []plugins.Plugin{toOther{&other}, marking{}}, u.addr)
	f := func(header, want string) {
		t.Helper()
		if got := r.ask(t, "GET /a HTTP/1.1\r\nHost: a\r\n"+header+"\r\n"); !strings.Contains(got, "X-Chain-Of: "+want+"\r\n") || strings.Count(got, "X-Chain-Of") != 1 {
			t.Errorf("%q: got\n%s", header, got)
		}
	}
	f("", "orders")
	f("X-Other: 1\r\n", "other")
	names := ""
	for _, s := range r.gw.Services() {
		names += s.Name + " "
	}
	if names != "orders other " {
		t.Errorf("services %s", names)
	}
}
