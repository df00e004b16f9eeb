package edge

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// overHTTP2 are the rows of the request matrix that mean something over
// HTTP/2, as RFC 9113 has it.
var overHTTP2 = map[string]func(*testing.T){
	"S01": http2LengthAndCoding, "S02": http2Lengths, "S03": http2Codings, "S04": http2Identity,
	"S06": http2Names, "S07": http2Underscores, "S08": http2BlankNames, "S09": http2Folded, "S10": http2LineFeeds,
	"S11": http2Controls, "S12": http2ObsoleteText, "S13": http2Padding, "S14": http2Trailers, "S15": http2Versions,
	"S17": http2Content, "S18": http2Host, "S19": http2BadHosts, "S20": http2AbsoluteTargets,
	"S21": http2TwoSlashes, "S22": http2Fragments, "S23": http2DotSegments, "S24": http2DoubleEscapes, "S25": http2BadCharacters,
	"S26": http2Connect, "S27": http2Authorizations, "S28": http2ConnectionFields, "S29": http2SilentContent,
	"S30": http2CanonicalPath, "S31": http2Escapes, "S32": http2PathsApart, "S33": http2Strip, "S34": http2Queries,
	"S40": http2Identities, "S41": http2Forwarding, "S42": http2Claims, "S43": http2StrictAnswers, "S44": http2Reuse,
	"S45": http2CutAnswers, "S46": http2Refusals, "S47": http2Caches,
	"P01": http2Poison, "P02": http2Switches, "P03": http2Repetitions, "P04": http2EarlyAnswers, "P05": http2Interims,
	"P06": http2HopByHop, "P07": http2Version, "P08": http2HostKept, "P09": http2NothingHeld, "P10": http2Heads,
	"P11": http2CutHeads, "P12": http2ManyAtATime, "P13": http2LongAnswers, "P15": http2Memory,
}

// withoutHTTP2 says of the others why they mean nothing there.
var withoutHTTP2 = map[string]string{
	"S05": "no client of HTTP/1.0 speaks HTTP/2",
	"S16": "nothing may stand before the preface, and requests have no lines",
	"P14": "the limiter's store is asked behind the gate, which is the same for all versions",
}

// TestHTTP2 is the request matrix with frames in the place of bytes. The origin
// speaks HTTP/1.1, so what it received can be compared to the byte.
func TestHTTP2(t *testing.T) {
	for _, id := range slices.Sorted(maps.Keys(overHTTP2)) {
		t.Run(id, overHTTP2[id])
	}
}

const reset = "PROTOCOL_ERROR"

var abc = []string{"abc"}

// forbidden promises of a field that no request over HTTP/2 may have (RFC 9113,
// 8.2.2): the frame layer refuses it.
func forbidden(t *testing.T, name string, more ...string) {
	t.Helper()
	refused2(t, name, message(append([]string{":method", "POST"}, more...)...), nil, "400 in plain text")
	refused2(t, name+" with content", message(append([]string{":method", "POST"}, more...)...), abc, "400 in plain text", reset)
}

func http2LengthAndCoding(t *testing.T) {
	forbidden(t, "length first", "content-length", "3", "transfer-encoding", "chunked")
	forbidden(t, "coding first", "transfer-encoding", "chunked", "content-length", "3")
}

func http2Lengths(t *testing.T) {
	f := func(name string, values ...string) {
		t.Helper()
		m := message(":method", "POST")
		for _, v := range values {
			m = append(m, "content-length", v)
		}
		refused2(t, name, m, abc, "400", reset)
	}
	f("twice the same", "3", "3")
	f("two", "3", "0")
	f("list of the same", "3, 3")
	f("plus", "+3")
	f("minus", "-3")
	f("empty", "")
	f("overflow of 64 bits", "18446744073709551619")
	f("many digits", strings.Repeat("0", 300)+"3")
	f("hexadecimal", "0x3")
	f("letters", "3abc")
	f("nothing, and there is some", "0")
	refused2(t, "some, and there is nothing", message(":method", "POST", "content-length", "3"), nil, "400", reset)
	passed2(t, "the content's", message(":method", "POST", "content-length", "3"), []string{"a", "", "bc"}, post+"Content-Length: 3\r\n\r\nabc")
	for name, content := range map[string]string{"less than declared": "ab", "more than declared": "abcd"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				if m, err := c.ReadRequest(); err == nil && m.Body != "abc" {
					t.Errorf("the origin got a whole request: %q %q", m.Head, m.Body)
				}
			})
			c := s.frames(t)
			if r := c.ask(s.fields(message(":method", "POST", "content-length", "3")), content); r.status/100 == 2 || r.whole && r.status/100 != 4 {
				t.Errorf("got %s", r.outcome())
			}
			if err := c.alive(); err != nil {
				t.Error(err)
			}
		})
	}
}

