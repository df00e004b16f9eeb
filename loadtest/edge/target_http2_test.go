package edge

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

func http2Host(t *testing.T) {
	none := message(":authority", "-")
	refused2(t, "none", none, nil, "400")
	refused2(t, "empty", message(":authority", ""), nil, "400")
	refused2(t, "another Host", message("host", "other.test"), nil, "400")
	refused2(t, "another port in Host", message("host", "{host}:80"), nil, "400")
	refused2(t, "two Hosts", message("host", "{host}", "host", "{host}"), nil, "400")
	refused2(t, "two Hosts and no authority", append(none, "host", "{host}", "host", "other.test"), nil, "400")
	refused2(t, "empty Host", message("host", ""), nil, "400")
	passed2(t, "the same Host", message("host", "{host}"), nil, get+"\r\n")
	passed2(t, "Host alone", append(none, "host", "{host}"), nil, get+"\r\n")
}

func http2BadHosts(t *testing.T) {
	for _, host := range []string{"admin:pw@{host}", "user@{host}", "@{host}"} {
		refused2(t, fmt.Sprintf("%q", host), message(":authority", host), nil, reset)
	}
	for _, host := range []string{
		"{host}/a", "{host}\\a", "a {host}", " {host}", "{host} ", "\t{host}", "{host}%41", "{host}?a", "{host}#a",
		"{host}:0", "{host}:65536", "{host}:a", "{host}:80:80", "{host}:-1", "{host}:+80", "{host}, {host}",
		"[::1", "::1", "[::g]", "[1.2.3.4]", "[::1]a", "[::1%25eth0]", "[]", "\"{host}\"", "<{host}>", "h\xc3\xb6st.test", "http://{host}", ".", "a..test",
	} {
		refused2(t, fmt.Sprintf("%q", host), message(":authority", host, ":path", "/any"), nil, "400")
	}
	passed2(t, "a port is kept", message(":authority", "{host}:8443"), nil, "GET /a HTTP/1.1\r\nHost: {host}:8443\r\n\r\n")
}

func http2AbsoluteTargets(t *testing.T) {
	for _, path := range []string{"http://{host}/a", "https://evil.test/a", "*", "http:/a"} {
		refused2(t, path, message(":path", path), nil, "400", reset)
	}
	for _, path := range []string{"", "a", "-"} {
		refused2(t, fmt.Sprintf("path %q", path), message(":path", path), nil, reset)
	}
	for _, scheme := range []string{"ftp", "file", "ws", "httpx", "", "-"} {
		refused2(t, fmt.Sprintf("scheme %q", scheme), message(":scheme", scheme), nil, reset)
	}
	passed2(t, "a scheme is believed by nobody", message(":scheme", "https"), nil, get+"\r\n")
	t.Run("a scheme does not make a connection secure", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		s.frames(t).ask(s.fields(message(":scheme", "https")))
		if got := strings.Join(s.Received(), ""); !strings.Contains(got, "\r\nX-Forwarded-Proto: http\r\n") {
			t.Errorf("the origin received %q", got)
		}
	})
}

func http2TwoSlashes(t *testing.T) {
	passed2(t, "are one", message(":path", "//evil.test/p"), nil, to("/evil.test/p"))
	passed2(t, "and many", message(":path", "////evil.test//p"), nil, to("/evil.test/p"))
}

func http2Fragments(t *testing.T) {
	for _, path := range []string{"/a#/../admin", "/#", "/a#b", "/a?b#c"} {
		refused2(t, path, message(":path", path), nil, "400", reset)
	}
}

// guarded2 promises: the path is one of the protected route, however it is
// written.
func guarded2(t *testing.T, path string) {
	t.Helper()
	refused2(t, "guarded "+path, message(":path", path), nil, "401")
}

func http2DotSegments(t *testing.T) {
	refused2(t, "with an escaped slash", message(":path", "/a/..%2fadmin"), nil, "400")
	guarded2(t, "/a/%2e%2e/admin/x")
	guarded2(t, "/a/.%2E/admin/x")
	passed2(t, "are removed", message(":path", "/a/%2e%2e/b"), nil, to("/b"))
}

func http2DoubleEscapes(t *testing.T) {
	for _, path := range []string{"/%2561dmin", "/%252e%252e/admin", "/a%25", "/%25%36%31dmin", "/%25252e"} {
		refused2(t, path, message(":path", path), nil, "400")
	}
}

func http2BadCharacters(t *testing.T) {
	for _, path := range []string{
		"/a\\b", "/a\\..\\admin", "/a\x7f", "/a\x80", "/a\xff", "/\xc3\xa9", "/a%00", "/a b", "/a\tb", "/a?\xff", "/a?b c",
		"/%", "/%a", "/%zz", "/%1g", "/a%", "/%u0061", "/%7F", "/%0a", "/%0d%0aX-A:1",
	} {
		refused2(t, fmt.Sprintf("%q", path), message(":path", path), nil, "400", reset)
	}
}

