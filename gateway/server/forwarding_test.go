package server

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/gateway/wire"
)

// forwarded runs the trust rules over a head and returns the client's address,
// the gateway's lines and the names of the client's fields that are left.
func forwarded(t *testing.T, peer, authority string, tls bool, head string) (client, lines string, kept []string) {
	t.Helper()
	s := &Server{}
	s.Trust([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")})
	st := &state{server: s}
	x := &st.x
	x.Peer, x.Authority, x.TLS, x.RequestID = netip.MustParseAddr(peer), []byte(authority), tls, []byte("id")
	x.ClientIP = x.Peer
	var err error
	if x.Fields, err = wire.ScanRequest([]byte(head+"\r\n"), &st.req, nil, 100); err != nil {
		t.Fatal(err)
	}
	st.forwarding()
	for i := range x.Fields {
		if f := &x.Fields[i]; !f.Drop {
			kept = append(kept, string(f.Name))
		}
	}
	return x.ClientIP.String(), string(x.Forwarding), kept
}

func TestS41ClientIsTheRightmostUntrustedHop(t *testing.T) {
	f := func(peer, head, want string) {
		t.Helper()
		if got, _, _ := forwarded(t, peer, "a.example", false, head); got != want {
			t.Errorf("from %s, %q: the client is %s, want %s", peer, head, got, want)
		}
	}
	f("192.0.2.1", "X-Forwarded-For: 203.0.113.7\r\n", "192.0.2.1")
	f("10.0.0.1", "", "10.0.0.1")
	f("10.0.0.1", "X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7")
	f("10.0.0.1", "X-Forwarded-For: 6.6.6.6, 203.0.113.7, 10.0.0.2\r\n", "203.0.113.7")
	f("10.0.0.1", "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7")
	f("10.0.0.1", "X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.3")
	f("10.0.0.1", "X-Forwarded-For: 6.6.6.6, unknown, 10.0.0.2\r\n", "10.0.0.2")
	f("10.0.0.1", "X-Forwarded-For: 203.0.113.7:5123\r\n", "203.0.113.7")
	f("fd00::1", "X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7")
	f("fd00::1", "X-Forwarded-For: [2001:db8::7]\r\n", "2001:db8::7")
	f("fd00::1", "X-Forwarded-For: [2001:db8::7]:5123\r\n", "2001:db8::7")
	f("10.0.0.1", "X-Forwarded-For: ::ffff:203.0.113.7\r\n", "203.0.113.7")
	// What only passed through the proxy is not the proxy's word.
	f("10.0.0.1", "X-Forwarded-For: 203.0.113.7\r\nX.Forwarded.For: 6.6.6.6\r\n", "203.0.113.7")
	f("10.0.0.1", "X-Forwarded-For: 203.0.113.7\r\nX_Forwarded_For: 6.6.6.6\r\n", "203.0.113.7")
	f("10.0.0.1", "X-Forwarded-For: 203.0.113.7\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n", "203.0.113.7")
}

func TestS41FieldsAboutTheClientAreTheProxysOrOurs(t *testing.T) {
	const claims = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\nX-Forwarded-Port: 8443\r\n" +
		"Forwarded: for=203.0.113.7\r\nX-Real-IP: 203.0.113.7\r\n"
	const folded = "X.Forwarded.Proto: https\r\nX.Forwarded.Host: evil.example\r\nX.Real.IP: 6.6.6.6\r\nX_Forwarded_Port: 1\r\n"
	f := func(peer, authority string, tls bool, head, wantLines, wantKept string) {
		t.Helper()
		_, lines, kept := forwarded(t, peer, authority, tls, head)
		if lines != strings.ReplaceAll(wantLines, "\n", "\r\n")+"\r\n" {
			t.Errorf("from %s for %s: lines\n%s\nwant\n%s", peer, authority, lines, wantLines)
		}
		if got := strings.Join(kept, " "); got != wantKept {
			t.Errorf("from %s for %s: kept %s, want %s", peer, authority, got, wantKept)
		}
	}
	f("192.0.2.1", "a.example", false, claims+folded, "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: http\nX-Forwarded-Host: a.example\nX-Request-Id: id\nX-Forwarded-Port: 80", "")
	f("192.0.2.1", "a.example", true, "", "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: a.example\nX-Request-Id: id\nX-Forwarded-Port: 443", "")
	f("192.0.2.1", "a.example:8080", false, "", "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: http\nX-Forwarded-Host: a.example:8080\nX-Request-Id: id\nX-Forwarded-Port: 8080", "")
	f("192.0.2.1", "[2001:db8::1]", true, "", "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: [2001:db8::1]\nX-Request-Id: id\nX-Forwarded-Port: 443", "")
	f("192.0.2.1", "[2001:db8::1]:99", true, "", "X-Forwarded-For: 192.0.2.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: [2001:db8::1]:99\nX-Request-Id: id\nX-Forwarded-Port: 99", "")
	f("10.0.0.1", "a.example", false, claims+folded, "X-Forwarded-For: 203.0.113.7, 10.0.0.1\nX-Request-Id: id",
		"X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port Forwarded X-Real-IP")
	f("10.0.0.1", "a.example", false, "", "X-Forwarded-For: 10.0.0.1\nX-Forwarded-Proto: http\nX-Request-Id: id", "")
}