func http2Codings(t *testing.T) {
	for _, coding := range []string{"chunked", "gzip, chunked", "xchunked", "", "\"chunked\""} {
		forbidden(t, fmt.Sprintf("%q", coding), "transfer-encoding", coding)
	}
	passed2(t, "in TE is dropped", message("te", "trailers"), nil, get+"\r\n")
	forbidden(t, "in TE", "te", "chunked")
	forbidden(t, "in TE, with trailers", "te", "trailers, gzip")
}

func http2Identity(t *testing.T) {
	forbidden(t, "alone", "transfer-encoding", "identity")
	forbidden(t, "with a length", "transfer-encoding", "identity", "content-length", "3")
}

func http2Names(t *testing.T) {
	for _, name := range []string{"transfer encoding", "x a", "X-A", "Content-Length", "x\xc3\xa9", "", ":x", "x:a", ":status"} {
		refused2(t, fmt.Sprintf("%q", name), message(name, "1"), nil, reset)
	}
	for _, c := range "\"(),/;<=>?@[\\]{}" {
		refused2(t, fmt.Sprintf("%q", c), message("x"+string(c)+"a", "1"), nil, reset)
	}
	refused2(t, "pseudo-header fields behind others", append([]string{"x-a", "1"}, message()...), nil, reset)
	refused2(t, "pseudo-header fields twice", append(message(), ":path", "/b"), nil, reset)
	passed2(t, "every tchar", message("x!#$%&'*+-.^`|~9", "1"), nil, get+"X!#$%&'*+-.^`|~9: 1\r\n\r\n")
}

func http2Underscores(t *testing.T) {
	passed2(t, "transfer_encoding is nothing", message(":method", "POST", "transfer_encoding", "chunked", "content-length", "3"), abc, post+"Content-Length: 3\r\n\r\nabc")
	passed2(t, "content_length is nothing", message(":method", "POST", "content_length", "30", "content-length", "3"), abc, post+"Content-Length: 3\r\n\r\nabc")
	passed2(t, "any name", message("x_a", "1", "_", "2", "x-b", "3"), nil, get+"X-B: 3\r\n\r\n")
}

func http2BlankNames(t *testing.T) {
	for _, name := range []string{"x-a ", "x-a\t", "content-length ", "transfer-encoding ", " x-a"} {
		refused2(t, fmt.Sprintf("%q", name), message(name, "1"), nil, reset)
	}
}

func http2Folded(t *testing.T) {
	refused2(t, "space", message("x-a", "1\r\n b"), nil, reset)
	refused2(t, "tab", message("x-a", "1\r\n\tb"), nil, reset)
	refused2(t, "host", message(":authority", "{host}\r\n b"), nil, reset)
}

func http2LineFeeds(t *testing.T) {
	for _, name := range []string{"x-a", ":path", ":authority", ":method", ":scheme"} {
		refused2(t, "in "+name, message(name, "/a\nx-evil: 1"), nil, reset)
		refused2(t, "with a carriage return in "+name, message(name, "/a HTTP/1.1\r\nx-evil: 1"), nil, reset)
	}
	refused2(t, "in a name", message("x-a\nx-evil", "1"), nil, reset)
}

func http2Controls(t *testing.T) {
	for _, c := range []byte{0, 1, 7, 8, 0x0b, 0x0c, '\r', 0x1b, 0x1f, 0x7f} {
		refused2(t, fmt.Sprintf("%#02x within", c), message("x-a", "a"+string(rune(c))+"b"), nil, reset)
		refused2(t, fmt.Sprintf("%#02x at the end", c), message("x-a", "a"+string(rune(c))), nil, reset)
		refused2(t, fmt.Sprintf("%#02x in the name", c), message("x"+string(rune(c))+"a", "a"), nil, reset)
		refused2(t, fmt.Sprintf("%#02x in the host", c), message(":authority", "{host}"+string(rune(c))), nil, reset)
		refused2(t, fmt.Sprintf("%#02x in the path", c), message(":path", "/a"+string(rune(c))), nil, reset)
	}
	for _, value := range []string{" a", "a ", "\ta", "a\t", " "} {
		refused2(t, fmt.Sprintf("blank around %q", value), message("x-a", value), nil, "400") // RFC 9113, 8.2.1
	}
	passed2(t, "a tab is a blank", message("x-a", "a\tb"), nil, get+"X-A: a\tb\r\n\r\n")
}

func http2ObsoleteText(t *testing.T) {
	passed2(t, "passes as it is", message("x-a", "\x80\xc3\xa9\xff"), nil, get+"X-A: \x80\xc3\xa9\xff\r\n\r\n")
	passed2(t, "not in identities", message("x-auth-subject", "\xff"), nil, get+"\r\n")
}

