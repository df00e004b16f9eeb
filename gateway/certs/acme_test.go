package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/routes"
)

// failures gathers what is reported.
type failures struct {
	mu   sync.Mutex
	list []string
}

func (f *failures) report(domain string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, domain+": "+err.Error())
}

func (f *failures) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list
}

// acmeRig is a TLS listener, and a plain one, in front of an ACME.
type acmeRig struct {
	acme     *ACME
	failures failures
	tls      net.Listener
	plain    net.Listener
}

func (r *acmeRig) port() int { return r.tls.Addr().(*net.TCPAddr).Port }

func newACMERig(t *testing.T) *acmeRig {
	t.Helper()
	r := &acmeRig{}
	for _, ln := range []*net.Listener{&r.tls, &r.plain} {
		var err error
		if *ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// start serves with certificates of the section, besides those of files.
func (r *acmeRig) start(t *testing.T, section *routes.ACME, httpPort int, files ...routes.Certificate) {
	t.Helper()
	var err error
	r.acme, err = NewACME(section, ACMEConfig{Host: "127.0.0.1", TLSPort: r.port(), HTTPPort: httpPort, Report: r.failures.report, Retry: 200 * time.Millisecond, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(&routes.TLS{Certificates: files, ACME: section}, Config{Tickets: NewTickets(), Protocols: []string{"http/1.1"}, ACME: r.acme, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if r.acme.Owns([]byte(strings.Split(req.Host, ":")[0]), []byte(req.URL.Path)) {
			r.acme.ServeHTTP(w, req)
			return
		}
		_, _ = io.WriteString(w, "hello")
	})
	servers := []*http.Server{{Handler: hello, ErrorLog: log.New(io.Discard, "", 0)}, {Handler: hello}}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = servers[0].Serve(l.Listen(r.tls)) })
	running.Go(func() { _ = servers[1].Serve(r.plain) })
	running.Go(func() { _ = r.acme.Run(ctx) })
	t.Cleanup(func() {
		stop()
		for _, s := range servers {
			_ = s.Close()
		}
		running.Wait()
		r.acme.Close()
	})
}

// shown is the certificate for name, nil if there is none yet.
func (r *acmeRig) shown(name string) *x509.Certificate {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", r.tls.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		return nil
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0]
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func section(t *testing.T, p *certstest.Pebble, folder string, domains ...string) *routes.ACME {
	t.Helper()
	path := folder + "/directory.pem"
	if err := os.WriteFile(path, p.CA.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return &routes.ACME{Domains: domains, Email: "ops@example.com", Directory: p.Directory, Storage: folder + "/acme", CA: path}
}

func TestACMEObtainsByTLSAndRenewsShortLivedCertificates(t *testing.T) {
	r, dir := newACMERig(t), t.TempDir()
	p := certstest.StartPebble(t, r.port(), 1, 10*time.Second)
	r.start(t, section(t, p, dir, "api.example.com"), 0)
	var first *x509.Certificate
	eventually(t, "a certificate is shown", func() bool { first = r.shown("api.example.com"); return first != nil })
	if _, err := first.Verify(p.Verify("api.example.com")); err != nil {
		t.Error(err)
	}
	// A client that names nothing gets it too.
	if other := r.shown(""); other == nil || other.DNSNames[0] != "api.example.com" {
		t.Error("nothing is shown without a name")
	}
	eventually(t, "it is renewed", func() bool {
		next := r.shown("api.example.com")
		return next != nil && next.SerialNumber.Cmp(first.SerialNumber) != 0 && next.NotAfter.After(first.NotAfter)
	})
	if list := r.failures.all(); len(list) > 0 {
		t.Errorf("failures: %v", list)
	}
}

func TestACMEObtainsOverHTTPAndKeepsWhatItHas(t *testing.T) {
	r, dir := newACMERig(t), t.TempDir()
	httpPort := r.plain.Addr().(*net.TCPAddr).Port
	// The server finds nobody at its port for TLS.
	p := certstest.StartPebble(t, 1, httpPort, time.Hour)
	s := section(t, p, dir, "api.example.com", "shop.example.com")
	r.start(t, s, httpPort)
	eventually(t, "both certificates are shown", func() bool {
		api, shop := r.shown("api.example.com"), r.shown("shop.example.com")
		return api != nil && shop != nil && api.DNSNames[0] == "api.example.com" && shop.DNSNames[0] == "shop.example.com"
	})
	resp, err := http.Get("http://" + r.plain.Addr().String() + challengePath + "none")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	orders := p.Orders.Load()
	// After a restart they are there at once, whether the server is or not.
	p.Down.Store(true)
	again := newACMERig(t)
	again.start(t, s, 0)
	before := r.shown("api.example.com")
	if got := again.shown("api.example.com"); got == nil || before == nil || !got.Equal(before) {
		t.Error("another certificate after a restart, or none")
	}
	if got := p.Orders.Load(); got != orders {
		t.Errorf("%d orders after the restart", got-orders)
	}
}

func TestACMEFailureIsReportedAndRepeatedAndHoldsUpNobody(t *testing.T) {
	r, dir, ca := newACMERig(t), t.TempDir(), certstest.NewCA(t, "CA")
	p := certstest.StartPebble(t, r.port(), 1, time.Hour)
	p.Down.Store(true)
	r.start(t, section(t, p, dir, "api.example.com"), 0, folder(dir).pair(t, ca, "shop", "shop.example.com"))
	if c := r.shown("shop.example.com"); c == nil || c.DNSNames[0] != "shop.example.com" {
		t.Error("the certificate of a file is not shown")
	}
	eventually(t, "failures are counted", func() bool { return r.acme.Failures()["api.example.com"] >= 2 })
	if list := r.failures.all(); len(list) < 2 || !strings.HasPrefix(list[0], "api.example.com: ") {
		t.Errorf("reported %v", list)
	}
	p.Down.Store(false)
	eventually(t, "it is obtained", func() bool {
		c := r.shown("api.example.com")
		return c != nil && c.DNSNames[0] == "api.example.com"
	})
}

func TestACMEAnswersChallengesOfItsDomainsOnly(t *testing.T) {
	r, dir := newACMERig(t), t.TempDir()
	p := certstest.StartPebble(t, r.port(), 1, time.Hour)
	r.start(t, section(t, p, dir, "api.example.com"), 0)
	eventually(t, "a certificate is shown", func() bool { return r.shown("api.example.com") != nil })
	for _, name := range []string{"other.example.com", "api.example.com", ""} {
		c, err := tls.Dial("tcp", r.tls.Addr().String(), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{challengeProtocol}})
		if err == nil {
			c.Close()
			t.Errorf("%q: a challenge that nobody has asked for is answered", name)
		}
	}
	f := func(host, path string, want bool) {
		t.Helper()
		if got := r.acme.Owns([]byte(host), []byte(path)); got != want {
			t.Errorf("%s%s: %v", host, path, got)
		}
	}
	f("api.example.com", challengePath+"x", true)
	f("other.example.com", challengePath+"x", false)
	f("api.example.com", "/.well-known/openid-configuration", false)
}
