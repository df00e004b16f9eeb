package edge

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// frames is a connection on which a test speaks HTTP/2 by hand. What it reads
// it must get within rig.Patience.
type frames struct {
	*http2.Framer
	net.Conn
	t     testing.TB
	block bytes.Buffer
	enc   *hpack.Encoder
	next  uint32 // number of the next stream
}

// dialFrames connects and opens the connection (RFC 9113, 3.4).
func dialFrames(t testing.TB, addr string) *frames {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return speakFrames(t, nc)
}

// speakFrames opens an HTTP/2 connection on one that was made already.
func speakFrames(t testing.TB, nc net.Conn) *frames {
	t.Helper()
	c := &frames{Framer: http2.NewFramer(nc, nc), Conn: nc, t: t, next: 1}
	c.enc = hpack.NewEncoder(&c.block)
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.AllowIllegalWrites = true
	c.refresh()
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *frames) refresh() { _ = c.SetDeadline(time.Now().Add(rig.Patience)) }

// encode makes a field block of name, value, name, value, …
func (c *frames) encode(fields []string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(c.block.Bytes())
}

// open begins a request and returns its stream.
func (c *frames) open(fields []string, last bool) uint32 {
	id := c.next
	c.next += 2
	c.refresh()
	block := c.encode(fields)
	first := block[:min(len(block), 16<<10)]
	block = block[len(first):]
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(block) == 0, EndStream: last})
	for len(block) > 0 {
		piece := block[:min(len(block), 16<<10)]
		block = block[len(piece):]
		_ = c.WriteContinuation(id, len(block) == 0, piece)
	}
	return id
}

// send makes a request whose content comes in these pieces.
func (c *frames) send(fields []string, content ...string) uint32 {
	id := c.open(fields, len(content) == 0)
	for i, piece := range content {
		_ = c.WriteData(id, i == len(content)-1, []byte(piece))
	}
	return id
}

// ask makes a request and reads what becomes of it.
func (c *frames) ask(fields []string, content ...string) reply {
	return c.reply(c.send(fields, content...))
}

// reply is what became of a stream.
type reply struct {
	status   int // 0 where no final head came
	head     []hpack.HeaderField
	trailer  []hpack.HeaderField
	interims [][]hpack.HeaderField
	body     string
	whole    bool // it ended with END_STREAM
	sole     bool // that was its first final head
	// ended is what ended it otherwise: the code of RST_STREAM, "GOAWAY" and
	// a code, or "closed".
	ended string
}

// outcome is the status of the answer, or what ended the stream without one.
// Refusals of the frame layer itself are told apart.
func (r reply) outcome() string {
	if r.status == 0 {
		return r.ended
	}
	if kind, _ := r.field("content-type"); kind == "text/plain; charset=utf-8" && r.status >= 400 {
		return fmt.Sprint(r.status, " in plain text")
	}
	return fmt.Sprint(r.status)
}

// field is the value of the first field of that name.
func (r reply) field(name string) (value string, ok bool) { return lookUp(r.head, name) }

func lookUp(fields []hpack.HeaderField, name string) (value string, ok bool) {
	i := slices.IndexFunc(fields, func(f hpack.HeaderField) bool { return f.Name == name })
	if i < 0 {
		return "", false
	}
	return fields[i].Value, true
}

// frame returns the next frame of a stream, and gives back what content takes
// of the windows; nil is the end, whose kind it tells.
func (c *frames) frame(stream uint32) (http2.Frame, string) {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return nil, "closed"
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return nil, "GOAWAY " + f.ErrCode.String()
			}
			continue
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
			continue
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = c.WritePing(true, f.Data)
			}
			continue
		case *http2.DataFrame:
			if n := uint32(len(f.Data())); n > 0 {
				_ = c.WriteWindowUpdate(0, n)
				if !f.StreamEnded() {
					_ = c.WriteWindowUpdate(f.StreamID, n)
				}
			}
		}
		if f.Header().StreamID == stream {
			return f, ""
		}
	}
}

