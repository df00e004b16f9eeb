package edge

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// TestReverseProxyCases holds the gateway to what net/http/httputil promises of
// its ReverseProxy, where EDGE does not want more. Its buffers, hooks and ways of
// joining URLs have no counterpart.
func TestReverseProxyCases(t *testing.T) {
	for name, f := range map[string]func(*testing.T){
		"the whole of an exchange": proxyExchange, "fields that Connection names": proxyConnectionFields,
		"empty fields of one connection": proxyEmptyConnection, "X-Forwarded-For": proxyForwardedFor,
		"queries": proxyQueries, "what is written leaves": proxyFlush, "a head leaves before its content": proxyFlushHead,
		"a client that leaves": proxyCancellation, "no content": proxyNoContent, "User-Agent": proxyUserAgent,
		"content": proxyContent, "an instance that is not there": proxyNobody, "a failure behind the head": proxyLateFailure,
		"a failure of the client's content": proxyClientFailure, "trailers": proxyTrailers, "interim answers": proxyInterims,
		"100 that nobody asked for": proxyContinue, "upgrades": proxyUpgrades, "ends of upgrades": proxyUpgradeEnds,
		"HTTP/1.0": proxyOldVersions,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); f(t) })
	}
}

func proxyExchange(t *testing.T) {
	s := take(t, rig.Always("HTTP/1.1 418 I am a teapot\r\nX-Multi: 1\r\nX-Multi: 2\r\nSet-Cookie: flavor=oatmeal\r\nSet-Cookie: b=c\r\nTrailer: X-T\r\nUpgrade: foo\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"))
	a := s.dial(t).Ask("GET", "GET /dir/?a=b HTTP/1.1\r\nHost: "+s.host+":8080\r\nConnection: close, TE\r\nTE: foo, bar, trailers\r\nProxy-Connection: should be gone\r\nUpgrade: foo\r\nX-Multi: 1\r\nX-Multi: 2\r\n\r\n")
	if a.Status != 418 || a.Body != "hello" || strings.Count(a.Head, "X-Multi: ") != 2 || strings.Count(a.Head, "Set-Cookie: ") != 2 || strings.Contains(a.Head, "Upgrade") || a.Trailer != "X-T: 1\r\n" {
		t.Errorf("got %q%q%q", a.Head, a.Body, a.Trailer)
	}
	if got, want := rig.Strip(strings.Join(s.Received(), "")), "GET /dir/?a=b HTTP/1.1\r\nHost: "+s.host+":8080\r\nX-Multi: 1\r\nX-Multi: 2\r\n\r\n"; got != want {
		t.Errorf("the origin received %q, want %q", got, want)
	}
}

func proxyConnectionFields(t *testing.T) {
	s := take(t, rig.Always("HTTP/1.1 200 OK\r\nConnection: Upgrade, X-Other\r\nConnection: X-Some\r\nX-Some: 1\r\nX-Other: 2\r\nUpgrade: secret\r\nX-Kept: 3\r\nContent-Length: 2\r\n\r\nok"))
	a := s.dial(t).Ask("GET", s.in(get+"Connection: Upgrade, X-Some\r\nConnection: X-Other\r\nX-Some: 1\r\nX-Other: 2\r\nUpgrade: secret\r\nX-Kept: 3\r\n\r\n"))
	for _, name := range []string{"X-Some", "X-Other", "Upgrade", "secret"} {
		if strings.Contains(a.Head, name) {
			t.Errorf("the client got %q: %q", name, a.Head)
		}
	}
	if v, _ := a.Field("X-Kept"); v != "3" {
		t.Errorf("got %q", a.Head)
	}
	if got := rig.Strip(strings.Join(s.Received(), "")); got != s.in(get+"X-Kept: 3\r\n\r\n") {
		t.Errorf("the origin received %q", got)
	}
}

