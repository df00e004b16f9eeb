// Package certs is what a listener shows and asks for in a TLS handshake.
//
// It owns the choice of a certificate by the name that the client asks for,
// certificates that an ACME server issues, the CAs of clients, the versions and suites, the keys of session tickets,
// and how files replace what was read from them. It does not own sockets and
// protocols above TLS (gateway/server), nor who watches the files
// (cmd/gatehouse).
//
//	l, err := certs.New(file.Listeners[0].TLS, certs.Config{Tickets: tickets, Now: time.Now})
//	ln = l.Listen(ln)
//	stale, err := l.Load(reloaded.Listeners[0].TLS)
package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/routes"
)

// Config is what the TLS section of a listener does not say.
type Config struct {
	Tickets *Tickets
	// ACME has further certificates; nil: there are none.
	ACME *ACME
	// Protocols are offered by ALPN, the preferred one first.
	Protocols []string
	Now       func() time.Time
}

// Listener is the TLS of one listener. Its methods may be called concurrently.
type Listener struct {
	cfg     Config
	loading sync.Mutex
	current atomic.Pointer[state]
}

// state is what was read from the files; immutable but for the config in use.
type state struct {
	pairs    []*pair
	choice   choice
	clientCA *authority // nil: no certificate is asked for
	template *tls.Config
	// context separates the tickets of listeners that trust different clients.
	context [sha256.Size]byte
	serving atomic.Pointer[serving]
}

// serving is a config with the ticket keys of one window.
type serving struct {
	window int64
	config *tls.Config
}

// pair is a certificate and the files that it came from.
type pair struct {
	file  routes.Certificate
	cert  *tls.Certificate
	stale bool // the files hold something else that cannot be used
}

// authority is a set of CAs and the file that it came from.
type authority struct {
	path  string
	pool  *x509.CertPool
	sum   [sha256.Size]byte
	stale bool
}

// New reads the files of t. The error is routes.Problems.
func New(t *routes.TLS, c Config) (*Listener, error) {
	l := &Listener{cfg: c}
	_, err := l.Load(t)
	return l, err
}

// Check reports, as routes.Problems, what Load would refuse, and changes
// nothing.
func (l *Listener) Check(t *routes.TLS) error {
	_, _, err := l.read(t)
	return err
}

// Load reads the files of t again; handshakes from now on use them. Files that
// cannot be used any longer, but could be before, are told in stale: what was
// read from them before stays in use. Any other problem is an error, after
// which nothing has changed.
func (l *Listener) Load(t *routes.TLS) (stale []error, err error) {
	l.loading.Lock()
	defer l.loading.Unlock()
	next, stale, err := l.read(t)
	if err == nil {
		l.current.Store(next)
	}
	return stale, err
}

// TLS is the configuration to serve with. It follows every Load and the
// rotation of the ticket keys.
func (l *Listener) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: l.cfg.Protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if l.cfg.ACME != nil && asked(hello) {
				return l.cfg.ACME.challenge(), nil
			}
			return l.config(), nil
		},
	}
}

// config is the state's with the keys of the present window.
func (l *Listener) config() *tls.Config {
	s, now := l.current.Load(), l.cfg.Now()
	window := ticketWindow(now)
	if in := s.serving.Load(); in != nil && in.window == window {
		return in.config
	}
	// Two handshakes may do this at the same time, with the same result.
	c := s.template.Clone()
	c.SetSessionTicketKeys(l.cfg.Tickets.keys(window, s.context))
	s.serving.Store(&serving{window, c})
	return c
}

// Listen returns a listener of TLS connections over ln.
func (l *Listener) Listen(ln net.Listener) net.Listener {
	return secured{tls.NewListener(ln, l.TLS()), l}
}

// secured is a net.Listener that knows its certificates.
type secured struct {
	net.Listener
	certs *Listener
}

// Covers reports whether the certificate that a client which asked for name is
// shown is good for other too.
func (s secured) Covers(name, other string) bool { return s.certs.Covers(name, other) }

// Covers reports whether the certificate that a client which asked for name is
// shown is good for other too.
func (l *Listener) Covers(name, other string) bool {
	return l.current.Load().choice.covers(name, other)
}

// Status is a certificate in use.
type Status struct {
	// Name is the first name of the certificate.
	Name   string
	Expiry time.Time
	// Stale tells that its files hold something that cannot be used.
	Stale bool
}

