package edge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

const get = "GET /a HTTP/1.1\r\nHost: {host}\r\n"

func TestS06_BlanksInNames(t *testing.T) {
	refused(t, "Transfer Encoding", post+"Transfer Encoding: chunked\r\n\r\n", 400)
	refused(t, "X A", get+"X A: 1\r\n\r\n", 400)
	refused(t, "no colon at all", get+"XA\r\n\r\n", 400)
	refused(t, "no name", get+": 1\r\n\r\n", 400)
	for _, c := range "\"(),/;<=>?@[\\]{}" {
		refused(t, fmt.Sprintf("%q", c), get+"X"+string(c)+"A: 1\r\n\r\n", 400)
	}
	refused(t, "obs-text", get+"X\xc3\xa9: 1\r\n\r\n", 400)
	passed(t, "every tchar", get+"X!#$%&'*+-.^`|~9: 1\r\n\r\n", get+"X!#$%&'*+-.^`|~9: 1\r\n\r\n")
}

func TestS07_UnderscoresInNames(t *testing.T) {
	passed(t, "Transfer_Encoding is nothing", post+"Transfer_Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc", post+"Content-Length: 3\r\n\r\nabc")
	passed(t, "Content_Length is nothing", post+"Content_Length: 30\r\nContent-Length: 3\r\n\r\nabc", post+"Content-Length: 3\r\n\r\nabc")
	passed(t, "any name", get+"X_A: 1\r\n_: 2\r\nX-B: 3\r\n\r\n", get+"X-B: 3\r\n\r\n")
}

