package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

var testLimits = routes.Server{
	MaxConnections: 100, MaxHeaderBytes: 16 << 10, MaxURLBytes: 8 << 10, MaxHeaders: 20, HeaderTimeout: 2 * time.Second,
	IdleTimeout: 5 * time.Second, BodyIdleTimeout: 2 * time.Second, WriteIdleTimeout: 2 * time.Second,
}

// start serves handler on loopback and returns its address.
func start(t testing.TB, change func(*Config), handler plugins.Handler) string {
	t.Helper()
	cfg := Config{Handler: handler, Limits: testLimits, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	s := New(cfg)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln, Transport{}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// talk sends raw and returns everything that comes back until the server
// closes or falls silent.
func talk(t testing.TB, addr, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	buf := make([]byte, 64<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
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

// hello answers with fields that fasthttp would fold, reorder or replace.
func hello(x *plugins.Exchange) error {
	body := []byte("hello " + string(x.Path))
	fields := fmt.Appendf(nil, "Set-Cookie: a=1\r\nserver: me\r\nContent-Encoding: a\r\nContent-Encoding: b\r\nDate: one\r\nDate: two\r\nContent-Length: %d\r\n", len(body))
	if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: fields, Length: int64(len(body))}); err != nil {
		return err
	}
	if _, err := x.Client.Write(body); err != nil {
		return err
	}
	return x.Client.Finish()
}

func TestResponseHeadReachesTheClientByteForByte(t *testing.T) {
	addr := start(t, nil, hello)
	const head = "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nserver: me\r\nContent-Encoding: a\r\nContent-Encoding: b\r\nDate: one\r\nDate: two\r\nContent-Length: 8\r\n"
	if got, want := talk(t, addr, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"), head+"\r\nhello /x"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, want := talk(t, addr, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), head+"Connection: close\r\n\r\nhello /x<closed>"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got, want := talk(t, addr, "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n"), head+"\r\n"; got != want {
		t.Errorf("HEAD: got  %q\nwant %q", got, want)
	}
	if got, want := talk(t, addr, "GET /x HTTP/1.0\r\nHost: a\r\n\r\n"), head+"Connection: close\r\n\r\nhello /x<closed>"; got != want {
		t.Errorf("1.0: got  %q\nwant %q", got, want)
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	addr := start(t, nil, hello)
	var raw strings.Builder
	for i := range 20 {
		fmt.Fprintf(&raw, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
	}
	got := talk(t, addr, raw.String())
	br := bufio.NewReader(strings.NewReader(got))
	for i := range 20 {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		body, _ := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("hello /%d", i); string(body) != want {
			t.Errorf("response %d: %q", i, body)
		}
	}
}

func TestMalformedRequestsAreRefusedAndTheConnectionEnds(t *testing.T) {
	addr := start(t, nil, func(x *plugins.Exchange) error {
		t.Errorf("reached the gateway: %s %s", x.Method, x.Path)
		return hello(x)
	})
	f := func(name, raw string, status int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			got := talk(t, addr, raw)
			if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d ", status)) || !strings.HasSuffix(got, "<closed>") {
				t.Errorf("want %d and the end, got %q", status, got)
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("the answer repeats the request: %q", got)
			}
		})
	}
	f("S01 both lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
	f("S02 two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400)
	f("S02 plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400)
	f("S03 coding list", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400)
	f("S04 identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", 400)
	f("S05 chunked in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
	f("S06 space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX A: 1\r\n\r\n", 400)
	f("S08 space before colon", "GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n", 400)
	f("S09 folded line", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n\r\n", 400)
	f("S10 bare LF", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\nX-B: 2\r\n\r\n", 400)
	f("S11 NUL", "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\x00hunter2\r\n\r\n", 400)
	f("S15 version 2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505)
	f("S15 version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505)
	f("S17 GET with content in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400)
	f("S18 no Host", "GET / HTTP/1.0\r\n\r\n", 400)
	f("S18 two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400)
	f("S19 userinfo", "GET / HTTP/1.1\r\nHost: admin:hunter2@a\r\n\r\n", 400)
	f("S20 other authority", "GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("S20 other scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("S22 fragment", "GET /a#/../admin HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("S24 double escape", "GET /%2561dmin HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("S25 backslash", "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n", 400)
	f("S26 CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405)
	f("S27 two Authorizations", "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hunter2\r\nAuthorization: Bearer b\r\n\r\n", 400)
	f("S29 unknown expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 0\r\n\r\n", 417)
	f("too many fields", "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X-A: 1\r\n", 30)+"\r\n", 431)
	f("head too large", "GET / HTTP/1.1\r\nHost: a\r\nX-A: "+strings.Repeat("a", 20<<10)+"\r\n\r\n", 431)
}

func TestExpectContinueComesAfterThePolicyAndBeforeTheContent(t *testing.T) {
	addr := start(t, nil, func(x *plugins.Exchange) error {
		if string(x.Path) == "/refused" {
			return &plugins.Error{Status: 401, Code: plugins.TokenMissing}
		}
		content, err := io.ReadAll(x.Body)
		if err != nil {
			return err
		}
		x.Path = content
		return hello(x)
	})
	got := talk(t, addr, "POST /refused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 401 ") || !strings.HasSuffix(got, "<closed>") {
		t.Errorf("refusal: %q", got)
	}
	for _, framing := range []string{"Content-Length: 3\r\n\r\n|abc", "Transfer-Encoding: chunked\r\n\r\n|3\r\nabc\r\n0\r\n\r\n"} {
		head, content, _ := strings.Cut(framing, "|")
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(c)
		for range 2 { // twice: the connection stays usable
			fmt.Fprintf(c, "POST /in HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n%s", head)
			if line, _ := br.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
				t.Fatalf("interim: %q", line)
			}
			_, _ = br.ReadString('\n')
			_, _ = io.WriteString(c, content)
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if string(body) != "hello abc" {
				t.Errorf("body %q", body)
			}
		}
		c.Close()
	}
}

func TestClientThatPromisesContentAndLeavesEndsItsExchange(t *testing.T) {
	ended := make(chan error, 1)
	addr := start(t, nil, func(x *plugins.Exchange) error {
		_, err := io.ReadAll(x.Body)
		ended <- err
		return err
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
	_, _ = bufio.NewReader(c).ReadString('\n')
	c.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a body that never came was read without an error")
		}
	case <-time.After(time.Minute):
		t.Fatal("the exchange never ended")
	}
}

func TestUnreadContentEndsTheConnection(t *testing.T) {
	addr := start(t, nil, hello)
	got := talk(t, addr, "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n..")
	if strings.Contains(got, "/b") || !strings.HasSuffix(got, "<closed>") {
		t.Errorf("content was taken for a request: %q", got)
	}
}

func TestPanicCostsOneRequest(t *testing.T) {
	addr := start(t, nil, func(x *plugins.Exchange) error {
		if string(x.Path) == "/panic" {
			panic("secret")
		}
		return hello(x)
	})
	if got := talk(t, addr, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 500 ") || strings.Contains(got, "secret") {
		t.Errorf("got %q", got)
	}
	if got := talk(t, addr, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("afterwards: %q", got)
	}
}

func TestUnknownMethodsReachThePolicy(t *testing.T) {
	addr := start(t, nil, hello)
	if got := talk(t, addr, "PROPFIND /x HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("got %q", got)
	}
}

// count answers with the number of bytes of content.
func count(x *plugins.Exchange) error {
	n := int64(0)
	if x.Body != nil {
		var err error
		if n, err = io.Copy(io.Discard, x.Body); err != nil {
			return err
		}
	}
	body := fmt.Appendf(nil, "%s %d", x.Path, n)
	if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: fmt.Appendf(nil, "Content-Length: %d\r\n", len(body)), Length: int64(len(body))}); err != nil {
		return err
	}
	if _, err := x.Client.Write(body); err != nil {
		return err
	}
	return x.Client.Finish()
}

func TestContentEndsWhereItsFramingSays(t *testing.T) {
	addr := start(t, nil, count)
	const next = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	f := func(name, raw string, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			got := talk(t, addr, raw)
			for _, w := range want {
				i := strings.Index(got, w)
				if i < 0 {
					t.Fatalf("no %q in the rest, got %q", w, got)
				}
				got = got[i+len(w):]
			}
			if got != "<closed>" {
				t.Errorf("behind the last: %q", got)
			}
		})
	}
	post := "POST /p HTTP/1.1\r\nHost: a\r\n"
	f("length", post+"Content-Length: 3\r\n\r\nabc"+next, "/p 3", "/next 0")
	f("chunks", post+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n"+next, "/p 5", "/next 0")
	long := strings.Repeat("x", 50_000)
	f("long", post+"Content-Length: 50000\r\n\r\n"+long+next, "/p 50000", "/next 0")
	f("long chunk", post+"Transfer-Encoding: chunked\r\n\r\nc350\r\n"+long+"\r\n0\r\n\r\n"+next, "/p 50000", "/next 0")
	f("many pipelined chunked", strings.Repeat(post+"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", 300)+next, "/next 0")
	f("blank lines before", "\r\n\r\n"+next, "/next 0")
	f("S13 extension too long", post+"Transfer-Encoding: chunked\r\n\r\n1;"+strings.Repeat("e", 80)+"\r\na\r\n0\r\n\r\n"+next, "HTTP/1.1 400 ", "}\n")
	f("S13 size with prefix", post+"Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n"+next, "HTTP/1.1 400 ", "}\n")
	f("S13 line feed after size", post+"Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"+next, "HTTP/1.1 400 ", "}\n")
	f("S14 line feed in trailers", post+"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nT: 1\n\r\n"+next, "HTTP/1.1 400 ", "}\n")
	f("S10 line feed after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"+next, "HTTP/1.1 400 ", "}\n")
	f("S10 line feeds only", "GET / HTTP/1.1\nHost: a\n\n"+next, "HTTP/1.1 400 ", "}\n")
	f("S16 blank lines without end", strings.Repeat("\r\n", 100)+next, "HTTP/1.1 400 ", "}\n")
}

func TestContentIsReadInSmallPiecesToo(t *testing.T) {
	addr := start(t, nil, count)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, b := range []byte("POST /p HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n") {
		if _, err := c.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := io.ReadAll(c)
	if !strings.HasSuffix(string(got), "/p 3") {
		t.Errorf("got %q", got)
	}
}

// waiting is something that lasts until it is told to end.
type waiting struct {
	due     atomic.Bool
	aborted chan struct{}
}

func (w *waiting) Due(time.Time, bool) bool { return w.due.Load() }
func (w *waiting) Abort()                   { close(w.aborted) }

func TestExchangeEndsWhenItsClientLeavesOrItIsDue(t *testing.T) {
	f := func(name string, act func(c *net.TCPConn, w *waiting), gone bool) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			w := &waiting{aborted: make(chan struct{})}
			result := make(chan bool, 1)
			addr := start(t, nil, func(x *plugins.Exchange) error {
				x.Client.Watch(w)
				select {
				case <-w.aborted:
				case <-time.After(time.Minute):
					t.Error("the exchange went on")
				}
				x.Client.Watch(nil)
				result <- x.Client.Gone()
				return hello(x)
			})
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			// What was sent ahead does not hide that the client has left.
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost")
			act(c.(*net.TCPConn), w)
			if got := <-result; got != gone {
				t.Errorf("gone: %v", got)
			}
		})
	}
	f("closed", func(c *net.TCPConn, _ *waiting) { c.Close() }, true)
	f("reset", func(c *net.TCPConn, _ *waiting) { _ = c.SetLinger(0); c.Close() }, true)
	f("closed for sending", func(c *net.TCPConn, _ *waiting) { _ = c.CloseWrite() }, runtime.GOOS == "linux")
	f("due", func(_ *net.TCPConn, w *waiting) { w.due.Store(true) }, false)
}

func TestTrailersGoToClientsThatReadThem(t *testing.T) {
	addr := start(t, nil, func(x *plugins.Exchange) error {
		_ = x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1})
		_, _ = x.Client.Write([]byte("ab"))
		x.Client.Trailer([]byte("T: 1\r\n"))
		return x.Client.Finish()
	})
	const ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
	if got := talk(t, addr, ask+"TE: trailers\r\n\r\n"); !strings.HasSuffix(got, "\r\n\r\n2\r\nab\r\n0\r\nT: 1\r\n\r\n<closed>") {
		t.Errorf("asked for: %q", got)
	}
	if got := talk(t, addr, ask+"\r\n"); !strings.HasSuffix(got, "\r\n\r\n2\r\nab\r\n0\r\n\r\n<closed>") {
		t.Errorf("not asked for: %q", got)
	}
}

func TestShutdownEndsIdleConnectionsAndWaitsForExchanges(t *testing.T) {
	release, started := make(chan struct{}), make(chan struct{})
	s := New(Config{Limits: testLimits, Logger: slog.New(slog.DiscardHandler), Now: time.Now, Handler: func(x *plugins.Exchange) error {
		if string(x.Path) == "/slow" {
			close(started)
			<-release
		}
		return hello(x)
	}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln, Transport{}) }()
	dial := func(raw string) net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, raw)
		return c
	}
	idle := dial("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	defer idle.Close()
	if _, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil {
		t.Fatal(err)
	}
	silent := dial("")
	defer silent.Close()
	busy := dial("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	defer busy.Close()
	<-started
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(context.Background()) }()
	for _, c := range []net.Conn{idle, silent} {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if rest, err := io.ReadAll(c); err != nil {
			t.Errorf("an idle connection stays open: %q %v", rest, err)
		}
	}
	select {
	case err := <-stopped:
		t.Fatalf("did not wait for the exchange: %v", err)
	default:
	}
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("the exchange under way: %v %v", resp, err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSilentAndSlowClientsAreCutOff(t *testing.T) {
	addr := start(t, func(c *Config) {
		c.Limits.HeaderTimeout = 200 * time.Millisecond
		c.Limits.IdleTimeout = 400 * time.Millisecond
	}, hello)
	f := func(name, first, want string) {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, first)
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		began := time.Now()
		all, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("%s: not cut off: %v", name, err)
		}
		if !strings.HasPrefix(string(all), want) || want == "" && len(all) > 0 {
			t.Errorf("%s: got %q", name, all)
		}
		if d := time.Since(began); d > 8*time.Second { // less than without the limits
			t.Errorf("%s: took %v", name, d)
		}
	}
	f("silent", "", "")
	f("half a head", "GET / HTTP/1.1\r\nHo", "HTTP/1.1 408 ")
	f("idle", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 ")
}

func TestForwardingTrust(t *testing.T) {
	type seen struct {
		client     netip.Addr
		forwarding string
		kept       []string
	}
	ask := func(trusted, raw string) (s seen) {
		addr := start(t, func(c *Config) {
			if trusted != "" {
				c.Trusted = []netip.Prefix{netip.MustParsePrefix(trusted)}
			}
		}, func(x *plugins.Exchange) error {
			s.client, s.forwarding = x.ClientIP, string(x.Forwarding)
			for _, f := range x.Fields {
				if !f.Drop {
					s.kept = append(s.kept, string(f.Name))
				}
			}
			return hello(x)
		})
		talk(t, addr, "GET / HTTP/1.1\r\nHost: a\r\n"+raw+"\r\n")
		return s
	}
	const claims = "X-Forwarded-For: 9.9.9.9, 8.8.8.8\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nX-Request-Id: mine\r\nX-Auth-Subject: root\r\nx_auth.subject: root\r\nX-HTTP-Method-Override: DELETE\r\n"
	if s := ask("", claims); s.client.String() != "127.0.0.1" || !strings.Contains(s.forwarding, "X-Forwarded-For: 127.0.0.1\r\n") ||
		!strings.Contains(s.forwarding, "X-Forwarded-Proto: http\r\n") || strings.Contains(s.forwarding, "mine") || len(s.kept) != 1 {
		t.Errorf("untrusted peer: %+v", s)
	}
	if s := ask("127.0.0.0/8", claims); s.client.String() != "8.8.8.8" || !strings.Contains(s.forwarding, "X-Forwarded-For: 9.9.9.9, 8.8.8.8, 127.0.0.1\r\n") ||
		!strings.Contains(s.forwarding, "X-Request-Id: mine\r\n") {
		t.Errorf("trusted peer: %+v", s)
	}
}

func TestServeDoesNotAllocate(t *testing.T) {
	const runs = 2000
	fields, content := []byte("Content-Length: 2\r\n"), []byte("ok")
	addr := start(t, nil, func(x *plugins.Exchange) error {
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: fields, Length: 2}); err != nil {
			return err
		}
		_, _ = x.Client.Write(content)
		return x.Client.Finish()
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := []byte("GET /orders/1 HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer abc\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n")
	buf := make([]byte, 4096)
	ask := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		ask()
	}
	if n := testing.AllocsPerRun(runs, ask); n > 0.1 && !raceEnabled {
		t.Errorf("%v allocations per request", n)
	}
}