// reply reads until the stream's end.
func (c *frames) reply(stream uint32) (r reply) {
	c.refresh()
	var body strings.Builder
	defer func() { r.body = body.String() }()
	for {
		f, end := c.frame(stream)
		switch f := f.(type) {
		case nil:
			r.ended = end
			return r
		case *http2.MetaHeadersFrame:
			status := f.PseudoValue("status")
			switch {
			case strings.HasPrefix(status, "1"):
				r.interims = append(r.interims, f.Fields)
			case r.status == 0:
				_, _ = fmt.Sscan(status, &r.status)
				r.head, r.sole = f.Fields, f.StreamEnded()
			default:
				r.trailer = f.Fields
			}
			r.whole = f.StreamEnded()
		case *http2.DataFrame:
			body.Write(f.Data())
			r.whole = f.StreamEnded()
		case *http2.RSTStreamFrame:
			r.ended = f.ErrCode.String()
			return r
		}
		if r.whole {
			return r
		}
	}
}

// message makes the fields of a request for {host}: a GET of /a, changed by
// name, value, name, value…; a pseudo-header field takes the place of its
// namesake, with the value "-" it goes away, and all others follow.
func message(changes ...string) []string {
	fields := []string{":method", "GET", ":scheme", "http", ":authority", "{host}", ":path", "/a"}
	for i := 0; i < len(changes); i += 2 {
		at := -1
		if strings.HasPrefix(changes[i], ":") {
			at = slices.Index(fields, changes[i])
		}
		switch {
		case at < 0:
			fields = append(fields, changes[i], changes[i+1])
		case changes[i+1] == "-":
			fields = slices.Delete(fields, at, at+2)
		default:
			fields[at+1] = changes[i+1]
		}
	}
	return fields
}

// fields puts the slot's host in the place of {host}.
func (s *slot) fields(m []string) []string {
	m = slices.Clone(m)
	for i := range m {
		m[i] = s.in(m[i])
	}
	return m
}

// frames connects to the shared gateway's listener for HTTP/2.
func (s *slot) frames(t *testing.T) *frames {
	t.Helper()
	return dialFrames(t, s.gw.Extra[0])
}

// alive tells whether the connection carries another request.
func (c *frames) alive() error {
	r := c.ask(message(":authority", "fate.test", ":path", "/alive"))
	if r.status != 200 || r.body != "ok" || !r.whole {
		return fmt.Errorf("another request on the connection: %s %q", r.outcome(), r.body)
	}
	return nil
}

// refused2 promises: the request ends in one of the outcomes, nothing of it
// reaches an origin, and the connection carries another request unless its own
// end was wanted.
func refused2(t *testing.T, name string, m []string, content []string, outcomes ...string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.frames(t)
		r := c.ask(s.fields(m), content...)
		got := r.outcome()
		if !slices.Contains(outcomes, got) {
			t.Errorf("%q: got %s %q, want %v", s.fields(m), got, r.body, outcomes)
		}
		if got != "closed" && !strings.HasPrefix(got, "GOAWAY") {
			if err := c.alive(); err != nil {
				t.Errorf("%q: %v", s.fields(m), err)
			}
		}
		if got := s.Received(); len(got) > 0 {
			t.Errorf("%q: the origin received %q", s.fields(m), got)
		}
		if got == fmt.Sprint(r.status) {
			noEcho(t, s, r.answer())
		}
	})
}

// answer shows a reply as an answer over HTTP/1.1 that says the same.
func (r reply) answer() rig.Answer {
	head := fmt.Sprintf("HTTP/1.1 %d \r\n", r.status)
	for _, f := range r.head[min(1, len(r.head)):] {
		head += f.Name + ": " + f.Value + "\r\n"
	}
	return rig.Answer{Status: r.status, Head: head + "\r\n", Body: r.body, Whole: r.whole}
}

// passed2 promises: the request is answered with 200, the origin received
// exactly what is wanted besides the lines that the gateway adds, over
// HTTP/1.1, and the connection stays.
func passed2(t *testing.T, name string, m []string, content []string, want string) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.frames(t)
		if r := c.ask(s.fields(m), content...); r.status != 200 || !r.whole {
			t.Errorf("%q: got %s %q", s.fields(m), r.outcome(), r.body)
		}
		if err := c.alive(); err != nil {
			t.Errorf("%q: %v", s.fields(m), err)
		}
		if got := rig.Strip(strings.Join(s.Received(), "<new connection>")); got != s.in(want) {
			t.Errorf("%q: the origin received\n%q, want\n%q", s.fields(m), got, s.in(want))
		}
	})
}
