package edge

import (
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

func TestS27_TwoAuthorizations(t *testing.T) {
	const two = "Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n"
	refused(t, "on a protected route", "GET /admin/x HTTP/1.1\r\nHost: {host}\r\n"+two, 400)
	refused(t, "the same twice", "GET /admin/x HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer a\r\nAuthorization: Bearer a\r\n\r\n", 400)
	passed(t, "one passes on a public route", get+"Authorization: Bearer a\r\n\r\n", get+"Authorization: Bearer a\r\n\r\n")
}

func TestS28_FieldsThatConnectionNames(t *testing.T) {
	passed(t, "do not travel", get+"Connection: X-Secret\r\nX-Secret: 1\r\nX-B: 2\r\n\r\n", get+"X-B: 2\r\n\r\n")
	passed(t, "of a second line", get+"X-Secret: 1\r\nConnection: keep-alive\r\nX-Secret: 2\r\nConnection: a, x-SECRET ,\r\n\r\n", get+"\r\n")
	passed(t, "identity fields", get+"Connection: X-Auth-Subject\r\nX-Auth-Subject: root\r\n\r\n", get+"\r\n")
	passed(t, "on which routing and trust rest travel", get+"Connection: Host, Authorization, Cookie, Content-Type, X-Request-Id\r\nAuthorization: b\r\nCookie: c\r\nContent-Type: d\r\n\r\n",
		get+"Authorization: b\r\nCookie: c\r\nContent-Type: d\r\n\r\n")
	passed(t, "Content-Length travels", post+"Connection: Content-Length\r\nContent-Length: 3\r\n\r\nabc", post+"Content-Length: 3\r\n\r\nabc")
	t.Run("ours are set afterwards", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		s.dial(t).Ask("GET", s.in(get+"Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, traceparent\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"))
		got := strings.Join(s.Received(), "")
		for _, line := range []string{"\r\nX-Forwarded-For: 127.0.0.1\r\n", "\r\nX-Forwarded-Proto: http\r\n", "\r\nX-Forwarded-Host: " + s.host + "\r\n", "\r\nX-Request-Id: ", "\r\ntraceparent: "} {
			if strings.Count(got, line) != 1 {
				t.Errorf("%q is not there once: %q", line, got)
			}
		}
	})
}

// spellings of one name that some server behind us may take for it.
var spellings = []string{"X-Auth-Subject", "x-auth-subject", "X-AUTH-SUBJECT", "X_Auth_Subject", "X.Auth.Subject", "x_auth-subject", "X-Auth.Subject", "X-Auth-Scope", "X-Auth-Identity", "X-Auth-Anything"}

func TestS40_IdentityFieldsComeFromTheGatewayOnly(t *testing.T) {
	for _, name := range spellings {
		passed(t, name, get+name+": root\r\n\r\n", get+"\r\n")
		passed(t, name+" in a trailer", post+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"+name+": root\r\n\r\n",
			post+"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
	}
	passed(t, "names that only begin alike stay", get+"X-Authenticated: 1\r\nX-Author: 2\r\n\r\n", get+"X-Authenticated: 1\r\nX-Author: 2\r\n\r\n")
	passed(t, "announced trailers do not travel either", post+"Trailer: X-Auth-Subject\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Auth-Subject: root\r\n\r\n",
		post+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	t.Run("set once for a token", func(t *testing.T) {
		t.Parallel()
		p := newIssuer(t)
		s := p.get(t, p.token(t, map[string]any{"sub": "alice", "client_id": "web", "scope": "read"}), "X-Auth-Subject: root\r\nX_AUTH_SUBJECT: root\r\nConnection: X-Auth-Subject\r\n")
		got := strings.ToLower(strings.Join(s.Received(), ""))
		if strings.Count(got, "\r\nx-auth-subject:") != 1 || strings.Contains(got, "root") || !strings.Contains(got, "alice") {
			t.Errorf("the origin received %q", got)
		}
		if strings.Contains(got, "authorization") || strings.Contains(got, "bearer") {
			t.Errorf("the token went on: %q", got)
		}
	})
}

func TestS41_ForwardingFields(t *testing.T) {
	const claims = "X-Forwarded-For: 9.9.9.9, 8.8.8.8\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Anything: evil\r\n" +
		"Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 5.5.5.5\r\nX-Original-URL: /admin\r\nX-Rewrite-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: DELETE\r\n"
	t.Run("of anybody are replaced", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		if a := s.dial(t).Ask("GET", s.in(get+claims+"\r\n")); a.Status != 200 {
			t.Fatalf("got %q", a.Head)
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
	})
	t.Run("of trusted peers are continued", func(t *testing.T) {
		t.Parallel()
		o, err := rig.NewOrigin()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(o.Close)
		g := rig.Run(t, rig.Options{Config: "trusted_proxies: [127.0.0.0/8, 8.8.8.8/32]\naccess_log: {enabled: true}\nserver: {drain_delay: 1ms}\n" +
			"services: {a: {targets: [\"http://" + o.Addr + "\"]}}\nroutes: [{path: /**, service: a, public: true}]\n"})
		if a := rig.Dial(t, g.Addr).Ask("GET", "GET /a HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 9.9.9.9, 7.7.7.7\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 5.5.5.5\r\nX-Original-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\n\r\n"); a.Status != 200 {
			t.Fatalf("got %q", a.Head)
		}
		got := strings.Join(o.Received(), "")
		if strings.Count(got, "X-Forwarded-For: 9.9.9.9, 7.7.7.7, 8.8.8.8, 127.0.0.1\r\n") != 1 || strings.Count(strings.ToLower(got), "x-forwarded-for:") != 1 ||
			strings.Count(strings.ToLower(got), "x-forwarded-proto: https\r\n") != 1 {
			t.Errorf("the origin received %q", got)
		}
		for _, evil := range []string{"5.5.5.5", "/admin", "DELETE"} {
			if strings.Contains(got, evil) {
				t.Errorf("the origin learned %q: %q", evil, got)
			}
		}
		rig.Eventually(t, "the client is the right-most address that is not trusted", func() bool {
			return strings.Contains(g.Log(), `"client.address":"7.7.7.7"`)
		})
	})
}

func TestS42_ClaimsCannotSplitMessages(t *testing.T) {
	p := newIssuer(t)
	for _, value := range []string{"a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\x00X-Evil", "h\u00f6", "a\u2028b", "\x7f"} {
		for _, claim := range []string{"sub", "client_id", "scope", "sid"} {
			claims := map[string]any{"sub": "alice", "client_id": "web", "scope": "read", "sid": "s"}
			claims[claim] = value
			if claim == "scope" {
				claims[claim] = "read " + value
			}
			s := p.get(t, p.token(t, claims), "")
			for _, got := range s.Received() {
				head, rest, _ := strings.Cut(got, "\r\n\r\n")
				if rest != "" {
					t.Errorf("%s %q: something stands behind the head: %q", claim, value, got)
				}
				for line := range strings.SplitSeq(head, "\r\n") {
					if strings.HasPrefix(line, "X-Evil") || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' }) {
						t.Errorf("%s %q: the origin received the line %q", claim, value, line)
					}
				}
			}
		}
	}
}
