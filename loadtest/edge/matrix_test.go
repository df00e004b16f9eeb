package edge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// exchange is one cell of the framing matrix: how a request is made, and how
// the origin answers it.
type exchange struct {
	method   string
	client10 bool // the client speaks HTTP/1.0
	keep     bool // the client wants to keep the connection
	origin10 bool
	close    bool // the origin says Connection: close
	status   int
	framing  string // length, chunked, close, none
	interim  string
	content  string
}

// bodiless: answers that end with their head, whatever fields say (RFC 9112,
// 6.3, rule 1).
func (e *exchange) bodiless() bool {
	return e.method == "HEAD" || e.status == 204 || e.status == 304
}

// possible leaves out what no origin may say: chunked in HTTP/1.0 (refused: see
// S43), and content that nothing delimits on a connection that stays.
func (e *exchange) possible() bool {
	switch {
	case e.framing == "chunked" && e.origin10:
		return false
	case e.framing == "none" && !e.bodiless():
		return false
	}
	return true
}

func (e *exchange) request(host string) string {
	version, field := "HTTP/1.1", ""
	if e.client10 {
		version = "HTTP/1.0"
	}
	switch {
	case e.client10 && e.keep:
		field = "Connection: keep-alive\r\n"
	case !e.client10 && !e.keep:
		field = "Connection: close\r\n"
	}
	content := ""
	if e.method == "POST" || e.method == "PUT" {
		field += "Content-Length: 3\r\n"
		content = "abc"
	}
	return fmt.Sprintf("%s /a %s\r\nHost: %s\r\n%s\r\n%s", e.method, version, host, field, content)
}

// answer is what the origin says; ends tells that it closes afterwards.
func (e *exchange) answer() (text string, ends bool) {
	var b strings.Builder
	b.WriteString(e.interim)
	version := "HTTP/1.1"
	if e.origin10 {
		version = "HTTP/1.0"
	}
	fmt.Fprintf(&b, "%s %d Status\r\n", version, e.status)
	if e.close {
		b.WriteString("Connection: close\r\n")
	} else if e.origin10 {
		b.WriteString("Connection: keep-alive\r\n")
	}
	content := e.content
	switch e.framing {
	case "length":
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(content))
	case "chunked":
		b.WriteString("Transfer-Encoding: chunked\r\n")
		content = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(content), content)
		if e.content == "" {
			content = "0\r\n\r\n"
		}
	}
	b.WriteString("\r\n")
	if !e.bodiless() {
		b.WriteString(content)
	}
	return b.String(), e.close || e.framing == "close" && !e.bodiless()
}

// wantOpen is what becomes of the client's connection: it stays if the client
// wants that and the end of the content can be told without closing (RFC 9112,
// 9.3 and 6.3).
func (e *exchange) wantOpen() bool {
	delimited := e.bodiless() || e.framing == "length" || !e.client10 // else the gateway chunks
	return e.keep && delimited
}

// wantReuse is what becomes of the origin's connection.
func (e *exchange) wantReuse() bool {
	return !e.close && (e.bodiless() || e.framing == "length" || e.framing == "chunked")
}

// TestFramingMatrix runs every combination against a scripted origin. What has
// to come out is computed from RFC 9112, section 6.
func TestFramingMatrix(t *testing.T) {
	interims := map[string]string{"": "", "100": "HTTP/1.1 100 Continue\r\n\r\n", "103": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"}
	for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
		for _, status := range []int{200, 204, 304, 404, 500} {
			t.Run(fmt.Sprintf("%s %d", method, status), func(t *testing.T) {
				t.Parallel()
				s := take(t, nil)
				n := 0
				for bits := range 16 {
					for _, framing := range []string{"length", "chunked", "close", "none"} {
						for _, content := range []string{"", "content", strings.Repeat("much ", 20<<10)} {
							for name, interim := range interims {
								if name != "" && (bits%5 != 0 || len(content) > 100) || len(content) > 100 && bits%3 != 0 {
									continue // a sample of these
								}
								e := &exchange{method: method, status: status, framing: framing, content: content, interim: interim,
									client10: bits&1 != 0, keep: bits&2 != 0, origin10: bits&4 != 0, close: bits&8 != 0}
								if e.possible() {
									e.run(t, s)
									n++
								}
							}
						}
					}
				}
				if n < 40 {
					t.Errorf("only %d exchanges", n)
				}
			})
		}
	}
}

func (e *exchange) run(t *testing.T, s *slot) {
	t.Helper()
	answer, ends := e.answer()
	s.Reset(func(c *rig.Conn) {
		for {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			c.Say(answer)
			if ends {
				return
			}
		}
	})
	c := s.dial(t)
	defer c.Close()
	a := c.Ask(e.method, e.request(s.host))
	want := e.content
	if e.bodiless() {
		want = ""
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s\n%+v\n%q\n%q", fmt.Sprintf(format, args...), *e, e.request(s.host), a.Head)
	}
	if len(e.content) > 100 {
		defer func(all string) { e.content = all }(e.content)
	}
	if a.Status != e.status || !a.Whole || a.Body != want {
		fail("got %d, %d bytes, whole %v (%v)", a.Status, len(a.Body), a.Whole, a.Err)
		return
	}
	length, hasLength := a.Field("Content-Length")
	_, chunked := a.Field("Transfer-Encoding")
	switch {
	case hasLength && chunked:
		fail("two framings")
	case e.bodiless() && chunked, e.status == 204 && hasLength && e.framing != "length":
		fail("an answer without content says how long it is")
	case e.client10 && chunked:
		fail("HTTP/1.0 does not know chunks")
	case e.framing == "length" && length != fmt.Sprint(len(e.content)):
		fail("the length became %q", length)
	case !e.bodiless() && e.framing != "length" && chunked == e.client10:
		fail("chunked: %v", chunked)
	}
	if passes := strings.Contains(e.interim, "103") && !e.client10; passes != (len(a.Interims) > 0) {
		fail("interims: %q", a.Interims)
	}
	err := ended
	if e.wantOpen() {
		err = alive
	}
	if err := err(c); err != nil {
		fail("the client's connection: %v", err)
	}
	before := s.Connections()
	again := s.dial(t)
	defer again.Close()
	if a := again.Ask(e.method, e.request(s.host)); a.Status != e.status {
		fail("asked again: %q", a.Head)
	}
	if reused := s.Connections() == before; reused != e.wantReuse() {
		fail("the origin's connection was used again: %v", reused)
	}
}
