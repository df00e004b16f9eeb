package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// echo is a WebSocket service; closed gets the close code of each client.
func echo(t *testing.T) (instance netip.AddrPort, closed chan websocket.StatusCode) {
	closed = make(chan websocket.StatusCode, 10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil {
				closed <- websocket.CloseStatus(err)
				return
			}
			if c.Write(r.Context(), kind, p) != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String()), closed
}

func tunnels(r *routes.Route) {
	r.Streams.WebSocket = true
}

func dial(t *testing.T, addr string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, "ws://"+addr+"/live", nil)
	if err != nil {
		t.Fatalf("%v (%v)", err, resp)
	}
	t.Cleanup(func() { c.CloseNow() })
	c.SetReadLimit(1 << 20)
	return c
}

// say sends p through the tunnel and wants it back.
func say(t *testing.T, c *websocket.Conn, p []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Write(ctx, websocket.MessageBinary, p); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); err != nil || !bytes.Equal(got, p) {
		t.Fatalf("%d bytes came back of %d, %v", len(got), len(p), err)
	}
}

// ends waits for the end of the tunnel and returns its close code.
func ends(t *testing.T, c *websocket.Conn) websocket.StatusCode {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, _, err := c.Read(ctx)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("the tunnel goes on: %v", err)
	}
	return websocket.CloseStatus(err)
}

func TestWebSocketCarriesMessagesOfEverySizeBothWays(t *testing.T) {
	instance, closed := echo(t)
	rig := serve(t, tunnels, nil, instance)
	c := dial(t, rig.addr)
	for _, size := range []int{0, 1, 125, 126, 5000, 65535, 65536, 300_000} {
		p := make([]byte, size)
		_, _ = rand.Read(p)
		say(t, c, p)
	}
	if n := rig.server.Status().Tunnels; n != 1 {
		t.Errorf("%d tunnels", n)
	}
	if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
		t.Errorf("close: %v", err)
	}
	if code := <-closed; code != websocket.StatusNormalClosure {
		t.Errorf("the service saw %d", code)
	}
	eventually(t, "the tunnel is counted still", func() bool { return rig.server.Status().Tunnels == 0 })
}

func eventually(t *testing.T, complaint string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(complaint)
		}
	}
}

// revocable is a step that lets everybody pass as one caller, until told.
type revocable struct {
	reason atomic.Pointer[string]
	expiry time.Time
}

func (r *revocable) Name() string { return "auth" }

func (r *revocable) Build(*routes.Route) (plugins.Step, error) {
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			x.Principal, x.Standing = &plugins.Principal{Subject: "alice", Expiry: r.expiry}, r
			return next(x)
		}
	}, nil
}

func (r *revocable) Stands(*plugins.Principal, time.Time) string {
	if s := r.reason.Load(); s != nil {
		return *s
	}
	return ""
}

func (r *revocable) revoke() { s := plugins.TokenRevoked; r.reason.Store(&s) }

func TestTunnelEndsWithWhatAllowedIt(t *testing.T) {
	f := func(name string, change func(*routes.Route, *revocable), act func(*rig, *revocable), want websocket.StatusCode) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			instance, closed := echo(t)
			auth := &revocable{}
			r := serve(t, func(r *routes.Route) {
				tunnels(r)
				if change != nil {
					change(r, auth)
				}
			}, []plugins.Plugin{auth}, instance)
			c := dial(t, r.addr)
			say(t, c, []byte("hello"))
			if act != nil {
				act(r, auth)
			}
			if got := ends(t, c); got != want {
				t.Errorf("the client saw %d, want %d", got, want)
			}
			select {
			case got := <-closed:
				if got != want {
					t.Errorf("the service saw %d, want %d", got, want)
				}
			case <-time.After(time.Minute):
				t.Error("the service's side stays open")
			}
		})
	}
	f("revoked", nil, func(_ *rig, a *revocable) { a.revoke() }, websocket.StatusPolicyViolation)
	f("expired", func(_ *routes.Route, a *revocable) { a.expiry = time.Now().Add(300 * time.Millisecond) }, nil, websocket.StatusPolicyViolation)
	f("idle", func(r *routes.Route, _ *revocable) { r.Streams.IdleTimeout = 200 * time.Millisecond }, nil, websocket.StatusGoingAway)
	f("too old", func(r *routes.Route, _ *revocable) { r.Streams.MaxLifetime = 300 * time.Millisecond }, nil, websocket.StatusGoingAway)
	f("shutdown", nil, func(r *rig, _ *revocable) {
		go r.server.Shutdown(context.Background())
	}, websocket.StatusGoingAway)
}

func TestTunnelOutlivesItsTokenByTheGrace(t *testing.T) {
	instance, _ := echo(t)
	r := serve(t, func(r *routes.Route) { tunnels(r); r.Streams.TokenGrace = time.Hour },
		[]plugins.Plugin{&revocable{expiry: time.Now().Add(-time.Minute)}}, instance)
	c := dial(t, r.addr)
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		say(t, c, []byte("still there"))
	}
}