func proxyEmptyConnection(t *testing.T) {
	s := take(t, rig.Always("HTTP/1.1 200 OK\r\nConnection:\r\nConnection: ,\r\nKeep-Alive:\r\nContent-Length: 2\r\n\r\nok"))
	a := s.dial(t).Ask("GET", s.in(get+"Connection:\r\nConnection: ,\r\nTE:\r\nUpgrade:\r\nX-A:\r\n\r\n"))
	if a.Status != 200 || strings.Contains(a.Head, "Connection") || strings.Contains(a.Head, "Keep-Alive") {
		t.Errorf("got %q", a.Head)
	}
	if got := rig.Strip(strings.Join(s.Received(), "")); got != s.in(get+"X-A:\r\n\r\n") {
		t.Errorf("the origin received %q", got)
	}
}

func proxyForwardedFor(t *testing.T) {
	s := take(t, nil)
	for _, field := range []string{"", "X-Forwarded-For: 6.6.6.6\r\n", "X-Forwarded-For:\r\n", "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\n"} {
		s.Reset(rig.Always(rig.OK))
		s.dial(t).Ask("GET", s.in(get+field+"\r\n"))
		if got := strings.ToLower(strings.Join(s.Received(), "")); strings.Count(got, "x-forwarded-for:") != 1 || !strings.Contains(got, "\r\nx-forwarded-for: 127.0.0.1\r\n") {
			t.Errorf("%q: the origin received %q", field, got)
		}
	}
}

func proxyQueries(t *testing.T) {
	s := take(t, nil)
	c := s.dial(t)
	for _, query := range []string{"", "?", "?a=1&b=2", "?a=1;b=2", "?a=1&b=%zz", "?a=%&b", "?a=%00", "?a[1]=2"} {
		if a := c.Ask("GET", s.in(to("/a"+query))); a.Status != 200 {
			t.Errorf("%s: %q", query, a.Head)
		}
		if got := rig.Strip(strings.Join(s.Received(), "")); !strings.HasSuffix(got, s.in(to("/a"+query))) {
			t.Errorf("%s: the origin received %q", query, got)
		}
	}
}

func proxyFlush(t *testing.T) {
	next := make(chan struct{})
	defer close(next)
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			c.Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
			<-next // until the client has it
		}
	})
	c := s.dial(t)
	c.Send(s.in(get + "\r\n"))
	_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
	for got := ""; !strings.HasSuffix(got, "\r\n\r\n2\r\nhi\r\n"); {
		b, err := c.R.ReadByte()
		if err != nil {
			t.Fatalf("got %q (%v)", got, err)
		}
		got += string(b)
	}
}

func proxyFlushHead(t *testing.T) {
	next := make(chan struct{})
	defer close(next)
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			c.Say("HTTP/1.1 200 OK\r\nMy-Field: value\r\nContent-Length: 2\r\n\r\n")
			<-next
		}
	})
	c := s.dial(t)
	c.Send(s.in(get + "\r\n"))
	_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
	for line := ""; line != "My-Field: value\r\n"; {
		var err error
		if line, err = c.R.ReadString('\n'); err != nil {
			t.Fatalf("got %q (%v)", line, err)
		}
	}
}

// Little content of a declared length is read before the origin is asked, so it
// is much here.
func proxyCancellation(t *testing.T) {
	asked, gone := make(chan struct{}), make(chan bool, 1)
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.Say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
			close(asked)
			gone <- c.Gone()
		}
	})
	c := s.dial(t)
	c.Send(s.in(post + "Content-Length: 1000000\r\n\r\nabc"))
	select {
	case <-asked:
	case <-time.After(rig.Patience):
		t.Fatal("the origin was not asked")
	}
	c.Close()
	if !<-gone {
		t.Error("the origin is kept busy for nobody")
	}
}

func proxyNoContent(t *testing.T) {
	s := take(t, nil)
	c := s.dial(t)
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "POST"} {
		c.Ask(method, s.in(method+" /a HTTP/1.1\r\nHost: {host}\r\n\r\n"))
	}
	if got := strings.Join(s.Received(), ""); strings.Contains(got, "Content-Length") || strings.Contains(got, "Transfer-Encoding") {
		t.Errorf("the origin received %q", got)
	}
}