// Status tells of every certificate, in the order of the file, and then of
// those that were issued by ACME.
func (l *Listener) Status() (list []Status) {
	for _, p := range l.current.Load().pairs {
		list = append(list, Status{nameOf(p.cert.Leaf), p.cert.Leaf.NotAfter, p.stale})
	}
	if l.cfg.ACME != nil {
		for _, c := range l.cfg.ACME.all() {
			list = append(list, Status{Name: nameOf(c.Leaf), Expiry: c.Leaf.NotAfter})
		}
	}
	return list
}

// nameOf is the name by which people know a certificate.
func nameOf(leaf *x509.Certificate) string {
	switch {
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return leaf.Subject.CommonName
}

// read makes the state of t, with what is in use where a file is broken.
func (l *Listener) read(t *routes.TLS) (next *state, stale []error, err error) {
	old := l.current.Load()
	if old == nil {
		old = &state{}
	}
	next = &state{}
	var problems routes.Problems
	fail := func(pos routes.Pos, kept bool, err error) {
		p := routes.Problem{Pos: pos, Message: "tls: " + err.Error()}
		if kept {
			stale = append(stale, p)
		} else {
			problems = append(problems, p)
		}
	}
	for _, file := range t.Certificates {
		p := &pair{file: file}
		read, err := tls.LoadX509KeyPair(file.Cert, file.Key)
		if err == nil {
			p.cert = &read
		} else {
			kept := old.find(file)
			fail(file.Pos, kept != nil, err)
			if kept == nil {
				continue
			}
			p.cert, p.stale = kept.cert, true
		}
		next.pairs = append(next.pairs, p)
	}
	if t.ClientCA != "" {
		next.clientCA, err = readAuthority(t.ClientCA)
		if err != nil {
			kept := old.clientCA != nil && old.clientCA.path == t.ClientCA
			fail(t.Pos, kept, fmt.Errorf("client_ca: %w", err))
			if kept {
				next.clientCA = &authority{t.ClientCA, old.clientCA.pool, old.clientCA.sum, true}
			}
		}
	}
	if len(problems) > 0 {
		return nil, stale, problems
	}
	next.prepare(t, l.cfg)
	return next, stale, nil
}

func (s *state) find(file routes.Certificate) *pair {
	for _, p := range s.pairs {
		if p.file.Cert == file.Cert && p.file.Key == file.Key {
			return p
		}
	}
	return nil
}

// prepare makes the template and what it rests on.
func (s *state) prepare(t *routes.TLS, c Config) {
	s.choice.acme = c.ACME
	for _, p := range s.pairs {
		s.choice.add(p.cert)
	}
	s.template = &tls.Config{
		Time:         c.Now,
		MinVersion:   tls.VersionTLS12,
		CipherSuites: suites,
		// The hybrid first: what is recorded today stays closed to a quantum
		// computer.
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		NextProtos:       c.Protocols,
		GetCertificate:   s.choice.get,
	}
	if t.MinVersion == "1.3" {
		s.template.MinVersion = tls.VersionTLS13
	}
	if s.clientCA == nil {
		return
	}
	s.template.ClientCAs = s.clientCA.pool
	s.template.ClientAuth = tls.RequireAndVerifyClientCert
	if t.ClientAuth == "request" {
		s.template.ClientAuth = tls.VerifyClientCertIfGiven
	}
	// A session remembers the client's certificate: other CAs, other tickets.
	s.context = sha256.Sum256(append([]byte(t.ClientAuth), s.clientCA.sum[:]...))
}

// suites are those of TLS 1.2 with forward secrecy and authenticated
// encryption; those of TLS 1.3 all have both.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func readAuthority(path string) (*authority, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool, err := ParseCAs(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &authority{path: path, pool: pool, sum: sha256.Sum256(content)}, nil
}

// ParseCAs makes a pool of the certificates in PEM text. Every block must be
// one, and one must be there: a mistake must not look like an empty pool.
func ParseCAs(content []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a block of %s where certificates are wanted", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, errors.New("no certificate in PEM form")
	}
	return pool, nil
}

// ClientConfig is the same choice of versions and suites for connections that
// the gateway makes. It verifies what it is shown against the system's roots.
func ClientConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites}
}
