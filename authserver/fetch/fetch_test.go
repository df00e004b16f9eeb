package fetch

import (
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func TestOnlyHTTPSToPublicAddresses(t *testing.T) {
	f := func(raw string, open, lab bool) {
		t.Helper()
		if err := New(Config{}).Check(raw); (err == nil) != open {
			t.Errorf("%s: %v, want it allowed: %v", raw, err, open)
		}
		if err := New(Config{Networks: loopback}).Check(raw); (err == nil) != lab {
			t.Errorf("%s with loopback: %v, want it allowed: %v", raw, err, lab)
		}
	}
	f("https://client.example.com/jwks", true, true)
	f("https://93.184.216.34/jwks", true, true)
	f("http://client.example.com/jwks", false, false)
	f("ftp://client.example.com/jwks", false, false)
	f("file:///etc/passwd", false, false)
	f("https://user:pw@client.example.com/", false, false)
	f("https://client.example.com/#f", false, false)
	f("https:///jwks", false, false)
	f("http://127.0.0.1:8080/", false, true)
	f("https://localhost/", false, true)
	f("https://[::ffff:10.0.0.1]/", false, false)
	for _, ip := range []string{"10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
		"[fd00::1]", "[fe80::1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "[::]", "224.0.0.1", "255.255.255.255"} {
		f("https://"+ip+"/", false, false)
	}
}

// The name is what the client chose; the address behind it is what counts.
func TestNameThatLeadsToLoopbackIsRefusedWhenDialled(t *testing.T) {
	called := false
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called = true }))
	defer server.Close()
	f := New(Config{})
	addr := server.Listener.Addr().String()
	if err := f.control(context.Background(), "tcp", addr, nil); err == nil {
		t.Error("the dialer would open a socket to loopback")
	}
	if _, _, err := f.Get(t.Context(), "https://localhost:"+addr[strings.LastIndex(addr, ":")+1:]); err == nil || called {
		t.Errorf("err %v, called %v", err, called)
	}
}

func TestDocumentIsBoundedAndRedirectsAreNotFollowed(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/small":
			io.WriteString(w, "{}")
		case "/big":
			io.WriteString(w, strings.Repeat("x", most+1))
		case "/redirect":
			http.Redirect(w, r, "/small", http.StatusFound)
		case "/post":
			w.WriteHeader(http.StatusNoContent)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	f := New(Config{Networks: loopback, Roots: roots})
	if body, _, err := f.Get(t.Context(), server.URL+"/small"); err != nil || string(body) != "{}" {
		t.Errorf("%q %v", body, err)
	}
	for _, path := range []string{"/big", "/redirect", "/nothing"} {
		if _, _, err := f.Get(t.Context(), server.URL+path); err == nil {
			t.Errorf("%s was taken", path)
		}
	}
	if status, err := f.Post(t.Context(), server.URL+"/post", url.Values{"a": {"b"}}); err != nil || status != 204 {
		t.Errorf("%d %v", status, err)
	}
	if _, _, err := New(Config{Networks: loopback}).Get(t.Context(), server.URL+"/small"); err == nil {
		t.Error("a certificate that nobody vouches for was taken")
	}
}