func TestS08_BlankBeforeTheColon(t *testing.T) {
	refused(t, "space", get+"X-A : 1\r\n\r\n", 400)
	refused(t, "tab", get+"X-A\t: 1\r\n\r\n", 400)
	refused(t, "Transfer-Encoding", post+"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400)
	refused(t, "Content-Length", post+"Content-Length : 3\r\n\r\nabc", 400)
	refused(t, "Host", "GET /a HTTP/1.1\r\nHost : {host}\r\n\r\n", 400)
}

func TestS09_FoldedLines(t *testing.T) {
	refused(t, "space", get+"X-A: 1\r\n b\r\n\r\n", 400)
	refused(t, "tab", get+"X-A: 1\r\n\tb\r\n\r\n", 400)
	refused(t, "Transfer-Encoding", post+"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400)
	refused(t, "first line of the header", "GET /a HTTP/1.1\r\n Host: {host}\r\n\r\n", 400)
	refused(t, "a line of blanks", get+"X-A: 1\r\n \r\n\r\n", 400)
}

func TestS10_LineFeedsAlone(t *testing.T) {
	refused(t, "behind a field", get+"X-A: 1\nX-B: 2\r\n\r\n", 400)
	refused(t, "behind the last field", get+"X-A: 1\n\r\n", 400)
	refused(t, "as the empty line", get+"X-A: 1\r\n\n", 400)
	refused(t, "behind the request line", "GET /a HTTP/1.1\nHost: {host}\r\n\r\n", 400)
	refused(t, "everywhere", "GET /a HTTP/1.1\nHost: {host}\n\n", 400)
	refused(t, "hiding a field", get+"X-A: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)
}

func TestS11_ControlCharactersInValues(t *testing.T) {
	for _, c := range []byte{0, 1, 7, 8, 0x0b, 0x0c, '\r', 0x1b, 0x1f, 0x7f} {
		refused(t, fmt.Sprintf("%#02x within", c), get+"X-A: a"+string(rune(c))+"b\r\n\r\n", 400)
		refused(t, fmt.Sprintf("%#02x at the end", c), get+"X-A: a"+string(rune(c))+"\r\n\r\n", 400)
		refused(t, fmt.Sprintf("%#02x at the start", c), get+"X-A: "+string(rune(c))+"a\r\n\r\n", 400)
		refused(t, fmt.Sprintf("%#02x in the name", c), get+"X"+string(rune(c))+"A: a\r\n\r\n", 400)
	}
	refused(t, "NUL in Host", "GET /a HTTP/1.1\r\nHost: {host}\x00\r\n\r\n", 400)
	passed(t, "a tab is a blank", get+"X-A: a\tb\r\n\r\n", get+"X-A: a\tb\r\n\r\n")
}

func TestS12_ObsoleteText(t *testing.T) {
	passed(t, "passes as it is", get+"X-A: \x80\xc3\xa9\xff\r\n\r\n", get+"X-A: \x80\xc3\xa9\xff\r\n\r\n")
	passed(t, "not in identities", get+"X-Auth-Subject: \xff\r\n\r\n", get+"\r\n")
}

func TestS15_Versions(t *testing.T) {
	for _, version := range []string{"HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0", "HTTP/9.9"} {
		refused(t, version, "GET /a "+version+"\r\nHost: {host}\r\n\r\n", 505)
	}
	for _, version := range []string{"HTTP/1.10", "HTTP/11", "http/1.1", "HTTP/1", "HTTP/1.", "HTTP/1.1x", "HTTP/+1.1", "HTTPS/1.1", "HTTP /1.1", "ICY/1.1", "1.1"} {
		refused(t, version, "GET /a "+version+"\r\nHost: {host}\r\n\r\n", 400, 505)
	}
	refused(t, "none", "GET /a\r\nHost: {host}\r\n\r\n", 400, 505)
	refused(t, "none, and a blank", "GET /a \r\nHost: {host}\r\n\r\n", 400, 505)
	t.Run("the origin is always asked in HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		a := s.dial(t).Ask("GET", s.in("GET /a HTTP/1.0\r\nHost: {host}\r\n\r\n"))
		if a.Status != 200 || a.Body != "ok" {
			t.Errorf("got %q %v", a.Head, a.Err)
		}
		if got, want := rig.Strip(strings.Join(s.Received(), "")), s.in(get+"\r\n"); got != want {
			t.Errorf("the origin received %q", got)
		}
	})
}

func TestRequestLinesOfOtherShapes(t *testing.T) {
	f := func(name, line string) {
		t.Helper()
		refused(t, name, line+"\r\nHost: {host}\r\n\r\n", 400, 501, 505)
	}
	f("two blanks", "GET  /a HTTP/1.1")
	f("two blanks before the version", "GET /a  HTTP/1.1")
	f("blank at the start", " GET /a HTTP/1.1")
	f("blank at the end", "GET /a HTTP/1.1 ")
	f("tabs", "GET\t/a\tHTTP/1.1")
	f("method only", "GET")
	f("empty method", " /a HTTP/1.1")
	f("method with a colon", "GE:T /a HTTP/1.1")
	f("method with NUL", "GE\x00T /a HTTP/1.1")
	f("method with obs-text", "GET\xff /a HTTP/1.1")
	f("method with parentheses", "(GET) /a HTTP/1.1")
	f("carriage return", "GET /a\r HTTP/1.1")
	f("form feed", "GET\x0c/a HTTP/1.1")
	f("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	passed(t, "methods that nobody knows", "PROPFIND /a HTTP/1.1\r\nHost: {host}\r\n\r\n", "PROPFIND /a HTTP/1.1\r\nHost: {host}\r\n\r\n")
	passed(t, "methods are told apart by case", "get /a HTTP/1.1\r\nHost: {host}\r\n\r\n", "get /a HTTP/1.1\r\nHost: {host}\r\n\r\n")
	refused(t, "the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505)
}

func TestS16_EmptyLinesBeforeARequest(t *testing.T) {
	passed(t, "one", "\r\n"+get+"\r\n", get+"\r\n")
	passed(t, "some", "\r\n\r\n\r\n"+get+"\r\n", get+"\r\n")
	t.Run("between two requests", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		c.Send(s.in(get + "\r\n\r\n" + get + "\r\n"))
		for range 2 {
			if a := c.Answer("GET"); a.Status != 200 {
				t.Errorf("got %q %v", a.Head, a.Err)
			}
		}
	})
	t.Run("not without end", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		c.Send(strings.Repeat("\r\n", 32<<10))
		c.Send(s.in(get + "\r\n"))
		if a := c.Answer("GET"); a.Status/100 == 2 {
			t.Errorf("64 KiB of empty lines: got %q", a.Head)
		}
		if got := s.Received(); len(got) > 0 {
			t.Errorf("the origin received %q", got)
		}
	})
}