func proxyUserAgent(t *testing.T) {
	s := take(t, nil)
	for _, field := range []string{"", "User-Agent: explicit\r\n", "User-Agent:\r\n"} {
		s.Reset(rig.Always(rig.OK))
		s.dial(t).Ask("GET", s.in(get+field+"\r\n"))
		if got := rig.Strip(strings.Join(s.Received(), "")); got != s.in(get+field+"\r\n") {
			t.Errorf("%q: the origin received %q", field, got)
		}
	}
}

func proxyContent(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 20<<10)
	lengths := make(chan int, 2)
	s := take(t, func(c *rig.Conn) {
		for {
			m, err := c.ReadRequest()
			if err != nil {
				return
			}
			lengths <- strings.Count(m.Body, "0123456789abcdef")
			c.Say(rig.OK)
		}
	})
	c := s.dial(t)
	for _, framed := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(content), content), fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(content), content)} {
		if a := c.Ask("POST", s.in(post)+framed); a.Status != 200 || <-lengths != 20<<10 {
			t.Errorf("got %q", a.Head)
		}
	}
}

func proxyNobody(t *testing.T) {
	c := take(t, nil).dial(t)
	a := c.Ask("GET", "GET /a HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
	if kind, _ := a.Field("Content-Type"); a.Status != 502 || kind != "application/problem+json" {
		t.Errorf("got %q%q", a.Head, a.Body)
	}
	if err := alive(c); err != nil {
		t.Error(err)
	}
}

func proxyLateFailure(t *testing.T) {
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			c.Say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
		}
	})
	c := s.dial(t)
	if a := c.Ask("GET", s.in(get+"\r\n")); a.Whole || a.Status != 200 || a.Body != "abc" || strings.Contains(a.Body, "upstream") {
		t.Errorf("got %q%q, whole %v", a.Head, a.Body, a.Whole)
	}
	if err := ended(c); err != nil {
		t.Error(err)
	}
}

func proxyClientFailure(t *testing.T) {
	done := make(chan bool, 1)
	s := take(t, func(c *rig.Conn) {
		m, err := c.ReadRequest()
		done <- err != nil && !m.Whole
	})
	c := s.dial(t)
	c.Send(s.in(post + "Content-Length: 1000000\r\n\r\nabc"))
	rig.Eventually(t, "the origin is asked", func() bool { return len(s.Received()) == 1 })
	c.Close()
	if !<-done {
		t.Error("the origin took a part for the whole")
	}
}

