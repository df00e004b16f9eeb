package edge

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// badGateway2 promises what badGateway does.
func badGateway2(t *testing.T, name, answer string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := take(t, rig.Always(answer))
		c := s.frames(t)
		for i := range 2 {
			r := c.ask(s.fields(message()))
			if r.status != 502 || !r.whole || !strings.Contains(r.body, `"upstream_`) || s.Connections() != i+1 {
				t.Errorf("%q: got %s %q over %d connections", answer, r.outcome(), r.body, s.Connections())
			}
			noEcho(t, s, r.answer())
		}
		if err := c.alive(); err != nil {
			t.Errorf("%q: %v", answer, err)
		}
	})
}

func http2StrictAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, rest := range map[string]string{
		"length twice":           "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"length and coding":      "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"signed length":          "Content-Length: +2\r\n\r\nok",
		"unknown coding":         "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"NUL":                    "X-A: a\x00b\r\nContent-Length: 2\r\n\r\nok",
		"carriage return":        "X-A: a\rb\r\nContent-Length: 2\r\n\r\nok",
		"line feed":              "X-A: a\nX-B: b\r\nContent-Length: 2\r\n\r\nok",
		"folded":                 "X-A: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
		"blank before the colon": "Content-Length : 2\r\n\r\nok",
		"a pseudo-header field":  ":status: 204\r\nContent-Length: 2\r\n\r\nok",
		"endless head":           "X-A: " + strings.Repeat("a", 80<<10) + "\r\n\r\n",
	} {
		badGateway2(t, name, ok+rest)
	}
	for _, line := range []string{"HTTP/2.0 200 OK", "HTTP/1.1 099 OK", "ICY 200 OK", ""} {
		badGateway2(t, fmt.Sprintf("status line %q", line), line+"\r\nContent-Length: 2\r\n\r\nok")
	}
	t.Run("fields of one connection do not travel", func(t *testing.T) {
		t.Parallel()
		s := take(t, rig.Always(ok+"Connection: keep-alive, X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nUpgrade: h2c\r\nTE: trailers\r\nX-Auth-Subject: root\r\nX-B: 1\r\nContent-Length: 2\r\n\r\nok"))
		c := s.frames(t)
		r := c.ask(s.fields(message()))
		for _, f := range r.head {
			if !slices.Contains([]string{":status", "x-b", "content-length", "date"}, f.Name) {
				t.Errorf("the client got %v", f)
			}
		}
		if v, _ := r.field("x-b"); v != "1" || r.body != "ok" {
			t.Errorf("got %s %v %q", r.outcome(), r.head, r.body)
		}
	})
}

func http2Reuse(t *testing.T) {
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
					if !strings.Contains(answer, "Content-Length") {
						return
					}
				}
			})
			c := s.frames(t)
			for range 2 {
				if r := c.ask(s.fields(message())); r.status != 200 || r.body != "ok" {
					t.Errorf("got %s %q", r.outcome(), r.body)
				}
			}
			if got := s.Connections(); got != want {
				t.Errorf("%d connections, want %d", got, want)
			}
		})
	}
	f("kept", rig.OK, 1)
	f("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 2)
	f("Connection: close", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", 2)
	f("ended by its end", "HTTP/1.1 200 OK\r\n\r\nok", 2)
	f("more than the answer", rig.OK+"x", 2)
	t.Run("reset by the client", func(t *testing.T) {
		t.Parallel()
		asked, gone := make(chan struct{}, 4), make(chan bool, 4)
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				asked <- struct{}{}
				gone <- c.Gone()
			}
		})
		before := s.gw.Metric(t, "gateway_refusals_total", `reason="client_gone"`)
		c := s.frames(t)
		id := c.send(s.fields(message()))
		<-asked
		_ = c.WriteRSTStream(id, http2.ErrCodeCancel)
		if !<-gone {
			t.Error("the connection to the origin stays open")
		}
		if err := c.alive(); err != nil {
			t.Error(err)
		}
		rig.Eventually(t, "it is counted as 499", func() bool {
			return s.gw.Metric(t, "gateway_refusals_total", `reason="client_gone"`) > before
		})
	})
}

func http2CutAnswers(t *testing.T) {
	f := func(name, answer, want string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				if _, err := c.ReadRequest(); err == nil {
					c.Say(answer)
				}
			})
			c := s.frames(t)
			if r := c.ask(s.fields(message())); r.status != 200 || r.whole || r.ended == "" || !strings.HasPrefix(want, r.body) {
				t.Errorf("got %s %d bytes, whole: %v, %s", r.outcome(), len(r.body), r.whole, r.ended)
			}
			if err := c.alive(); err != nil {
				t.Error(err)
			}
		})
	}
	f("length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "abc")
	f("nothing of a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", "")
	f("chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "abc")
	f("within a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", "abc")
	f("within the last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", "abc")
	f("a long one", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("a", 200000), strings.Repeat("a", 200000))
}

func http2Refusals(t *testing.T) {
	secret := []string{"authorization", "Bearer secret", "cookie", "secret=1", "x-secret", "secret"}
	f := func(name string, want int, changes ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) { _, _ = c.ReadRequest() }) // closes without an answer
			r := s.frames(t).ask(s.fields(append(message(changes...), secret...)))
			if r.status != want {
				t.Errorf("got %s %q", r.outcome(), r.body)
			}
			noEcho(t, s, r.answer())
			if id, _ := r.field("x-request-id"); id == "" || !strings.Contains(r.body, id) {
				t.Errorf("the refusal cannot be found in the log: %v %q", r.head, r.body)
			}
		})
	}
	f("malformed", 400, ":path", "/secret%00")
	f("bad token", 401, ":path", "/admin/secret")
	f("wrong method", 405, ":method", "CONNECT", ":scheme", "-", ":path", "-", ":authority", "secret:443")
	f("expectation", 417, ":method", "POST", "expect", "secret")
	f("header too large", 431, "x-a", strings.Repeat("a", 20<<10))
	f("the origin closes", 502, ":path", "/secret")
	f("nobody listens", 502, ":authority", "nobody.test", ":path", "/secret")
}

func http2Caches(t *testing.T) {
	t.Parallel()
	fields := []string{"vary", "Authorization, Accept", "cache-control", "private, max-age=5", "etag", `"a"`, "age", "7", "via", "1.1 other", "server", "origin/1.0", "accept-ranges", "bytes"}
	head := ""
	for i := 0; i < len(fields); i += 2 {
		head += fields[i] + ": " + fields[i+1] + "\r\n"
	}
	s := take(t, rig.Always("HTTP/1.1 200 OK\r\n"+head+"Content-Length: 2\r\n\r\nok"))
	r := s.frames(t).ask(s.fields(message("authorization", "Bearer a", "if-none-match", `"a"`, "range", "bytes=0-1", "via", "1.0 first")))
	for i := 0; i < len(fields); i += 2 {
		if v, _ := r.field(fields[i]); v != fields[i+1] {
			t.Errorf("%s: %q", fields[i], v)
		}
	}
	if got, want := rig.Strip(strings.Join(s.Received(), "")), s.in(get+"Authorization: Bearer a\r\nIf-None-Match: \"a\"\r\nRange: bytes=0-1\r\nVia: 1.0 first\r\n\r\n"); got != want {
		t.Errorf("the origin received %q", got)
	}
}
