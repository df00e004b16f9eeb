package edge

import (
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// exchange is one cell of the framing matrix: how a request is made, and how
// the origin answers it.
type exchange struct {
	method   string
	sends    string // how the request's content is framed: none, length, chunked
	client10 bool   // the client speaks HTTP/1.0
	keep     bool   // the client wants to keep the connection
	origin10 bool
	close    bool // the origin says Connection: close
	status   int
	framing  string // length, chunked, close, none
	interim  string // names of interim answers before the final one
	content  string
}

var interims = map[string]string{
	"":         "",
	"100":      "HTTP/1.1 100 Continue\r\n\r\n",
	"103":      "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
	"102, 103": "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
}

// bodiless: answers that end with their head, whatever fields say (RFC 9112,
// 6.3, rule 1).
func (e *exchange) bodiless() bool {
	return e.method == "HEAD" || e.status == 204 || e.status == 304
}

// possible leaves out what no origin may say: chunked in HTTP/1.0 (refused: see
// S43), and content that nothing delimits on a connection that stays; and what no
// client may say: chunked in HTTP/1.0 (S05), and there content with methods other
// than POST and PUT (S17).
func (e *exchange) possible() bool {
	switch {
	case e.client10 && e.sends == "chunked", e.client10 && e.sends == "length" && e.method != "POST" && e.method != "PUT":
		return false
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
	switch e.sends {
	case "length":
		field += "Content-Length: 3\r\n"
		content = "abc"
	case "chunked":
		field += "Transfer-Encoding: chunked\r\n"
		content = "3\r\nabc\r\n0\r\n\r\n"
	}
	return fmt.Sprintf("%s /a %s\r\nHost: %s\r\n%s\r\n%s", e.method, version, host, field, content)
}

// answer is what the origin says on the connection of that number; ends tells
// that it closes afterwards.
func (e *exchange) answer(connection int64) (text string, ends bool) {
	var b strings.Builder
	b.WriteString(interims[e.interim])
	version := "HTTP/1.1"
	if e.origin10 {
		version = "HTTP/1.0"
	}
	fmt.Fprintf(&b, "%s %d Status\r\nX-Connection: %d\r\n", version, e.status, connection)
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

// TestFramingMatrix runs every combination of method, content of the request,
// versions and wishes of both sides, status, framing and interim answers against
// a scripted origin. What has to come out is computed from RFC 9112, section 6.
func TestFramingMatrix(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"} {
		for _, status := range []int{200, 201, 204, 206, 301, 304, 400, 404, 416, 500, 503} {
			t.Run(fmt.Sprintf("%s %d", method, status), func(t *testing.T) {
				t.Parallel()
				m := matrix{slot: take(t, nil)}
				m.Reset(m.script)
				n := 0
				for e := range exchanges(method, status) {
					m.run(t, e)
					n++
				}
				if n < 300 {
					t.Errorf("only %d exchanges", n)
				}
			})
		}
	}
}

// exchanges yields all that are possible, each with one of three contents.
func exchanges(method string, status int) iter.Seq[*exchange] {
	contents := []string{"", "content", strings.Repeat("much ", 4<<10)}
	return func(yield func(*exchange) bool) {
		n := 0
		for bits := range 16 {
			for _, sends := range []string{"none", "length", "chunked"} {
				for _, framing := range []string{"length", "chunked", "close", "none"} {
					for interim := range interims {
						e := &exchange{method: method, sends: sends, status: status, framing: framing, interim: interim, content: contents[n%len(contents)],
							client10: bits&1 != 0, keep: bits&2 != 0, origin10: bits&4 != 0, close: bits&8 != 0}
						if !e.possible() {
							continue
						}
						n++
						if !yield(e) {
							return
						}
					}
				}
			}
		}
	}
}

// matrix is where exchanges are run, one after the other.
type matrix struct {
	*slot
	now  atomic.Pointer[exchange]
	last *exchange
	// client is the connection that the last exchange left open, nil if none;
	// connection the number of the one on which the origin answered it.
	client     *rig.Client
	connection string
	opened     atomic.Int64
}

func (m *matrix) script(c *rig.Conn) {
	number := m.opened.Add(1)
	for {
		request, err := c.ReadRequest()
		if err != nil {
			return
		}
		e := m.now.Load()
		if sent := e.sends != "none"; sent != (request.Body == "abc") || !sent && request.Body != "" {
			c.Say("HTTP/1.1 599 Other content\r\nContent-Length: 0\r\n\r\n")
			return
		}
		text, ends := e.answer(number)
		c.Say(text)
		if ends {
			return
		}
	}
}

func (m *matrix) run(t *testing.T, e *exchange) {
	t.Helper()
	m.now.Store(e)
	c := m.client
	if c == nil {
		c = m.dial(t)
	}
	a := c.Ask(e.method, e.request(m.host))
	fail := func(format string, args ...any) {
		t.Helper()
		short := *e
		short.content = fmt.Sprint(len(e.content), " bytes")
		t.Errorf("%s\n%+v\n%q\n%q\nbehind %q", fmt.Sprintf(format, args...), short, e.request(m.host), a.Head, m.before())
	}
	e.compare(a, fail)
	if connection, ok := a.Field("X-Connection"); ok && m.last != nil && (connection == m.connection) != m.last.wantReuse() {
		fail("the origin's connection was used again: %v", connection == m.connection)
	}
	m.connection, _ = a.Field("X-Connection")
	m.last, m.client = e, c
	if !e.wantOpen() || a.Err != nil {
		if err := ended(c); err != nil {
			fail("the client's connection: %v", err)
		}
		c.Close()
		m.client = nil
	}
}

// before is what the connection at hand was used for before, if it was.
func (m *matrix) before() string {
	if m.client == nil {
		return ""
	}
	return m.last.request(m.host)
}

// compare tells fail what is wrong with a.
func (e *exchange) compare(a rig.Answer, fail func(format string, args ...any)) {
	want := e.content
	if e.bodiless() {
		want = ""
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
	passing := 0
	if strings.Contains(e.interim, "103") && !e.client10 {
		passing = 1
	}
	if len(a.Interims) != passing {
		fail("interims: %q", a.Interims)
	}
}