// Padding (RFC 9113, 6.1) is what chunk extensions are in HTTP/1.1: bytes beside
// the content.
func http2Padding(t *testing.T) {
	t.Run("never forwarded", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.frames(t)
		id := c.open(s.fields(message(":method", "POST", "content-length", "3")), false)
		_ = c.WriteDataPadded(id, false, []byte("ab"), make([]byte, 255))
		_ = c.WriteDataPadded(id, true, []byte("c"), make([]byte, 1))
		if r := c.reply(id); r.status != 200 {
			t.Errorf("got %s", r.outcome())
		}
		if got, want := rig.Strip(strings.Join(s.Received(), "")), s.in(post+"Content-Length: 3\r\n\r\nabc"); got != want {
			t.Errorf("the origin received %q", got)
		}
	})
	t.Run("not longer than its frame", func(t *testing.T) {
		t.Parallel()
		s := take(t, func(c *rig.Conn) {
			if m, err := c.ReadRequest(); err == nil {
				t.Errorf("the origin got a whole request: %q", m.Line)
			}
		})
		c := s.frames(t)
		id := c.open(s.fields(message(":method", "POST")), false)
		_ = c.WriteRawFrame(http2.FrameData, http2.FlagDataPadded|http2.FlagDataEndStream, id, []byte{200, 'a', 'b', 'c'})
		if r := c.reply(id); r.outcome() != "GOAWAY "+reset {
			t.Errorf("got %s", r.outcome())
		}
	})
}

func http2Trailers(t *testing.T) {
	f := func(name string, ok bool, fields ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := take(t, func(c *rig.Conn) {
				if m, err := c.ReadRequest(); err == nil {
					if !ok {
						t.Errorf("the origin got a whole request: %q %q", m.Head, m.Body)
					}
					c.Say(rig.OK)
				}
			})
			c := s.frames(t)
			id := c.open(s.fields(message(":method", "POST", "trailer", "x-auth-subject, x-a")), false)
			_ = c.WriteData(id, false, []byte("abc"))
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(fields), EndHeaders: true, EndStream: true})
			r := c.reply(id)
			if ok && r.outcome() != "200" || !ok && r.outcome() != reset {
				t.Errorf("got %s", r.outcome())
			}
			if err := c.alive(); err != nil {
				t.Error(err)
			}
			if got, want := rig.Strip(strings.Join(s.Received(), "")), s.in(post+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"); ok && got != want {
				t.Errorf("the origin received %q", got)
			}
		})
	}
	f("are dropped", true, "x-a", "1", "x-auth-subject", "root")
	f("a line end in a value", false, "x-a", "1\nx-b: 2")
	f("upper case", false, "X-A", "1")
	f("no name", false, "", "1")
	f("a pseudo-header field", false, ":path", "/b")
}

func http2Versions(t *testing.T) {
	for _, preface := range []string{"GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", "\r\n" + http2.ClientPreface} {
		t.Run(fmt.Sprintf("%.16q", preface), func(t *testing.T) {
			t.Parallel()
			s := take(t, nil)
			c := rig.Dial(t, s.gw.Extra[0])
			c.Send(s.in(preface))
			_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
			if said, err := io.ReadAll(c.R); errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(said), "HTTP/1") {
				t.Errorf("the connection goes on: %q %v", said, err)
			}
			if got := s.Received(); len(got) > 0 {
				t.Errorf("the origin received %q", got)
			}
		})
	}
}

func http2Content(t *testing.T) {
	for _, method := range []string{"GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"} {
		head := method + " /a HTTP/1.1\r\nHost: {host}\r\n"
		passed2(t, method+" with a length", message(":method", method, "content-length", "3"), abc, head+"Content-Length: 3\r\n\r\nabc")
		passed2(t, method+" without", message(":method", method), abc, head+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
		passed2(t, method+" with a length of nothing", message(":method", method, "content-length", "0"), nil, head+"Content-Length: 0\r\n\r\n")
	}
}

func http2SilentContent(t *testing.T) {
	passed2(t, "POST without a length has no content", message(":method", "POST"), nil, post+"\r\n")
	passed2(t, "empty content without a length", message(":method", "POST"), []string{""}, post+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	for _, expect := range []string{"200-ok", "100", ""} {
		refused2(t, fmt.Sprintf("Expect %q", expect), message(":method", "POST", "content-length", "3", "expect", expect), abc, "417")
	}
	refused2(t, "unread content is no request and keeps the connection", message(":method", "POST", ":path", "/admin/x"), []string{smuggled}, "401")
	t.Run("content behind the end of a stream is no request", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.frames(t)
		id := c.send(s.fields(message()))
		_ = c.WriteData(id, true, []byte(s.in(smuggled)))
		_ = c.reply(id) // 200 or STREAM_CLOSED, whichever is first
		if got := strings.Join(s.Received(), ""); strings.Contains(got, "smuggled") {
			t.Errorf("the origin received %q", got)
		}
	})
}
