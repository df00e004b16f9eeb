package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
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
