package edge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// answered has the origin answer one request with answer and close, and returns
// what the client gets for GET path. The connection to the origin must end
// where the answer says so or was not understood.
func answered(t *testing.T, s *slot, path, answer string) (rig.Answer, *rig.Client) {
	t.Helper()
	s.Reset(rig.Always(answer))
	c := s.dial(t)
	return c.Ask("GET", s.in("GET "+path+" HTTP/1.1\r\nHost: {host}\r\n\r\n")), c
}

// badGateway promises: the origin's answer is not passed on but becomes a 502,
// the connection to the origin ends, and the client's stays.
func badGateway(t *testing.T, name, answer string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		a, c := answered(t, s, "/a", answer)
		if a.Status != 502 || !a.Whole || !strings.Contains(a.Body, `"upstream_`) {
			t.Errorf("%q: got %q%q (%v)", answer, a.Head, a.Body, a.Err)
		}
		noEcho(t, s, a)
		if err := alive(c); err != nil {
			t.Errorf("%q: %v", answer, err)
		}
		if a := c.Ask("GET", s.in("GET /b HTTP/1.1\r\nHost: {host}\r\n\r\n")); a.Status != 502 || s.Connections() != 2 {
			t.Errorf("%q: the connection was used again (%d): %q", answer, s.Connections(), a.Head)
		}
	})
}

