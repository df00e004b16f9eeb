package edge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

func TestS18_Host(t *testing.T) {
	refused(t, "none in HTTP/1.1", "GET /a HTTP/1.1\r\n\r\n", 400)
	refused(t, "none in HTTP/1.1, with other fields", "GET /a HTTP/1.1\r\nX-A: 1\r\n\r\n", 400)
	refused(t, "none in HTTP/1.0", "GET /a HTTP/1.0\r\n\r\n", 400)
	refused(t, "twice", "GET /a HTTP/1.1\r\nHost: {host}\r\nHost: other.test\r\n\r\n", 400)
	refused(t, "twice the same", "GET /a HTTP/1.1\r\nHost: {host}\r\nhost: {host}\r\n\r\n", 400)
	refused(t, "empty", "GET /a HTTP/1.1\r\nHost:\r\n\r\n", 400)
	refused(t, "none beside an absolute target", "GET http://{host}/a HTTP/1.1\r\n\r\n", 400)
}

func TestS19_HostsThatAreNone(t *testing.T) {
	for _, host := range []string{
		"admin:pw@{host}", "user@{host}", "{host}/a", "{host}\\a", "a {host}", "{host} a", "{host}%41", "{host}?a", "{host}#a",
		"{host}:0", "{host}:65536", "{host}:99999", "{host}:a", "{host}:80:80", "{host}:-1", "{host}:+80", "{host}:8 0", "{host}, {host}",
		"[::1", "::1", "[::g]", "[1.2.3.4]", "[::1]a", "[::1%25eth0]", "[]", "\"{host}\"", "<{host}>", "a\x01b", "h\xc3\xb6st.test", "http://{host}", ".", "a..test",
	} {
		refused(t, fmt.Sprintf("%q", host), "GET /any HTTP/1.1\r\nHost: "+host+"\r\n\r\n", 400)
	}
	for _, host := range []string{"[::1]", "[::1]:80", "[2001:db8::1]:65535", "127.0.0.1", "a-b.test:1", "A.Test"} {
		t.Run(fmt.Sprintf("%q is one", host), func(t *testing.T) {
			t.Parallel()
			if a := take(t, nil).dial(t).Ask("GET", "GET /any HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); a.Status != 200 {
				t.Errorf("got %q", a.Head)
			}
		})
	}
	passed(t, "a port is kept", "GET /a HTTP/1.1\r\nHost: {host}:8443\r\n\r\n", "GET /a HTTP/1.1\r\nHost: {host}:8443\r\n\r\n")
}

