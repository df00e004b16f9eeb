package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/gatehouse/gatehouse/plugins"
)

// h2rig is a server with a listener for each way to HTTP/2.
type h2rig struct {
	server     *Server
	clear, tls string // addresses
	donor      *httptest.Server
}

// oneCertificate is good for the names that httptest's certificate has.
type oneCertificate struct{ net.Listener }

func (oneCertificate) Covers(name, other string) bool {
	return name == "example.com" && other == "also.example.com"
}

// startHTTP2 serves handler as h2c and over TLS.
func startHTTP2(t testing.TB, change func(*Config), handler plugins.Handler) *h2rig {
	t.Helper()
	cfg := Config{Handler: handler, Limits: testLimits, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
	if change != nil {
		change(&cfg)
	}
	r := &h2rig{server: New(cfg), donor: httptest.NewTLSServer(http.NotFoundHandler())}
	done := make(chan error, 2)
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return ln
	}
	clear, secure := listen(), listen()
	r.clear, r.tls = clear.Addr().String(), secure.Addr().String()
	offer := r.donor.TLS.Clone()
	offer.NextProtos = []string{"h2", "http/1.1"}
	go func() { done <- r.server.ServeHTTP2(clear, Transport{}) }()
	go func() {
		done <- r.server.Serve(oneCertificate{tls.NewListener(secure, offer)}, Transport{Encrypted: true})
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
		r.donor.Close()
	})
	return r
}

// client speaks HTTP/2 to one of the listeners, whatever host a URL names.
func (r *h2rig) client(t testing.TB, secure bool) *http.Client {
	t.Helper()
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
	addr := r.clear
	if secure {
		addr = r.tls
		tr.Protocols.SetHTTP2(true)
		tr.TLSClientConfig = r.donor.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	} else {
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// both runs test over h2c and over TLS.
func (r *h2rig) both(t *testing.T, test func(t *testing.T, c *http.Client, base string)) {
	t.Helper()
	for _, secure := range []bool{false, true} {
		base := "http://example.com"
		if secure {
			base = "https://example.com"
		}
		t.Run(base[:5], func(t *testing.T) {
			t.Helper()
			test(t, r.client(t, secure), base)
		})
	}
}

func answer(x *plugins.Exchange, status int, fields string, body string) error {
	if err := x.Client.WriteHead(plugins.ResponseHead{Status: status, Fields: []byte(fields), Length: int64(len(body))}); err != nil {
		return err
	}
	if _, err := x.Client.Write([]byte(body)); err != nil {
		return err
	}
	return x.Client.Finish()
}

func TestHTTP2RequestIsTheSameToTheGate(t *testing.T) {
	var got atomic.Pointer[string]
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		var b strings.Builder
		fmt.Fprintf(&b, "%s %s %s ?%s\n", x.Method, x.Host, x.Path, x.Query)
		for _, f := range x.Fields {
			if !f.Drop {
				fmt.Fprintf(&b, "%s", f.Line)
			}
		}
		s := b.String()
		got.Store(&s)
		return answer(x, 200, "X-Proto: 2\r\nContent-Length: 2\r\n", "ok")
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		req, _ := http.NewRequest("GET", base+"/a/../b%7Ec?q=1", nil)
		req.Header = http.Header{
			"User-Agent": {"test"}, "Cookie": {"a=1; b=2"}, "X-Auth-Subject": {"mallory"},
			"X-Forwarded-For": {"1.2.3.4"}, "X-Two": {"1", "2"},
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if resp.ProtoMajor != 2 || string(body) != "ok" || resp.Header.Get("X-Proto") != "2" {
			t.Errorf("%s %q %v", resp.Proto, body, resp.Header)
		}
		if resp.Header["Date"] != nil || resp.Header["Content-Type"] != nil {
			t.Errorf("fields that nobody wrote: %v", resp.Header)
		}
		want := "GET example.com /b~c ?q=1\nHost: example.com\r\nCookie: a=1; b=2\r\nUser-Agent: test\r\nX-Two: 1\r\nX-Two: 2\r\n"
		if *got.Load() != want {
			t.Errorf("got  %q\nwant %q", *got.Load(), want)
		}
	})
}

func TestHTTP2StreamsContentBothWays(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1}); err != nil {
			return err
		}
		if err := x.Client.Flush(); err != nil {
			return err
		}
		buf := make([]byte, 32<<10)
		for {
			n, err := x.Body.Read(buf)
			if _, err := x.Client.Write(buf[:n]); err != nil {
				return err
			}
			if err := x.Client.Flush(); err != nil {
				return err
			}
			if err == io.EOF {
				x.Client.Trailer([]byte("X-Sum: 7\r\nX-Sum: 8\r\n"))
				return x.Client.Finish()
			}
			if err != nil {
				return err
			}
		}
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		in, out := io.Pipe()
		defer out.Close()
		req, _ := http.NewRequest("POST", base+"/", in)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		piece := bytes.Repeat([]byte("x"), 100_000)
		back := make([]byte, len(piece))
		for range 20 {
			sent := make(chan struct{})
			go func() { defer close(sent); _, _ = out.Write(piece) }()
			if _, err := io.ReadFull(resp.Body, back); err != nil {
				t.Fatal(err)
			}
			<-sent
		}
		out.Close()
		if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
			t.Errorf("%d bytes more, %v", len(rest), err)
		}
		if got := resp.Trailer["X-Sum"]; len(got) != 2 || got[0] != "7" {
			t.Errorf("trailers: %v", resp.Trailer)
		}
	})
}

