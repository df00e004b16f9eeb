package certstest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// Pebble is an ACME server that finds every domain on this machine.
type Pebble struct {
	Directory string // its URL
	CA        *CA    // of the directory itself
	Orders    atomic.Int64
	Down      atomic.Bool // it answers 503

	issuer *ca.CAImpl
}

// Verify is how a client verifies a certificate of the server for name.
func (p *Pebble) Verify(name string) x509.VerifyOptions {
	o := x509.VerifyOptions{DNSName: name, Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	o.Roots.AddCert(p.issuer.GetRootCert(0).Cert)
	o.Intermediates.AddCert(p.issuer.GetIntermediateCert(0).Cert)
	return o
}

// StartPebble starts one whose certificates live for life. It looks for
// answers at the ports.
func StartPebble(t *testing.T, tlsPort, httpPort int, life time.Duration) *Pebble {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	t.Setenv("PEBBLE_AUTHZREUSE", "0")
	names, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	resolver := &dns.Server{Listener: names, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		answer := new(dns.Msg).SetReply(r)
		if q := r.Question[0]; q.Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		_ = w.WriteMsg(answer)
	})}
	go func() { _ = resolver.ActivateAndServe() }()
	t.Cleanup(func() { _ = resolver.Shutdown() })

	quiet, store := log.New(io.Discard, "", 0), db.NewMemoryStore()
	p := &Pebble{CA: NewCA(t, "Directory")}
	p.issuer = ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {ValidityPeriod: uint64(life / time.Second)}})
	judge := va.New(quiet, httpPort, tlsPort, true, names.Addr().String(), store)
	front := wfe.New(quiet, store, judge, p.issuer, []string{"pebble.test"}, true, false, 1, 1)
	handler := front.Handler()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.Down.Load() {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/order-plz") {
			p.Orders.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{p.CA.Issue(t, Wanted{IPs: []string{"127.0.0.1"}}).TLS()}}
	s.StartTLS()
	t.Cleanup(s.Close)
	p.Directory = s.URL + wfe.DirectoryPath
	return p
}