func http2Connect(t *testing.T) {
	connect := message(":method", "CONNECT", ":scheme", "-", ":path", "-", ":authority", "{host}:443")
	refused2(t, "authority", connect, nil, "405")
	refused2(t, "with content", connect, abc, "405")
	refused2(t, "with a path", message(":method", "CONNECT"), nil, reset)
	refused2(t, "without an authority", message(":method", "CONNECT", ":scheme", "-", ":path", "-", ":authority", "-"), nil, reset)
	// RFC 8441, which nobody was told of here.
	for _, protocol := range []string{"websocket", "connect-udp"} {
		refused2(t, "extended, "+protocol, message(":method", "CONNECT", ":protocol", protocol), nil, reset)
	}
	t.Run("extended is not offered", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.frames(t)
		f, err := c.ReadFrame()
		settings, ok := f.(*http2.SettingsFrame)
		if err != nil || !ok {
			t.Fatalf("%v %v", f, err)
		}
		if v, there := settings.Value(http2.SettingEnableConnectProtocol); there && v != 0 {
			t.Error("extended CONNECT is offered")
		}
	})
}

func http2CanonicalPath(t *testing.T) {
	for _, c := range canonical {
		passed2(t, c.raw, message(":path", c.raw), nil, to(c.path))
		passed2(t, c.raw+" with a query", message(":path", c.raw+"?x=/../y"), nil, to(c.path+"?x=/../y"))
	}
	for _, path := range []string{
		"/admin/x", "/%61dmin/x", "/adm%69n/x", "//admin/x", "/./admin/x", "/a/../admin/x", "/a/%2e%2e/admin/x", "/a/b/../../admin/x",
		"/../admin/x", "/%2e%2e/admin/x", "/admin//x", "/admin/./x", "/admin/y/../x", "/admin", "/admin/", "/slash/../admin/x",
	} {
		guarded2(t, path)
	}
}

func http2Escapes(t *testing.T) {
	for _, escape := range []string{"%2F", "%5C", "%00", "%3B", "%25", "%3F", "%23"} {
		for _, e := range []string{escape, strings.ToLower(escape)} {
			refused2(t, e, message(":path", "/a"+e+"b"), nil, "400")
		}
		if escape != "%2F" {
			refused2(t, escape+" where a slash may be escaped", message(":path", "/slash/a"+escape+"b"), nil, "400")
		}
	}
	passed2(t, "a route may allow the slash", message(":path", "/slash/a%2fb"), nil, to("/slash/a%2Fb"))
	refused2(t, "but not beside dots", message(":path", "/slash/..%2fadmin"), nil, "400")
}

func http2PathsApart(t *testing.T) {
	for _, path := range []string{"/Admin/x", "/ADMIN", "/administrator", "/admin.", "/admin-x/y", "/a/admin/x", "/a;b=c/d;e"} {
		passed2(t, path, message(":path", path), nil, to(path))
	}
	for _, path := range []string{"/admin;x", "/admin;x/y", "/admin;/y", "/a/..;/admin/x"} {
		refused2(t, path, message(":path", path), nil, "400")
	}
	guarded2(t, "/admin/x;y")
}

func http2Strip(t *testing.T) {
	for path, want := range map[string]string{
		"/strip/a": "/a", "/strip": "/", "/strip//a": "/a", "/strip/strip/a": "/strip/a", "/%73trip/a": "/a", "/strip/a/../b": "/b",
		"/strip//evil.test/a": "/evil.test/a", "/strip?a=1": "/?a=1", "/stripped/a": "/stripped/a", "/strip/../a": "/a", "/a/strip/b": "/a/strip/b",
	} {
		passed2(t, path, message(":path", path), nil, to(want))
	}
}

func http2Queries(t *testing.T) {
	for _, query := range []string{"?", "?a=1;b=2", "?a=1&a=2", "?&&=", "?a=%zz%", "?a=%00", "?a=%2F..%2f", "??", "?a=/../b//c", "?A=b+c%20d", "?a=[1]{2}|3^4`\"<>", "?%61=%41"} {
		passed2(t, query, message(":path", "/a"+query), nil, to("/a"+query))
	}
}

func http2Authorizations(t *testing.T) {
	refused2(t, "two", message(":path", "/admin/x", "authorization", "Bearer a", "authorization", "Bearer b"), nil, "400")
	refused2(t, "the same twice", message(":path", "/admin/x", "authorization", "Bearer a", "authorization", "Bearer a"), nil, "400")
	passed2(t, "one passes on a public route", message("authorization", "Bearer a"), nil, get+"Authorization: Bearer a\r\n\r\n")
}

