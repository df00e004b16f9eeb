package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/routes"
)

// folder is where a test's files stand.
type folder string

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

// pair issues a certificate into NAME.crt and NAME.key.
func (d folder) pair(t *testing.T, ca *certstest.CA, name string, names ...string) routes.Certificate {
	t.Helper()
	c := routes.Certificate{Cert: d.path(name + ".crt"), Key: d.path(name + ".key")}
	ca.Issue(t, certstest.Wanted{Names: names}).Write(t, c.Cert, c.Key)
	return c
}

func newListener(t *testing.T, section *routes.TLS, now func() time.Time, secrets ...[]byte) *Listener {
	t.Helper()
	l, err := New(section, Config{Tickets: NewTickets(secrets...), Protocols: []string{"http/1.1"}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// handshake connects once, exchanges a byte each way (so that tickets arrive)
// and returns what both sides saw.
func handshake(t *testing.T, l *Listener, client *tls.Config) (c, s tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	type served struct {
		state tls.ConnectionState
		err   error
	}
	done := make(chan served, 1)
	go func() {
		nc, err := ln.Accept()
		if err != nil {
			done <- served{err: err}
			return
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(time.Minute))
		conn := tls.Server(nc, l.TLS())
		err = conn.Handshake()
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		if err == nil {
			_, err = conn.Write([]byte("y"))
		}
		done <- served{conn.ConnectionState(), err}
	}()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	conn := tls.Client(nc, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		if _, clientErr = conn.Write([]byte("x")); clientErr == nil {
			_, clientErr = conn.Read(make([]byte, 1))
		}
	}
	c = conn.ConnectionState()
	nc.Close()
	end := <-done
	return c, end.state, clientErr, end.err
}

func client(ca *certstest.CA, name string) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: name}
}

func TestCertificateIsChosenByName(t *testing.T) {
	ca, d := certstest.NewCA(t, "CA"), folder(t.TempDir())
	section := &routes.TLS{Certificates: []routes.Certificate{
		d.pair(t, ca, "first", "first.example"),
		d.pair(t, ca, "wild", "*.example.com", "example.com"),
		d.pair(t, ca, "api", "api.example.com", "API2.example.com"),
	}}
	l := newListener(t, section, time.Now)
	f := func(asked, want string) {
		t.Helper()
		cfg := client(ca, asked)
		cfg.InsecureSkipVerify = true // which certificate is the question
		state, _, err, _ := handshake(t, l, cfg)
		if err != nil {
			t.Fatalf("%q: %v", asked, err)
		}
		if got := state.PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("%q: shown %s, want %s", asked, got, want)
		}
	}
	f("first.example", "first.example")
	f("api.example.com", "api.example.com")
	f("API.EXAMPLE.COM", "api.example.com")
	f("api2.example.com", "api.example.com")
	f("example.com", "*.example.com")
	f("shop.example.com", "*.example.com")
	f("a.shop.example.com", "first.example") // a wildcard is one label
	f("other.example", "first.example")
	f("", "first.example")
}

// RFC 9113, 9.1.2: which other hosts a connection may be used for.
func TestCoversWhatTheShownCertificateIsGoodFor(t *testing.T) {
	ca, d := certstest.NewCA(t, "CA"), folder(t.TempDir())
	l := newListener(t, &routes.TLS{Certificates: []routes.Certificate{
		d.pair(t, ca, "first", "first.example"),
		d.pair(t, ca, "wild", "*.example.com"),
		d.pair(t, ca, "both", "api.example.com", "shop.example.com"),
		d.pair(t, ca, "one", "api.example.com"), // of another kind, for old clients
	}}, time.Now)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	covering := l.Listen(ln).(interface {
		Covers(name, other string) bool
	})
	f := func(name, other string, want bool) {
		t.Helper()
		if got := covering.Covers(name, other); got != want {
			t.Errorf("shown for %s, used for %s: %v", name, other, got)
		}
	}
	f("first.example", "first.example", true)
	f("a.example.com", "b.example.com", true)
	f("a.example.com", "example.com", false)
	f("a.example.com", "first.example", false)
	f("api.example.com", "shop.example.com", false) // not of every certificate that may be shown
	f("shop.example.com", "api.example.com", true)
	f("other.example", "first.example", false) // others are shown where no name is known
}

func TestOnlyModernVersionsAndSuites(t *testing.T) {
	ca, d := certstest.NewCA(t, "CA"), folder(t.TempDir())
	one := []routes.Certificate{d.pair(t, ca, "api", "api.example.com")}
	f := func(name, min string, change func(*tls.Config), want uint16, curve tls.CurveID) {
		t.Helper()
		l := newListener(t, &routes.TLS{Certificates: one, MinVersion: min}, time.Now)
		cfg := client(ca, "api.example.com")
		change(cfg)
		state, _, err, _ := handshake(t, l, cfg)
		switch {
		case want == 0 && err == nil:
			t.Errorf("%s: connected with version %x, suite %x", name, state.Version, state.CipherSuite)
		case want != 0 && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != 0 && (state.Version != want || curve != 0 && state.CurveID != curve):
			t.Errorf("%s: version %x, curve %v", name, state.Version, state.CurveID)
		}
	}
	f("the default is 1.3 with a hybrid key exchange", "1.2", func(*tls.Config) {}, tls.VersionTLS13, tls.X25519MLKEM768)
	f("P-256", "1.2", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} }, tls.VersionTLS13, tls.CurveP256)
	f("1.2", "1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, tls.VersionTLS12, 0)
	f("1.1", "1.2", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, 0, 0)
	f("1.2 where 1.3 is the least", "1.3", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, 0, 0)
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		want := uint16(0)
		if name := suite.Name; strings.Contains(name, "ECDHE_ECDSA") && (strings.Contains(name, "GCM") || strings.Contains(name, "CHACHA20")) {
			want = tls.VersionTLS12
		}
		if suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		f(suite.Name, "1.2", func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite.ID} }, want, 0)
	}
}

