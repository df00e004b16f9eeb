package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/routes"
)

// secureBackend tells who its client is.
func secureBackend(t *testing.T, cfg *tls.Config) netip.AddrPort {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if chains := r.TLS.VerifiedChains; len(chains) > 0 {
			name = chains[0][0].Subject.CommonName
		}
		fmt.Fprintf(w, "%s calls %s", name, r.TLS.ServerName)
	}))
	s.TLS = cfg
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// fetch returns the content of the answer, or the reason of the refusal.
func (r *rig) fetch(t *testing.T) string {
	t.Helper()
	resp, err := http.Get("http://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		var problem struct{ Reason string }
		_ = json.Unmarshal(content, &problem)
		return fmt.Sprint(resp.StatusCode, " ", problem.Reason)
	}
	return string(content)
}

func TestServiceIsVerifiedAndShownACertificate(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	internal, stranger, gateways := certstest.NewCA(t, "Internal"), certstest.NewCA(t, "Stranger"), certstest.NewCA(t, "Gateways")
	internal.Write(t, path("ca.pem"))
	gateways.Issue(t, certstest.Wanted{Subject: "gateway"}).Write(t, path("gw.crt"), path("gw.key"))
	stranger.Issue(t, certstest.Wanted{Subject: "stranger"}).Write(t, path("other.crt"), path("other.key"))
	shows := func(leaf *certstest.Leaf) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{leaf.TLS()}}
	}
	good := shows(internal.Issue(t, certstest.Wanted{Names: []string{"orders.internal"}, IPs: []string{"127.0.0.1"}}))
	asks := good.Clone()
	asks.ClientAuth, asks.ClientCAs = tls.RequireAndVerifyClientCert, gateways.Pool()
	old := shows(internal.Issue(t, certstest.Wanted{Names: []string{"orders.internal"}}))
	old.MaxVersion = tls.VersionTLS11
	old.MinVersion = tls.VersionTLS10

	section := func(change func(*routes.ServiceTLS)) *routes.ServiceTLS {
		s := &routes.ServiceTLS{CA: path("ca.pem"), ServerName: "orders.internal"}
		if change != nil {
			change(s)
		}
		return s
	}
	own := section(func(s *routes.ServiceTLS) { s.Cert, s.Key = path("gw.crt"), path("gw.key") })
	f := func(name string, backend *tls.Config, s *routes.ServiceTLS, want string) {
		t.Helper()
		r := serve(t, func(r *routes.Route) {
			r.Upstream.Protocol, r.Upstream.TLS = "https", s
			r.Upstream.Consul = &routes.ConsulService{Service: "orders"}
			r.Upstream.Timeouts.Connect, r.Upstream.Timeouts.Request = 10*time.Second, 20*time.Second
		}, nil, secureBackend(t, backend))
		if got := r.fetch(t); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	const refused = "502 upstream_connect"
	f("good", good, section(nil), "nobody calls orders.internal")
	f("an address", good, section(func(s *routes.ServiceTLS) { s.ServerName = "127.0.0.1" }), "nobody calls ")
	f("the name in Consul is not the certificate's", good, section(func(s *routes.ServiceTLS) { s.ServerName = "" }), refused)
	f("another name", good, section(func(s *routes.ServiceTLS) { s.ServerName = "billing.internal" }), refused)
	f("the system's roots", good, section(func(s *routes.ServiceTLS) { s.CA = "" }), refused)
	f("nothing is said", good, nil, refused)
	f("another CA", shows(stranger.Issue(t, certstest.Wanted{Names: []string{"orders.internal"}})), section(nil), refused)
	f("expired", shows(internal.Issue(t, certstest.Wanted{Names: []string{"orders.internal"}, NotAfter: time.Now().Add(-time.Minute)})), section(nil), refused)
	f("not valid yet", shows(internal.Issue(t, certstest.Wanted{Names: []string{"orders.internal"}, NotBefore: time.Now().Add(time.Minute)})), section(nil), refused)
	f("an old version", old, section(nil), refused)
	f("a certificate is wanted and shown", asks, own, "gateway calls orders.internal")
	f("a certificate may be shown", good, own, "nobody calls orders.internal")
	other := section(func(s *routes.ServiceTLS) { s.Cert, s.Key = path("other.crt"), path("other.key") })
	for name, s := range map[string]*routes.ServiceTLS{"none is shown": section(nil), "another CA's is shown": other} {
		// In TLS 1.3 the client learns only later that it was turned away.
		for version, want := range map[uint16]string{tls.VersionTLS12: refused, tls.VersionTLS13: "502 upstream_reset"} {
			backend := asks.Clone()
			backend.MaxVersion = version
			f(fmt.Sprintf("a certificate is wanted, %s, version %x", name, version), backend, s, want)
		}
	}
}

func TestFilesOfAServiceAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	first, second := certstest.NewCA(t, "First"), certstest.NewCA(t, "Second")
	wanted := certstest.Wanted{Names: []string{"orders.internal"}}
	leaf := first.Issue(t, wanted).TLS()
	cfg := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &leaf, nil }, SessionTicketsDisabled: true}
	ca := filepath.Join(dir, "ca.pem")
	first.Write(t, ca)
	secure := func(r *routes.Route) {
		r.Upstream.Protocol = "https"
		r.Upstream.TLS = &routes.ServiceTLS{CA: ca, ServerName: "orders.internal", Pos: routes.Pos{File: "f", Line: 7, Column: 3}}
		r.Upstream.Timeouts.Connect, r.Upstream.Timeouts.Request = 10*time.Second, 20*time.Second
	}
	r := serve(t, secure, nil, secureBackend(t, cfg))
	const fine = "nobody calls orders.internal"
	if got := r.fetch(t); got != fine {
		t.Fatal(got)
	}
	load := func() error {
		next := route("everything", "/**")
		secure(next)
		file := &routes.File{Routes: []*routes.Route{next}}
		if err := r.gw.Check(file); err != nil {
			return err
		}
		return r.gw.Load(context.Background(), file)
	}
	if err := os.WriteFile(ca, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := load(); err == nil || err.Error() != `f:7:3: service "orders": tls: ca: `+ca+`: no certificate in PEM form` {
		t.Errorf("a broken file: %v", err)
	}
	if got := r.fetch(t); got != fine {
		t.Errorf("after a refused reload: %s", got)
	}
	second.Write(t, ca)
	if err := load(); err != nil {
		t.Fatal(err)
	}
	if got := r.fetch(t); got != "502 upstream_connect" {
		t.Errorf("an instance of the CA that is no longer trusted: %s", got)
	}
	leaf = second.Issue(t, wanted).TLS()
	if got := r.fetch(t); got != fine {
		t.Errorf("an instance of the new CA: %s", got)
	}
}