func TestS43_AnswersAreReadStrictly(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	f := func(name, rest string) {
		t.Helper()
		badGateway(t, name, ok+rest)
	}
	f("length twice", "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok")
	f("two lengths", "Content-Length: 2\r\nContent-Length: 3\r\n\r\nok")
	f("list of lengths", "Content-Length: 2, 2\r\n\r\nok")
	f("signed length", "Content-Length: +2\r\n\r\nok")
	f("empty length", "Content-Length:\r\n\r\nok")
	f("overflow", "Content-Length: 99999999999999999999\r\n\r\nok")
	f("length and coding", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	f("unknown coding", "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	f("coding identity", "Transfer-Encoding: identity\r\n\r\nok")
	f("coding twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	f("NUL", "X-A: a\x00b\r\nContent-Length: 2\r\n\r\nok")
	f("carriage return", "X-A: a\rb\r\nContent-Length: 2\r\n\r\nok")
	f("other controls", "X-A: a\x1bb\r\nContent-Length: 2\r\n\r\nok")
	f("line feed", "X-A: a\nX-B: b\r\nContent-Length: 2\r\n\r\nok")
	f("only line feeds", "X-A: a\nContent-Length: 2\n\nok")
	f("folded", "X-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok")
	f("blank before the colon", "Content-Length : 2\r\n\r\nok")
	f("blank in a name", "X A: 1\r\nContent-Length: 2\r\n\r\nok")
	f("no colon", "XA\r\nContent-Length: 2\r\n\r\nok")
	f("no name", ": 1\r\nContent-Length: 2\r\n\r\nok")
	f("endless head", "X-A: "+strings.Repeat("a", 80<<10)+"\r\n\r\n")
	badGateway(t, "coding in HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
	for _, line := range []string{"HTTP/2.0 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 20 OK", "HTTP/1.1 099 OK", "HTTP/1.1 999 OK", "HTTP/1.1  200 OK", "HTTP/1.1 200OK", "HTTP/1.1 abc OK", "http/1.1 200 OK", "ICY 200 OK", "HTTP/1.1 200 O\x00K", "200 OK", ""} {
		badGateway(t, fmt.Sprintf("status line %q", line), line+"\r\nContent-Length: 2\r\n\r\nok")
	}
	badGateway(t, "something else", "220 smtp.test ESMTP\r\n\r\n")

	t.Run("fields of one connection do not travel", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		a, c := answered(t, s, "/a", ok+"Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nTE: trailers\r\nTrailer: X-T\r\nX-Auth-Subject: root\r\nX-B: 1\r\nContent-Length: 2\r\n\r\nok")
		lower := strings.ToLower(a.Head)
		for _, name := range []string{"secret", "keep-alive", "proxy-", "upgrade", "\r\nte:", "trailer", "root"} {
			if strings.Contains(lower, name) {
				t.Errorf("the client got %q: %q", name, a.Head)
			}
		}
		if v, _ := a.Field("X-B"); a.Status != 200 || v != "1" || a.Body != "ok" {
			t.Errorf("got %q%q", a.Head, a.Body)
		}
		if err := alive(c); err != nil {
			t.Error(err)
		}
	})
	t.Run("a broken chunk ends the answer", func(t *testing.T) {
		t.Parallel()
		for _, chunks := range []string{"2\r\nokk\r\n0\r\n\r\n", "0x2\r\nok\r\n0\r\n\r\n", "2\nok\r\n0\r\n\r\n", "2\r\nok\n0\r\n\r\n", "2;" + strings.Repeat("a", 70) + "\r\nok\r\n0\r\n\r\n", "2\r\nok\r\n0\r\nX A: 1\r\n\r\n", "2\r\nok\r\n0\n\n"} {
			s := take(t, nil)
			a, c := answered(t, s, "/a", ok+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"+chunks)
			if a.Whole && a.Status == 200 {
				t.Errorf("%q: a whole answer %q%q", chunks, a.Head, a.Body)
			}
			if a.Status == 200 {
				if err := ended(c); err != nil {
					t.Errorf("%q: %v", chunks, err)
				}
			}
		}
	})
}

func TestS44_ConnectionsThatCannotBeUsedAgain(t *testing.T) {
	// f has two requests answered and wants that many connections for them.
	f := func(name, answer string, want int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				for {
					if _, err := c.ReadRequest(); err != nil {
						return
					}
					c.Say(answer)
					if !strings.Contains(answer, "Content-Length") && !strings.Contains(answer, "chunked") && strings.Contains(answer, "200 OK") {
						return // delimited by the end of the connection
					}
				}
			})
			for range 2 {
				if a := s.get(t, "/a"); strings.Contains(answer, " 200 ") && (a.Status != 200 || a.Body != "ok") {
					t.Errorf("got %q%q", a.Head, a.Body)
				}
			}
			if got := s.Connections(); got != want {
				t.Errorf("%d connections, want %d", got, want)
			}
		})
	}
	f("kept", rig.OK, 1)
	f("kept, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 1)
	f("kept, HTTP/1.0 that says so", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", 1)
	f("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2)
	f("Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 2)
	f("Connection: close among others", "HTTP/1.1 200 OK\r\nConnection: x-a, CLOSE\r\nContent-Length: 2\r\n\r\nok", 2)
	f("ended by its end", "HTTP/1.1 200 OK\r\n\r\nok", 2)
	f("101", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 2)
	f("more than the answer", rig.OK+"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", 2)
	f("a byte more than the answer", rig.OK+"x", 2)
	f("an empty line more", rig.OK+"\r\n", 2)
	t.Run("timed out", func(t *testing.T) {
		t.Parallel()
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			if !c.Gone() {
				t.Error("the connection stays open")
			}
		})
		if a := s.get(t, "/brisk"); a.Status != 504 {
			t.Errorf("got %q", a.Head)
		}
		s.get(t, "/brisk")
		if got := s.Connections(); got != 2 {
			t.Errorf("%d connections", got)
		}
	})
	t.Run("left by the client", func(t *testing.T) {
		t.Parallel()
		gone := make(chan bool, 2)
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			c.Say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nabc")
			gone <- c.Gone()
		})
		c := s.dial(t)
		c.Send(s.in(get + "\r\n"))
		if head, err := c.R.ReadString('\n'); err != nil || !strings.Contains(head, "200") {
			t.Fatal(head, err)
		}
		c.Close()
		if !<-gone {
			t.Error("the connection to the origin stays open")
		}
	})
	t.Run("closed by the origin meanwhile", func(t *testing.T) {
		t.Parallel()
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				c.Say(rig.OK)
			}
		})
		for i := range 5 {
			a := s.dial(t).Ask("POST", s.in(post+"Content-Length: 3\r\n\r\nabc"))
			if a.Status != 200 {
				t.Errorf("request %d: %q", i, a.Head)
			}
		}
	})
}