func TestHTTP2RefusalsAreProblems(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		if string(x.Path) == "/panic" {
			panic("for a test")
		}
		return &plugins.Error{Status: 401, Code: plugins.TokenMissing, Header: [][2]string{{"WWW-Authenticate", "Bearer"}}}
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		f := func(path, cookie string, status int, reason string) {
			t.Helper()
			req, _ := http.NewRequest("POST", base+path, strings.NewReader("content that nobody reads"))
			if cookie != "" {
				req.Header.Set("Cookie", cookie)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			var problem struct{ Reason string }
			if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != status || problem.Reason != reason || resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %d %v %v", path, resp.StatusCode, problem, resp.Header)
			}
		}
		f("/", "", 401, plugins.TokenMissing)
		f("/panic", "", 500, plugins.Internal)
		f("/a%00b", "", 400, plugins.BadRequest)
		f("/", strings.Repeat("x", 17<<10), 431, plugins.HeaderTooLarge)
	})
}

func TestHTTP2ConnectionsServeOnlyHostsOfTheirCertificate(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error { return answer(x, 200, "Content-Length: 0\r\n", "") })
	c := r.client(t, true)
	f := func(host string, status int) {
		t.Helper()
		req, _ := http.NewRequest("GET", "https://example.com/", nil)
		req.Host = host
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: %d, want %d", host, resp.StatusCode, status)
		}
	}
	f("example.com", 200)
	f("EXAMPLE.com:8443", 200)
	f("also.example.com", 200)
	f("other.example.com", 421)
}

func TestHTTP2UnfinishedResponseIsReset(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1}); err != nil {
			return err
		}
		_, _ = x.Client.Write([]byte("a part"))
		_ = x.Client.Flush()
		return &plugins.Error{Status: 502, Code: plugins.UpstreamReset}
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		resp, err := c.Get(base)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a part was taken for the whole: %q", body)
		}
	})
}

func TestHTTP2InterimAndBodilessResponses(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		if string(x.Path) == "/hints" {
			if err := x.Client.Interim(103, []byte("Link: </a>\r\n")); err != nil {
				return err
			}
			return answer(x, 200, "Content-Length: 1\r\n", "x")
		}
		status := map[string]int{"/204": 204, "/304": 304, "/head": 200}[string(x.Path)]
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: status, Fields: []byte("Content-Length: 7\r\nEtag: x\r\n"), Length: 0, Date: true}); err != nil {
			return err
		}
		return x.Client.Finish()
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		var hints textproto.MIMEHeader
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(_ int, h textproto.MIMEHeader) error { hints = h; return nil },
		})
		req, _ := http.NewRequestWithContext(ctx, "GET", base+"/hints", nil)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if hints.Get("Link") != "</a>" || resp.Header.Get("Link") != "" {
			t.Errorf("103: %v, then %v", hints, resp.Header)
		}
		for path, method := range map[string]string{"/204": "GET", "/304": "GET", "/head": "HEAD"} {
			req, _ := http.NewRequest(method, base+path, nil)
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if len(body) > 0 || err != nil || resp.Header.Get("Etag") != "x" || resp.Header.Get("Date") == "" {
				t.Errorf("%s: %q %v %v", path, body, err, resp.Header)
			}
			if path == "/head" && resp.ContentLength != 7 {
				t.Errorf("HEAD: length %d", resp.ContentLength)
			}
		}
	})
}

// waiter is watched until it is aborted.
type waiter struct{ aborted chan struct{} }

func (waiter) Due(time.Time, bool) bool { return false }
func (w waiter) Abort()                 { close(w.aborted) }

type recorded func(x *plugins.Exchange)

func (f recorded) Record(x *plugins.Exchange, _ time.Duration) { f(x) }