const handshake = "GET /live HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

const agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// converse sends raw and returns what comes back until pause without bytes.
func converse(t *testing.T, addr, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, raw)
	var b strings.Builder
	buf := make([]byte, 64<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			return b.String()
		}
	}
}

func TestNothingIsTunnelledThatWasNotAgreedUpon(t *testing.T) {
	f := func(name, answer string, change func(*routes.Route), request, wantStatus string, seen ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			heads := make(chan string, 4)
			u := script(t, func(c net.Conn, br *bufio.Reader) {
				head, err := readHead(br)
				if err != nil {
					return
				}
				heads <- head
				// What the client sent ahead must not be here before the answer.
				_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				if p, _ := br.Peek(1); len(p) > 0 {
					t.Errorf("bytes came before the service agreed: %q", p)
				}
				_, _ = io.WriteString(c, answer)
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
				_, _ = io.Copy(io.Discard, br)
			})
			r := serve(t, change, nil, u.addr)
			if got := converse(t, r.addr, request); !strings.HasPrefix(got, "HTTP/1.1 "+wantStatus) {
				t.Errorf("got %q", got)
			}
			select {
			case head := <-heads:
				for _, s := range seen {
					if s[0] == '!' && strings.Contains(head, s[1:]) || s[0] != '!' && !strings.Contains(head, s) {
						t.Errorf("the service got %q, which contradicts %q", head, s)
					}
				}
			default:
				t.Error("the service was not asked")
			}
		})
	}
	const plain = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	f("agreed", agreed, tunnels, handshake+"\x81\x80\x00\x00\x00\x00", "101", "Connection: Upgrade\r\nUpgrade: websocket\r\n")
	f("declined", plain, tunnels, handshake, "200")
	f("wrong accept", strings.Replace(agreed, "s3pP", "xxxx", 1), tunnels, handshake, "502")
	f("no accept", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", tunnels, handshake, "502")
	f("another protocol", strings.Replace(agreed, "Upgrade: websocket", "Upgrade: h2c", 1), tunnels, handshake, "502")
	f("route without tunnels", plain, nil, handshake, "200", "!Upgrade")
	f("route without tunnels, service agrees", agreed, nil, handshake, "502")
	f("h2c", plain, tunnels, strings.Replace(handshake, "Upgrade: websocket", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", 1), "200", "!Upgrade", "!HTTP2")
	f("not GET", plain, tunnels, strings.Replace(handshake, "GET", "OPTIONS", 1), "200", "!Upgrade")
	f("not asked for in Connection", plain, tunnels, strings.Replace(handshake, "keep-alive, Upgrade", "keep-alive", 1), "200", "!Upgrade")
}

func TestTunnelsAreBounded(t *testing.T) {
	instance, _ := echo(t)
	r := serve(t, tunnels, nil, instance)
	for range limits.MaxTunnels {
		say(t, dial(t, r.addr), []byte("x"))
	}
	if got := converse(t, r.addr, handshake); !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, plugins.TunnelLimit) || !strings.Contains(got, "Retry-After: ") {
		t.Errorf("one more: %q", got)
	}
	if s := r.server.Status(); s.TunnelsRefused != 1 || s.Tunnels != int64(limits.MaxTunnels) {
		t.Errorf("%+v", s)
	}
}

func TestEventsArriveAtOnceAndEndWithTheirToken(t *testing.T) {
	next := make(chan string)
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := readHead(br); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
		for e := range next {
			if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(e), e); err != nil {
				return
			}
		}
	})
	defer close(next)
	auth := &revocable{}
	r := serve(t, nil, []plugins.Plugin{auth}, u.addr)
	resp, err := http.Get("http://" + r.addr + "/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 1024)
	for i := range 5 {
		e := fmt.Sprintf("data: %d\n\n", i)
		next <- e // only after the one before has arrived
		if n, err := resp.Body.Read(buf); err != nil || string(buf[:n]) != e {
			t.Fatalf("event %d: %q, %v", i, buf[:n], err)
		}
	}
	auth.revoke()
	if n, err := resp.Body.Read(buf); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after the revocation: %q, %v", buf[:n], err)
	}
}

func TestClientThatLeavesCancelsTheService(t *testing.T) {
	asked, ended := make(chan struct{}), make(chan struct{})
	u := script(t, func(c net.Conn, br *bufio.Reader) {
		if _, err := readHead(br); err != nil {
			return
		}
		close(asked)
		_, _ = io.Copy(io.Discard, br) // until the gateway hangs up
		close(ended)
	})
	r := serve(t, nil, nil, u.addr)
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-asked
	c.Close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the service is kept busy for nobody")
	}
}