func shownTo(t *testing.T, l *Listener, ca *certstest.CA) *x509.Certificate {
	t.Helper()
	state, _, err, _ := handshake(t, l, client(ca, "api.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	return state.PeerCertificates[0]
}

func TestLoadReplacesACertificate(t *testing.T) {
	ca, d := certstest.NewCA(t, "CA"), folder(t.TempDir())
	// As Kubernetes mounts secrets: a link to a folder, which is swapped.
	for _, version := range []string{"v1", "v2"} {
		if err := os.Mkdir(d.path(version), 0o700); err != nil {
			t.Fatal(err)
		}
		folder(d.path(version)).pair(t, ca, "tls", "api.example.com")
	}
	point := func(version string) {
		t.Helper()
		if err := os.Symlink(version, d.path("next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(d.path("next"), d.path("live")); err != nil {
			t.Fatal(err)
		}
	}
	point("v1")
	section := &routes.TLS{Certificates: []routes.Certificate{{Cert: d.path("live/tls.crt"), Key: d.path("live/tls.key")}}}
	l := newListener(t, section, time.Now)
	before := shownTo(t, l, ca)
	point("v2")
	if stale, err := l.Load(section); err != nil || len(stale) > 0 {
		t.Fatal(stale, err)
	}
	if after := shownTo(t, l, ca); after.Equal(before) {
		t.Error("the old certificate is still shown")
	}
}

func TestBrokenPairKeepsTheLastGoodOne(t *testing.T) {
	ca, d := certstest.NewCA(t, "CA"), folder(t.TempDir())
	api, other := d.pair(t, ca, "api", "api.example.com"), d.pair(t, ca, "other", "other.example")
	api.Pos = routes.Pos{File: "gatehouse.yaml", Line: 3, Column: 5}
	section := &routes.TLS{Certificates: []routes.Certificate{api, other}}
	l := newListener(t, section, time.Now)
	before := shownTo(t, l, ca)
	if s := l.Status(); len(s) != 2 || s[0].Name != "api.example.com" || s[0].Stale || !s[0].Expiry.Equal(before.NotAfter) {
		t.Errorf("status %+v", s)
	}
	// The certificate is renewed, its key comes a moment later.
	cert, key := ca.Issue(t, certstest.Wanted{Names: []string{"api.example.com"}}).PEM(t)
	if err := os.WriteFile(api.Cert, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	stale, err := l.Load(section)
	if err != nil || len(stale) != 1 || !strings.HasPrefix(stale[0].Error(), "gatehouse.yaml:3:5: tls: ") {
		t.Fatal(stale, err)
	}
	if !shownTo(t, l, ca).Equal(before) || !l.Status()[0].Stale || l.Status()[1].Stale {
		t.Error("the last good certificate is not kept")
	}
	if err := os.WriteFile(api.Key, key, 0o600); err != nil {
		t.Fatal(err)
	}
	if stale, err = l.Load(section); err != nil || len(stale) > 0 {
		t.Fatal(stale, err)
	}
	if shownTo(t, l, ca).Equal(before) || l.Status()[0].Stale {
		t.Error("the renewed certificate is not shown")
	}
}

func TestPairThatNeverWasGoodIsRefused(t *testing.T) {
	ca, d := certstest.NewCA(t, "CA"), folder(t.TempDir())
	api, other := d.pair(t, ca, "api", "api.example.com"), d.pair(t, ca, "other", "other.example")
	mixed := routes.Certificate{Cert: api.Cert, Key: other.Key, Pos: routes.Pos{File: "f", Line: 1, Column: 1}}
	none := routes.Certificate{Cert: api.Cert, Key: d.path("none"), Pos: routes.Pos{File: "f", Line: 2, Column: 1}}
	l := newListener(t, &routes.TLS{Certificates: []routes.Certificate{api}}, time.Now)
	bad := &routes.TLS{Certificates: []routes.Certificate{mixed, api, none}}
	for _, refuse := range []func() error{
		func() error { return l.Check(bad) },
		func() error { _, err := l.Load(bad); return err },
		func() error { _, err := New(bad, Config{Tickets: NewTickets(), Now: time.Now}); return err },
	} {
		var problems routes.Problems
		if err := refuse(); !errors.As(err, &problems) || len(problems) != 2 || problems[1].Pos.Line != 2 {
			t.Errorf("got %v", err)
		}
	}
	if len(l.Status()) != 1 {
		t.Error("a refused load changed something")
	}
}