func TestS20_AbsoluteTargets(t *testing.T) {
	refused(t, "another host", "GET http://evil.test/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	refused(t, "our host for another", "GET http://{host}/a HTTP/1.1\r\nHost: evil.test\r\n\r\n", 400)
	refused(t, "another port", "GET http://{host}:80/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	refused(t, "user", "GET http://user@{host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	refused(t, "user in both", "GET http://user@{host}/a HTTP/1.1\r\nHost: user@{host}\r\n\r\n", 400)
	refused(t, "no host", "GET http:///a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	refused(t, "no host and a query", "GET http://?a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	for _, scheme := range []string{"ftp", "file", "ws", "gopher", "httpx", ""} {
		refused(t, fmt.Sprintf("scheme %q", scheme), "GET "+scheme+"://{host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	}
	refused(t, "one slash", "GET http:/{host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	refused(t, "no scheme", "GET {host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	refused(t, "asterisk with GET", "GET * HTTP/1.1\r\nHost: {host}\r\n\r\n", 400)
	passed(t, "becomes the path", "GET http://{host}/a?b=1 HTTP/1.1\r\nHost: {host}\r\n\r\n", "GET /a?b=1 HTTP/1.1\r\nHost: {host}\r\n\r\n")
	passed(t, "https too", "GET https://{host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n", get+"\r\n")
	t.Run("in any case", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		a := s.dial(t).Ask("GET", "GET HTTP://"+strings.ToUpper(s.host)+"/a HTTP/1.1\r\nHost: "+s.host+"\r\n\r\n")
		if got, want := rig.Strip(strings.Join(s.Received(), "")), s.in(get+"\r\n"); a.Status != 200 || got != want {
			t.Errorf("got %q, the origin received %q", a.Head, got)
		}
	})
	passed(t, "without a path", "GET http://{host}?b HTTP/1.1\r\nHost: {host}\r\n\r\n", "GET /?b HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

func TestS21_TwoSlashesAtTheStart(t *testing.T) {
	passed(t, "are one", "GET //evil.test/p HTTP/1.1\r\nHost: {host}\r\n\r\n", "GET /evil.test/p HTTP/1.1\r\nHost: {host}\r\n\r\n")
	passed(t, "and many", "GET ////evil.test//p HTTP/1.1\r\nHost: {host}\r\n\r\n", "GET /evil.test/p HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

// to is a request for a target.
func to(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: {host}\r\n\r\n" }

func TestS22_Fragments(t *testing.T) {
	for _, target := range []string{"/a#/../admin", "/#", "/a#b", "/a?b#c", "#a", "http://{host}/a#b"} {
		refused(t, target, to(target), 400)
	}
}

func TestS23_EscapedDotSegments(t *testing.T) {
	refused(t, "with an escaped slash", to("/a/..%2fadmin"), 400)
	guarded(t, "/a/%2e%2e/admin/x")
	guarded(t, "/a/.%2E/admin/x")
	passed(t, "are removed", to("/a/%2e%2e/b"), to("/b"))
}

func TestS24_DoubleEscapes(t *testing.T) {
	for _, target := range []string{"/%2561dmin", "/%252e%252e/admin", "/a%25", "/%25%36%31dmin", "/%25252e"} {
		refused(t, target, to(target), 400)
	}
}

func TestS25_CharactersThatNoTargetHas(t *testing.T) {
	for _, target := range []string{"/a\\b", "/a\\..\\admin", "/a\x7f", "/a\x80", "/a\xff", "/\xc3\xa9", "/a%00", "/a b", "/a\tb", "/a\x00", "/a\x01", "/a?b\x00", "/a?\xff", "/a?b c", "/a\x0b"} {
		refused(t, fmt.Sprintf("%q", target), to(target), 400)
	}
	for _, target := range []string{"/%", "/%a", "/%zz", "/%1g", "/a%", "/%u0061", "/%7F", "/%0a", "/%0d%0aX-A:1"} {
		refused(t, "escape "+target, to(target), 400)
	}
}

func TestS26_CONNECT(t *testing.T) {
	refused(t, "authority", "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n", 405, 501)
	refused(t, "path", "CONNECT /a HTTP/1.1\r\nHost: {host}\r\n\r\n", 405, 501)
	refused(t, "absolute", "CONNECT http://{host}/a HTTP/1.1\r\nHost: {host}\r\n\r\n", 405, 501)
	refused(t, "with content", "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nContent-Length: 3\r\n\r\nabc", 405, 501)
	refused(t, "in HTTP/1.0", "CONNECT {host}:443 HTTP/1.0\r\nHost: {host}:443\r\n\r\n", 405, 501)
}

// canonical are targets and the one form in which they are routed and forwarded.
var canonical = []struct{ raw, path string }{
	{"/", "/"},
	{"/a/b", "/a/b"},
	{"/a/", "/a/"},
	{"/a//b", "/a/b"},
	{"/a/./b", "/a/b"},
	{"/a/../b", "/b"},
	{"/a/b/..", "/a"}, // as net/http cleans it: a slash at the end is the client's to write
	{"/a/.", "/a"},
	{"/..", "/"},
	{"/../../a", "/a"},
	{"/./a", "/a"},
	{"/a/%2E/b", "/a/b"},
	{"/a/%2e%2E/b", "/b"},
	{"/a//../b", "/b"}, // slashes are merged before
	{"/%61%41%7e%2D%5f%30", "/aA~-_0"},
	{"/%c3%a9", "/%C3%A9"},
	{"/a%20b", "/a%20b"},
	{"/a%3a%40", "/a%3A%40"},
	{"/...", "/..."},
	{"/a..b/..c", "/a..b/..c"},
	{"/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="},
	{"/A", "/A"},
}

func TestS30_OneCanonicalPath(t *testing.T) {
	for _, c := range canonical {
		passed(t, c.raw, to(c.raw), to(c.path))
		passed(t, c.raw+" with a query", to(c.raw+"?x=/../y"), to(c.path+"?x=/../y"))
	}
	for _, target := range []string{
		"/admin/x", "/%61dmin/x", "/adm%69n/x", "//admin/x", "/./admin/x", "/a/../admin/x", "/a/%2e%2e/admin/x", "/a/b/../../admin/x",
		"/../admin/x", "/%2e%2e/admin/x", "/admin//x", "/admin/./x", "/admin/y/../x", "/admin", "/admin/", "/slash/../admin/x", "http://{host}/a/../admin/x",
	} {
		guarded(t, target)
	}
}

// guarded promises: the target is one of the protected route, however it is
// written, and nothing reaches the origin without a token.
func guarded(t *testing.T, target string) {
	t.Helper()
	t.Run("guarded "+target, func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		if a := c.Ask("GET", s.in(to(target))); a.Status != 401 {
			t.Errorf("got %q", a.Head)
		}
		if err := alive(c); err != nil {
			t.Error(err)
		}
		if got := s.Received(); len(got) > 0 {
			t.Errorf("the origin received %q", got)
		}
	})
}

func TestS31_EscapesThatServersReadDifferently(t *testing.T) {
	for _, escape := range []string{"%2F", "%5C", "%00", "%3B", "%25", "%3F", "%23"} {
		for _, e := range []string{escape, strings.ToLower(escape)} {
			refused(t, e, to("/a"+e+"b"), 400)
			refused(t, e+" at the end", to("/a"+e), 400)
		}
		if escape != "%2F" {
			refused(t, escape+" where a slash may be escaped", to("/slash/a"+escape+"b"), 400)
		}
	}
	passed(t, "a route may allow the slash", to("/slash/a%2fb"), to("/slash/a%2Fb"))
	refused(t, "but not beside dots", to("/slash/..%2fadmin"), 400)
	refused(t, "nor before them", to("/slash/a%2f..%2fb"), 400)
}

func TestS32_PathsAreToldApart(t *testing.T) {
	f := func(target string) {
		t.Helper()
		passed(t, target, to(target), to(target))
	}
	f("/Admin/x")
	f("/ADMIN")
	f("/administrator")
	f("/admin.")
	f("/admin-x/y")
	f("/a/admin/x")
	f("/a;b=c/d;e")
	refused(t, "a parameter that hides a route", to("/admin;x"), 400)
	refused(t, "and one before its end", to("/admin;x/y"), 400)
	refused(t, "an empty one", to("/admin;/y"), 400)
	refused(t, "in a dot segment", to("/a/..;/admin/x"), 400)
	guarded(t, "/admin/x;y")
	t.Run("a slash at the end", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		if a := c.Ask("POST", s.in("POST /get HTTP/1.1\r\nHost: {host}\r\n\r\n")); a.Status != 200 {
			t.Errorf("/get with POST is another route's: %q", a.Head)
		}
		if a := c.Ask("GET", s.in(to("/get/"))); a.Status != 200 {
			t.Errorf("/get/: %q", a.Head)
		}
	})
}

func TestS33_StrippedPrefixes(t *testing.T) {
	f := func(target, want string) {
		t.Helper()
		passed(t, target, to(target), to(want))
	}
	f("/strip/a", "/a")
	f("/strip", "/")
	f("/strip/", "/")
	f("/strip//a", "/a")
	f("/strip/./a", "/a")
	f("/strip/strip/a", "/strip/a")
	f("/%73trip/a", "/a")
	f("/strip/a/../b", "/b")
	f("/strip//evil.test/a", "/evil.test/a")
	f("/strip?a=1", "/?a=1")
	f("/stripped/a", "/stripped/a")
	f("/strip/../a", "/a")
	f("/strip/../strip/a", "/a")
	f("/a/strip/b", "/a/strip/b")
}

func TestS34_QueriesAreForwardedByteForByte(t *testing.T) {
	for _, query := range []string{"?", "?a=1;b=2", "?a=1&a=2", "?&&=", "?a=%zz%", "?a=%00", "?a=%2F..%2f", "??", "?a=/../b//c", "?A=b+c%20d", "?a=[1]{2}|3^4`\"<>", "?%61=%41"} {
		passed(t, query, to("/a"+query), to("/a"+query))
	}
}

func TestTargetsOfOPTIONS(t *testing.T) {
	t.Run("asterisk", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		a := c.Ask("OPTIONS", s.in("OPTIONS * HTTP/1.1\r\nHost: {host}\r\n\r\n"))
		if a.Status == 0 || a.Status >= 500 {
			t.Errorf("got %q %v", a.Head, a.Err)
		}
		if err := alive(c); err != nil {
			t.Error(err)
		}
		for _, got := range s.Received() {
			if !strings.HasPrefix(got, "OPTIONS * HTTP/1.1\r\n") {
				t.Errorf("the origin received %q", got)
			}
		}
	})
	passed(t, "path", "OPTIONS /a HTTP/1.1\r\nHost: {host}\r\n\r\n", "OPTIONS /a HTTP/1.1\r\nHost: {host}\r\n\r\n")
}
