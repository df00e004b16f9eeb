package edge

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// TestH1Spec holds the gateway to the list of uNetworking/h1spec: a beginning of
// a request is waited with, and a whole one gets an answer of the right class,
// however it is cut.
func TestH1Spec(t *testing.T) {
	const head = "GET / HTTP/1.1\r\nHost: {host}\r\n"
	const whole = "GET /hello HTTP/1.1\r\nHost: {host}\r\n\r\n"
	for name, part := range map[string]string{
		"method":                    "G",
		"target 1":                  "GET ",
		"target 2":                  "GET /hello",
		"target 3":                  "GET /hello ",
		"version":                   "GET /hello HTTP",
		"request line":              "GET /hello HTTP/1.1",
		"end of the request line 1": "GET /hello HTTP/1.1\r",
		"end of the request line 2": "GET /hello HTTP/1.1\r\n",
		"field name":                "GET /hello HTTP/1.1\r\nHos",
		"field value 1":             "GET /hello HTTP/1.1\r\nHost:",
		"field value 2":             "GET /hello HTTP/1.1\r\nHost: ",
		"field value 3":             "GET /hello HTTP/1.1\r\nHost: {host}",
		"field value 4":             "GET /hello HTTP/1.1\r\nHost: {host}\r",
		"request":                   "GET /hello HTTP/1.1\r\nHost: {host}\r\n",
		"end of the request":        "GET /hello HTTP/1.1\r\nHost: {host}\r\n\r",
	} {
		t.Run("a fragment is waited with/"+name, func(t *testing.T) {
			t.Parallel()
			s := take(t, nil)
			c := s.dial(t)
			c.Send(s.in(part))
			time.Sleep(20 * time.Millisecond) // an answer would be on its way
			c.Send(strings.TrimPrefix(s.in(whole), s.in(part)))
			if a := c.Answer("GET"); a.Status != 200 {
				t.Errorf("got %q (%v)", a.Head, a.Err)
			}
			if got := rig.Strip(strings.Join(s.Received(), "")); got != s.in(whole) {
				t.Errorf("the origin received %q", got)
			}
		})
	}
	f := func(name, raw string, classes ...int) {
		t.Helper()
		for _, how := range []string{"at once", "byte by byte"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				s := take(t, nil)
				c := s.dial(t)
				raw := s.in(raw)
				if how == "at once" {
					c.Send(raw)
				} else {
					_ = c.SetWriteDeadline(time.Now().Add(rig.Patience))
					for i := range len(raw) {
						if _, err := io.WriteString(c.Conn, raw[i:i+1]); err != nil {
							break // it was refused already
						}
					}
				}
				a := c.Answer(method(raw))
				ok := false
				for _, class := range classes {
					ok = ok || a.Status/100 == class
				}
				if !ok {
					t.Errorf("%q: got %q (%v), want %v", raw, a.Head, a.Err, classes)
				}
				if got := s.Received(); a.Status/100 != 2 && len(got) > 0 {
					t.Errorf("%q: the origin received %q", raw, got)
				}
			})
		}
	}
	f("no version", "GET / \r\n\r\n", 4, 5)
	f("Expect", head+"Expect: 100-continue\r\n\r\n", 2)
	f("valid GET", head+"\r\n", 2)
	f("valid GET of odd looks", "GET / HTTP/1.1\r\nhoSt:\t{host}\r\nempty:\r\n\r\n", 2)
	f("bad characters in a name", head+"X-Invalid[]: test\r\n\r\n", 4)
	f("no Host", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", 4)
	f("two Hosts", head+"Host: other.test\r\n\r\n", 4)
	f("overflow of a negative length", head+"Content-Length: -123456789123456789123456789\r\n\r\n", 4)
	f("negative length", head+"Content-Length: -1234\r\n\r\n", 4)
	f("length of letters", head+"Content-Length: abc\r\n\r\n", 4)
	f("empty value", head+"X-Empty: \r\n\r\n", 2)
	f("control character", head+"X-Bell: test\x07\r\n\r\n", 4)
	f("unknown version", "GET / HTTP/9.9\r\nHost: {host}\r\n\r\n", 4, 5)
	f("prefix", "Extra line"+head+"\r\n", 4, 5)
	f("carriage return for a line end", head+"\rSome-Field: a\r\n\r\n", 4)
	f("valid POST", "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello", 2)
	f("length and coding", head+"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 4)
}