func TestS45_PartsAreNotTakenForTheWhole(t *testing.T) {
	f := func(name, answer, wantBody string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err == nil {
					c.Say(answer)
				}
			})
			c := s.dial(t)
			a := c.Ask("GET", s.in(get+"\r\n"))
			if a.Status != 200 || a.Whole || a.Body != wantBody {
				t.Errorf("got %q%q, whole: %v", a.Head, a.Body, a.Whole)
			}
			if err := ended(c); err != nil {
				t.Error(err)
			}
		})
	}
	f("length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "abc")
	f("nothing of a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "")
	f("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "abc")
	f("within a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", "abc")
	f("before the first chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "")
	f("within the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "abc")
	f("a long one", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("a", 200000), strings.Repeat("a", 200000))
	t.Run("HTTP/1.0 client", func(t *testing.T) {
		t.Parallel()
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				c.Say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
			}
		})
		c := s.dial(t)
		if a := c.Ask("GET", s.in("GET /a HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n")); a.Whole {
			t.Errorf("got %q%q", a.Head, a.Body)
		}
		if err := ended(c); err != nil {
			t.Error(err)
		}
	})
	t.Run("the origin falls silent", func(t *testing.T) {
		t.Parallel()
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				c.Say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
				c.Gone()
			}
		})
		c := s.dial(t)
		if a := c.Ask("GET", s.in("GET /brisk HTTP/1.1\r\nHost: {host}\r\n\r\n")); a.Whole || a.Status != 200 || a.Body != "abc" {
			t.Errorf("got %q%q %v", a.Head, a.Body, a.Err)
		}
		if err := ended(c); err != nil {
			t.Error(err)
		}
	})
}

func TestS46_RefusalsSayNothingAboutTheInside(t *testing.T) {
	const secret = "Authorization: Bearer secret\r\nCookie: secret=1\r\nX-Secret: secret\r\n"
	f := func(name, raw string, want int) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) { _, _ = c.ReadRequest() }) // closes without an answer
			a := s.dial(t).Ask(method(raw), s.in(raw))
			if a.Status != want {
				t.Errorf("got %q%q", a.Head, a.Body)
			}
			noEcho(t, s, a)
			if id, _ := a.Field("X-Request-Id"); id == "" || !strings.Contains(a.Body, id) {
				t.Errorf("the refusal cannot be found in the log: %q%q", a.Head, a.Body)
			}
		})
	}
	f("malformed", "GET /secret HTTP/1.1\r\nHost: {host}\r\n"+secret+"X A: 1\r\n\r\n", 400)
	f("no token", "GET /admin/secret HTTP/1.1\r\nHost: {host}\r\nCookie: secret=1\r\n\r\n", 401)
	f("bad token", "GET /admin/secret HTTP/1.1\r\nHost: {host}\r\n"+secret+"\r\n", 401)
	f("wrong method", "CONNECT secret:443 HTTP/1.1\r\nHost: {host}\r\n"+secret+"\r\n", 405)
	f("version", "GET /secret HTTP/1.2\r\nHost: {host}\r\n"+secret+"\r\n", 505)
	f("expectation", "POST /secret HTTP/1.1\r\nHost: {host}\r\nExpect: secret\r\n"+secret+"\r\n", 417)
	f("header too large", "GET /secret HTTP/1.1\r\nHost: {host}\r\n"+secret+"X-A: "+strings.Repeat("a", 20<<10)+"\r\n\r\n", 431)
	f("the origin closes", "GET /secret HTTP/1.1\r\nHost: {host}\r\n"+secret+"\r\n", 502)
	f("nobody listens", "GET /secret HTTP/1.1\r\nHost: nobody.test\r\n"+secret+"\r\n", 502)
}

func TestS47_WhatCachesReadPasses(t *testing.T) {
	t.Parallel()
	const fields = "Vary: Authorization, Accept\r\nCache-Control: private, max-age=5\r\nETag: \"a\"\r\nAge: 7\r\nVia: 1.1 other\r\nServer: origin/1.0\r\nWarning: 110 - \"stale\"\r\nAccept-Ranges: bytes\r\n"
	s := take(t, nil)
	a, _ := answered(t, s, "/a", "HTTP/1.1 200 OK\r\n"+fields+"Content-Length: 2\r\n\r\nok")
	if !strings.Contains(a.Head, fields) {
		t.Errorf("got %q", a.Head)
	}
	s.Reset(rig.Always(rig.OK))
	s.dial(t).Ask("GET", s.in(get+"Authorization: Bearer a\r\nIf-None-Match: \"a\"\r\nRange: bytes=0-1\r\nVia: 1.0 first\r\n\r\n"))
	if got, want := rig.Strip(strings.Join(s.Received(), "")), s.in(get+"Authorization: Bearer a\r\nIf-None-Match: \"a\"\r\nRange: bytes=0-1\r\nVia: 1.0 first\r\n\r\n"); got != want {
		t.Errorf("the origin received %q", got)
	}
}