func proxyTrailers(t *testing.T) {
	s := take(t, nil)
	f := func(name, te, answer, body, trailer string) {
		t.Helper()
		s.Reset(rig.Always("HTTP/1.1 200 OK\r\n" + answer))
		c := s.dial(t)
		if a := c.Ask("GET", s.in(get+te+"\r\n")); !a.Whole || a.Body != body || a.Trailer != trailer {
			t.Errorf("%s: got %q%q%q", name, a.Head, a.Body, a.Trailer)
		}
		if err := alive(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	const te, chunked = "Connection: TE\r\nTE: trailers\r\n", "Transfer-Encoding: chunked\r\n\r\n"
	f("announced", te, "Trailer: X-A, X-B\r\n"+chunked+"2\r\nok\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n", "ok", "X-A: 1\r\nX-B: 2\r\n")
	f("unannounced", te, chunked+"2\r\nok\r\n0\r\nX-A: 1\r\n\r\n", "ok", "X-A: 1\r\n")
	f("and nothing else", te, chunked+"0\r\nX-A: 1\r\n\r\n", "", "X-A: 1\r\n")
	f("for nobody", "", chunked+"2\r\nok\r\n0\r\nX-A: 1\r\n\r\n", "ok", "")
	f("that are none", te, chunked+"2\r\nok\r\n0\r\nContent-Length: 3\r\nX-Auth-Subject: root\r\nX-A: 1\r\n\r\n", "ok", "X-A: 1\r\n")
}

func proxyInterims(t *testing.T) {
	const first, second = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n"
	s := take(t, rig.Always(first+second+"HTTP/1.1 200 OK\r\nX-Final: 1\r\nContent-Length: 2\r\n\r\nok"))
	a := s.dial(t).Ask("GET", s.in(get+"\r\n"))
	if strings.Join(a.Interims, "") != first+second || strings.Contains(a.Head, "Link") || !strings.Contains(a.Head, "X-Final: 1") {
		t.Errorf("got %q %q", a.Interims, a.Head)
	}
}

func proxyContinue(t *testing.T) {
	s := take(t, nil)
	for _, interim := range []string{"HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100 Continue\r\nX-A: 1\r\n\r\n", "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n"} {
		s.Reset(rig.Always(interim + rig.OK))
		c := s.dial(t)
		a := c.Ask("POST", s.in(post+"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc"))
		if a.Status != 200 || a.Body != "ok" || len(a.Interims) > 1 {
			t.Errorf("%q: got %q %q", interim, a.Interims, a.Head)
		}
		if err := alive(c); err != nil {
			t.Errorf("%q: %v", interim, err)
		}
	}
}

const (
	handshake = "GET /live HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	agreed    = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

func proxyUpgrades(t *testing.T) {
	s := take(t, nil)
	f := func(asked, answered string, want int) {
		t.Helper()
		s.Reset(func(c *rig.Conn) {
			if _, err := c.ReadHead(); err != nil {
				return
			}
			c.Say(fmt.Sprintf(agreed, answered))
			_, _ = io.Copy(c.Conn, c.R)
		})
		c := s.dial(t)
		if a := c.Ask("GET", s.in(fmt.Sprintf(handshake, asked))); a.Status != want {
			t.Errorf("%q, %q: got %q", asked, answered, a.Head)
		}
		if want != 101 {
			return
		}
		// Bytes that look like nothing in particular pass both ways.
		const text = "\x82\x85\x00\x00\x00\x00hello"
		c.Send(text)
		got := make([]byte, len(text))
		if _, err := io.ReadFull(c.R, got); err != nil || string(got) != text {
			t.Errorf("%q came back (%v)", got, err)
		}
	}
	f("websocket", "websocket", 101)
	f("WebSocket", "websocket", 101)
	f("websocket", "WEBSOCKET", 101)
	f("websocket", "other", 502)
	f("other", "other", 502)
	f("h2c", "h2c", 502)
	f("websocket", "websocket, other", 502)
}

// What one side said before it ended reaches the other, and then the end does.
func proxyUpgradeEnds(t *testing.T) {
	const last = "\x88\x82\x00\x00\x00\x00\x03\xe8"
	s := take(t, nil)
	for _, client := range []bool{true, false} {
		heard := make(chan string, 1)
		s.Reset(func(c *rig.Conn) {
			if _, err := c.ReadHead(); err != nil {
				return
			}
			c.Say(fmt.Sprintf(agreed, "websocket"))
			if !client {
				c.Say(last)
				return
			}
			_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
			b, err := io.ReadAll(c.R)
			heard <- fmt.Sprintf("%s%v", b, err)
		})
		c := s.dial(t)
		if a := c.Ask("GET", s.in(fmt.Sprintf(handshake, "websocket"))); a.Status != 101 {
			t.Fatalf("got %q", a.Head)
		}
		if client {
			c.Send(last)
			c.Close()
		} else {
			_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
			b, err := io.ReadAll(c.R)
			heard <- fmt.Sprintf("%s%v", b, err)
		}
		if got := <-heard; got != last+"<nil>" {
			t.Errorf("the client ends: %v: the other side heard %q", client, got)
		}
	}
}

func proxyOldVersions(t *testing.T) {
	s := take(t, rig.Always("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	for _, version := range []string{"HTTP/1.0", "HTTP/1.1"} {
		if a := s.dial(t).Ask("GET", s.in("GET /a "+version+"\r\nHost: {host}\r\n\r\n")); !strings.HasPrefix(a.Head, "HTTP/1.1 200 ") || a.Body != "ok" {
			t.Errorf("%s: got %q%q", version, a.Head, a.Body)
		}
	}
	for _, got := range s.Received() {
		if !strings.HasPrefix(got, "GET /a HTTP/1.1\r\n") {
			t.Errorf("the origin received %q", got)
		}
	}
}
