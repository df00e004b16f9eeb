package certs

import (
	"crypto/tls"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/routes"
)

func TestClientCertificates(t *testing.T) {
	ca, partners, stranger, d := certstest.NewCA(t, "CA"), certstest.NewCA(t, "Partners"), certstest.NewCA(t, "Stranger"), folder(t.TempDir())
	partners.Write(t, d.path("partners.pem"))
	section := &routes.TLS{Certificates: []routes.Certificate{d.pair(t, ca, "api", "api.example.com")}, ClientCA: d.path("partners.pem")}
	issued := func(by *certstest.CA, w certstest.Wanted) *certstest.Leaf {
		w.Names = []string{"batch"}
		return by.Issue(t, w)
	}
	good, expired := issued(partners, certstest.Wanted{}), issued(partners, certstest.Wanted{NotAfter: time.Now().Add(-time.Minute)})
	f := func(name, auth string, leaf *certstest.Leaf, version uint16, ok, verified bool) {
		t.Helper()
		section.ClientAuth = auth
		l := newListener(t, section, time.Now)
		cfg := client(ca, "api.example.com")
		cfg.MaxVersion = version
		if leaf != nil {
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { c := leaf.TLS(); return &c, nil }
		}
		_, state, clientErr, serverErr := handshake(t, l, cfg)
		if (clientErr == nil) != ok || (serverErr == nil) != ok {
			t.Errorf("%s: client %v, server %v", name, clientErr, serverErr)
		}
		if got := len(state.VerifiedChains) > 0; got != verified {
			t.Errorf("%s: verified %v", name, got)
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		f("required and shown", "require", good, version, true, true)
		f("required and absent", "require", nil, version, false, false)
		f("required, of a stranger", "require", issued(stranger, certstest.Wanted{}), version, false, false)
		f("required, expired", "require", expired, version, false, false)
		f("requested and shown", "request", good, version, true, true)
		f("requested and absent", "request", nil, version, true, false)
		f("requested, of a stranger", "request", issued(stranger, certstest.Wanted{}), version, false, false)
		f("requested, expired", "request", expired, version, false, false)
	}
}

func TestClientCAIsReplaced(t *testing.T) {
	ca, old, fresh, d := certstest.NewCA(t, "CA"), certstest.NewCA(t, "Old"), certstest.NewCA(t, "Fresh"), folder(t.TempDir())
	old.Write(t, d.path("clients.pem"))
	section := &routes.TLS{Certificates: []routes.Certificate{d.pair(t, ca, "api", "api.example.com")}, ClientCA: d.path("clients.pem"), ClientAuth: "require"}
	l := newListener(t, section, time.Now)
	// The client of the old CA has a session, which must not outlive the CA.
	configs := map[*certstest.CA]*tls.Config{}
	for _, by := range []*certstest.CA{old, fresh} {
		cfg := client(ca, "api.example.com")
		cfg.Certificates = []tls.Certificate{by.Issue(t, certstest.Wanted{Names: []string{"batch"}}).TLS()}
		cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		configs[by] = cfg
	}
	f := func(step string, by *certstest.CA, ok, resumed bool) {
		t.Helper()
		state, _, err, _ := handshake(t, l, configs[by])
		if (err == nil) != ok || state.DidResume != resumed {
			t.Errorf("%s, %s: error %v, resumed %v", step, by.Cert.Subject.CommonName, err, state.DidResume)
		}
	}
	f("before", old, true, false)
	f("before", old, true, true)
	f("before", fresh, false, false)
	load := func(content []byte, wantStale int) {
		t.Helper()
		if err := os.WriteFile(d.path("clients.pem"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if stale, err := l.Load(section); err != nil || len(stale) != wantStale {
			t.Fatal(stale, err)
		}
	}
	load([]byte("half a file"), 1)
	f("broken", old, true, true)
	load(fresh.PEM(), 0)
	f("after", old, false, false)
	f("after", fresh, true, false)
}

func TestParseCAsAcceptsCertificatesOnly(t *testing.T) {
	ca := certstest.NewCA(t, "CA")
	_, key := ca.Issue(t, certstest.Wanted{Names: []string{"a"}}).PEM(t)
	f := func(content, want string) {
		t.Helper()
		_, err := ParseCAs([]byte(content))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.30q: %v, want %q", content, err, want)
		}
	}
	f(string(ca.PEM()), "")
	f("# a comment\n"+string(ca.PEM())+string(ca.PEM()), "")
	f("", "no certificate")
	f("text", "no certificate")
	f(string(ca.PEM())+string(key), "PRIVATE KEY")
	f("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x509")
}