func TestHTTP2ClientThatCancelsEndsItsExchange(t *testing.T) {
	status := make(chan int, 2)
	entered := make(chan struct{}, 2)
	r := startHTTP2(t, func(c *Config) {
		c.Recorders = []Recorder{recorded(func(x *plugins.Exchange) { status <- x.Record.Status })}
	}, func(x *plugins.Exchange) error {
		w := waiter{make(chan struct{})}
		x.Client.Watch(w)
		defer x.Client.Watch(nil)
		entered <- struct{}{}
		<-w.aborted
		if !x.Client.Gone() {
			t.Error("the client is not known to have left")
		}
		return &plugins.Error{Status: 499, Code: plugins.ClientGone}
	})
	r.both(t, func(t *testing.T, c *http.Client, base string) {
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, "GET", base, nil)
		failed := make(chan error, 1)
		go func() { _, err := c.Do(req); failed <- err }()
		<-entered
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if got := <-status; got != 499 {
			t.Errorf("recorded as %d", got)
		}
	})
}

func TestHTTP2ShutdownLetsStreamsEnd(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		close(entered)
		<-leave
		return answer(x, 200, "Content-Length: 4\r\n", "done")
	})
	c := r.client(t, true)
	got := make(chan string, 1)
	go func() {
		resp, err := c.Get("https://example.com/")
		if err != nil {
			got <- err.Error()
			return
		}
		body, _ := io.ReadAll(resp.Body)
		got <- string(body)
	}()
	<-entered
	if n := r.server.Status(); n.Connections != 1 || n.Streams != 1 {
		t.Errorf("status: %+v", n)
	}
	stopped := make(chan error, 1)
	go func() { stopped <- r.server.Shutdown(t.Context()) }()
	select {
	case err := <-stopped:
		t.Fatalf("shutdown did not wait: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	close(leave)
	if s := <-got; s != "done" {
		t.Error(s)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestHTTP2MalformedRequestsAreRefused(t *testing.T) {
	r := startHTTP2(t, nil, func(x *plugins.Exchange) error {
		if x.Body == nil { // with content, its end tells whether the request is well-formed
			t.Errorf("reached the gateway: %s %s %s", x.Method, x.Host, x.Path)
			return hello(x)
		}
		_, err := io.ReadAll(x.Body)
		return err
	})
	basic := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	with := func(more ...string) []string { return append(basic[:len(basic):len(basic)], more...) }
	f := func(name string, fields []string, content string, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Helper()
			w := r.raw(t)
			if err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: w.head(fields...), EndHeaders: true, EndStream: content == ""}); err != nil {
				t.Fatal(err)
			}
			if content != "" {
				_ = w.WriteData(1, true, []byte(content))
			}
			if got := w.outcome(t); !strings.Contains(want, got) {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
	const reset = "PROTOCOL_ERROR"
	f("S01 transfer-encoding", with("transfer-encoding", "chunked"), "", "400")
	f("S02 two lengths", with("content-length", "3", "content-length", "4"), "abc", "400")
	f("S02 no number", with("content-length", "+3"), "", "400")
	f("content-length without content", with("content-length", "3"), "", "400")
	f("content-length too short", with("content-length", "2"), "abc", reset)
	f("connection", with("connection", "x-a"), "", "400")
	f("upgrade", with("upgrade", "h2c"), "", "400")
	f("te", with("te", "gzip"), "", "400")
	f("S11 line end in a value", with("x-a", "1\r\nx-auth-subject: root"), "", reset)
	f("S06 upper case", with("X-A", "1"), "", reset)
	f("S11 blank before a value", with("x-a", " 1"), "", "400")
	f("S11 blank behind a value", with("x-a", "1\t"), "", "400")
	f("S19 blank before the authority", []string{":method", "GET", ":scheme", "http", ":authority", " a", ":path", "/"}, "", "400")
	f("S02 content where none was declared", with("content-length", "0"), "abc", reset)
	f("S18 other Host", with("host", "b"), "", "400 or "+reset)
	f("S18 no authority", []string{":method", "GET", ":scheme", "http", ":path", "/"}, "", "400")
	f("S19 userinfo", []string{":method", "GET", ":scheme", "http", ":authority", "u@a", ":path", "/"}, "", reset)
	f("S20 absolute path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "http://a/"}, "", "400 or "+reset)
	f("S22 fragment", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a#b"}, "", "400")
	f("S25 space in the path", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a b"}, "", "400")
	f("S26 CONNECT", []string{":method", "CONNECT", ":authority", "a:443"}, "", "405")
	f("S27 two Authorizations", with("authorization", "Bearer a", "authorization", "Bearer b"), "", "400")
	f("method with a line end", []string{":method", "GET / HTTP/1.1\r\nx:", ":scheme", "http", ":authority", "a", ":path", "/"}, "", reset)
	f("method with a space", []string{":method", "GET /admin", ":scheme", "http", ":authority", "a", ":path", "/"}, "", "400")
	f("asterisk for GET", []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "*"}, "", "400")
	many := with()
	for i := range 30 {
		many = append(many, fmt.Sprint("x-", i), "1")
	}
	f("too many fields", many, "", "431")
}