func http2ConnectionFields(t *testing.T) {
	for _, value := range []string{"x-secret", "keep-alive", "close", "x-auth-subject", "host", ""} {
		forbidden(t, fmt.Sprintf("connection: %q", value), "connection", value, "x-secret", "1")
	}
	t.Run("ours are set", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		s.frames(t).ask(s.fields(message("x-forwarded-for", "6.6.6.6")))
		got := strings.Join(s.Received(), "")
		for _, line := range []string{"\r\nX-Forwarded-For: 127.0.0.1\r\n", "\r\nX-Forwarded-Proto: http\r\n", "\r\nX-Forwarded-Host: " + s.host + "\r\n", "\r\nX-Request-Id: ", "\r\ntraceparent: "} {
			if strings.Count(got, line) != 1 {
				t.Errorf("%q is not there once: %q", line, got)
			}
		}
	})
}

func http2Identities(t *testing.T) {
	for _, name := range []string{"x-auth-subject", "x_auth_subject", "x.auth.subject", "x_auth-subject", "x-auth.subject", "x-auth-scope", "x-auth-anything"} {
		passed2(t, name, message(name, "root"), nil, get+"\r\n")
	}
	passed2(t, "names that only begin alike stay", message("x-authenticated", "1", "x-author", "2"), nil, get+"X-Authenticated: 1\r\nX-Author: 2\r\n\r\n")
	t.Run("set once for a token", func(t *testing.T) {
		t.Parallel()
		p := newIssuer(t)
		m := message(":authority", "a.test", "authorization", "Bearer "+p.token(t, map[string]any{"sub": "alice", "client_id": "web", "scope": "read"}),
			"x-auth-subject", "root", "x_auth_subject", "root", "x.auth.subject", "root")
		if r := dialFrames(t, p.gw.Extra[0]).ask(m); r.status != 200 {
			t.Errorf("got %s %q", r.outcome(), r.body)
		}
		got := strings.ToLower(strings.Join(p.origin.Received(), ""))
		if strings.Count(got, "\r\nx-auth-subject:") != 1 || strings.Contains(got, "root") || !strings.Contains(got, "alice") || strings.Contains(got, "bearer") {
			t.Errorf("the origin received %q", got)
		}
	})
}

func http2Forwarding(t *testing.T) {
	t.Parallel()
	s := take(t, nil)
	m := message()
	for _, f := range [][2]string{
		{"x-forwarded-for", "9.9.9.9, 8.8.8.8"}, {"x-forwarded-for", "7.7.7.7"}, {"x-forwarded-proto", "https"}, {"x-forwarded-host", "evil.test"},
		{"x-forwarded-port", "443"}, {"x-forwarded-anything", "evil"}, {"forwarded", "for=6.6.6.6"}, {"x-real-ip", "6.6.6.6"}, {"x_forwarded_for", "5.5.5.5"},
		{"x-original-url", "/admin"}, {"x-rewrite-url", "/admin"}, {"x-http-method-override", "DELETE"}, {"x-http-method", "DELETE"}, {"x-method-override", "DELETE"},
	} {
		m = append(m, f[0], f[1])
	}
	if r := s.frames(t).ask(s.fields(m)); r.status != 200 {
		t.Fatalf("got %s", r.outcome())
	}
	got := strings.Join(s.Received(), "")
	for _, evil := range []string{"9.9.9.9", "8.8.8.8", "7.7.7.7", "6.6.6.6", "5.5.5.5", "evil", "/admin", "DELETE", "https"} {
		if strings.Contains(got, evil) {
			t.Errorf("the origin learned %q: %q", evil, got)
		}
	}
	if strings.Count(got, "X-Forwarded-For: 127.0.0.1\r\n") != 1 || strings.Count(strings.ToLower(got), "x-forwarded-for:") != 1 {
		t.Errorf("the origin received %q", got)
	}
}

func http2Claims(t *testing.T) {
	t.Parallel()
	p := newIssuer(t)
	c := dialFrames(t, p.gw.Extra[0])
	for _, value := range []string{"a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\x00X-Evil", "h\u00f6"} {
		p.origin.Reset(rig.Always(rig.OK))
		token := p.token(t, map[string]any{"sub": value, "client_id": "web", "scope": "read"})
		if r := c.ask(message(":authority", "a.test", "authorization", "Bearer "+token)); r.status != 200 && r.status != 401 && r.status != 403 {
			t.Errorf("%q: %s %q", value, r.outcome(), r.body)
		}
		for _, got := range p.origin.Received() {
			if _, rest, _ := strings.Cut(got, "\r\n\r\n"); rest != "" || strings.Contains(got, "\nX-Evil") {
				t.Errorf("%q: the origin received %q", value, got)
			}
		}
	}
}
