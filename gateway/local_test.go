package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestHandlerSeesTheVerifiedCertificateAndNoOther(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	f := func(encrypted bool, cert *plugins.ClientCertificate, want bool) {
		t.Helper()
		x := plugintest.New("GET", "api.example.com", "/", "Client-Cert: :AAAA:")
		x.TLS, x.ClientCert = encrypted, cert
		l := local{fields: http.Header{}}
		r := l.read(x)
		if (r.TLS != nil) != encrypted || has(r) != want {
			t.Errorf("encrypted %v: TLS %v", encrypted, r.TLS)
		}
	}
	f(true, plugins.NewClientCertificate(leaf), true)
	f(true, nil, false)
	f(false, nil, false)
}

func has(r *http.Request) bool {
	return r.TLS != nil && len(r.TLS.VerifiedChains) == 1 && len(r.TLS.PeerCertificates) == 1 && r.TLS.PeerCertificates[0].SerialNumber.Int64() == 7
}

// The adapter's memory serves one exchange after the other: nothing of one may
// be seen in the next.
func TestHandlerSeesOneExchangeAndAnswersOnlyIt(t *testing.T) {
	var seen []string
	serve := HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content := make([]byte, 4)
		n, _ := r.Body.Read(content)
		seen = append(seen, fmt.Sprint(r.Method, r.URL.Path, r.URL.RawQuery, r.RequestURI, r.Header["X-Twice"], r.Header.Get("Accept"), string(content[:n])))
		w.Header().Set("X-Injected", "a\r\nSet-Cookie: b")
		if r.Method == http.MethodPost {
			w.Header().Set("X-Posted", "yes")
			w.WriteHeader(http.StatusCreated)
		}
		_, _ = w.Write([]byte("for " + r.URL.Path))
	}))
	f := func(x *plugins.Exchange, status int, body, sees string) string {
		t.Helper()
		if err := serve(x); err != nil {
			t.Fatal(err)
		}
		got := plugintest.Client(x)
		if got.Head.Status != status || got.Content.String() != body || seen[len(seen)-1] != sees {
			t.Errorf("status %d, %q; the handler saw %s", got.Head.Status, got.Content.String(), seen[len(seen)-1])
		}
		return got.Fields
	}
	x := plugintest.WithBody(plugintest.New("POST", "api.example.com", "/a%20b?q=1", "X-Twice: 1", "x-twice: 2", "accept: text/html"), "content that is not read to its end")
	fields := f(x, 201, "for /a b", "POST/a bq=1/a%20b?q=1[1 2]text/htmlcont")
	if fields != "X-Injected: a  Set-Cookie: b\r\nX-Posted: yes\r\nContent-Length: 8\r\n" {
		t.Errorf("fields %q", fields)
	}
	fields = f(plugintest.New("GET", "api.example.com", "/c"), 200, "for /c", "GET/c/c[]")
	if fields != "X-Injected: a  Set-Cookie: b\r\nContent-Length: 6\r\n" {
		t.Errorf("fields %q", fields)
	}
}
