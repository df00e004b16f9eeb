package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/gatehouse/gatehouse/routes"
)

const (
	// challengeProtocol is what an ACME server offers by ALPN when it looks
	// for the answer to a challenge (RFC 8737, 4).
	challengeProtocol = "acme-tls/1"
	// challengePath is where it looks over HTTP (RFC 8555, 8.3).
	challengePath = "/.well-known/acme-challenge/"

	// A failed attempt is repeated after retryFirst, and each further one after
	// three times as long: a server bounds the failures of an hour.
	retryFirst, retryMost = time.Minute, time.Hour
	// Another process with the same folder may have renewed meanwhile.
	lookAgain = time.Hour
	// renewLast is the part of a certificate's life in which it is renewed.
	renewLast = 1.0 / 3
)

// ACMEConfig is what an acme section does not say.
type ACMEConfig struct {
	// Host and TLSPort are those of the listener; HTTPPort is that of a plain
	// one, 0 where there is none.
	Host              string
	TLSPort, HTTPPort int
	// Report is told about every failed attempt.
	Report func(domain string, err error)
	// Retry is the time after the first failure; 0: a minute.
	Retry time.Duration
	Now   func() time.Time
}

// ACME has the certificates of a listener's domains issued and renewed by an
// ACME server (RFC 8555). Processes that share the folder take turns and
// answer each other's challenges.
type ACME struct {
	cfg     ACMEConfig
	domains []string
	held    map[string]*managed // by domain; the map does not change
	issuer  *certmagic.ACMEIssuer
	certs   *certmagic.Config
	cache   *certmagic.Cache
}

// managed is the certificate of one domain.
type managed struct {
	cert     atomic.Pointer[tls.Certificate]
	failures atomic.Uint64
}

// NewACME reads what the folder holds already; nothing is asked for before Run.
// Close must follow.
func NewACME(section *routes.ACME, c ACMEConfig) (*ACME, error) {
	fail := func(err error) (*ACME, error) {
		return nil, routes.Problem{Pos: section.Pos, Message: "acme: " + err.Error()}
	}
	folder, err := stateFolder(section.Storage)
	if err != nil {
		return fail(err)
	}
	template := certmagic.ACMEIssuer{
		CA: cmp.Or(section.Directory, certmagic.LetsEncryptProductionCA), Email: section.Email, Agreed: true,
		ListenHost: c.Host, AltTLSALPNPort: c.TLSPort, AltHTTPPort: c.HTTPPort, DisableHTTPChallenge: c.HTTPPort == 0,
		Logger: zap.NewNop(),
	}
	if section.CA != "" {
		content, err := os.ReadFile(section.CA)
		if err == nil {
			template.TrustedRoots, err = ParseCAs(content)
		}
		if err != nil {
			return fail(fmt.Errorf("ca: %w", err))
		}
	}
	c.Retry = cmp.Or(c.Retry, retryFirst)
	a := &ACME{cfg: c, domains: section.Domains, held: map[string]*managed{}}
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.certs, nil },
		Logger:           zap.NewNop(),
	})
	a.certs = certmagic.New(a.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: folder}, RenewalWindowRatio: renewLast, DisableARI: true,
		KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.P256}, Logger: zap.NewNop(),
	})
	a.issuer = certmagic.NewACMEIssuer(a.certs, template)
	a.certs.Issuers = []certmagic.Issuer{a.issuer}
	for _, domain := range a.domains {
		a.held[domain] = &managed{}
		// One that is not there, or is broken, is asked for.
		_, _ = a.load(context.Background(), domain)
	}
	return a, nil
}

// stateFolder is where the state of a user's programs belongs, unless the file
// names a folder.
func stateFolder(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "gatehouse", "acme"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("storage is missing, and the user has no folder of its own: %w", err)
	}
	return filepath.Join(home, ".local", "state", "gatehouse", "acme"), nil
}

// Close ends what NewACME has started.
func (a *ACME) Close() { a.cache.Stop() }

// Run obtains and renews until ctx ends. A domain that fails does not hold up
// the others.
func (a *ACME) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, domain := range a.domains {
		running.Go(func() { a.keep(ctx, domain) })
	}
	running.Wait()
	return ctx.Err()
}

// keep has a certificate for domain at all times.
func (a *ACME) keep(ctx context.Context, domain string) {
	failed := time.Duration(0)
	for {
		wait, err := a.attend(ctx, domain)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.held[domain].failures.Add(1)
			a.cfg.Report(domain, err)
			failed = min(max(a.cfg.Retry, 3*failed), retryMost)
			wait = failed
		default:
			failed = 0
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// attend does what is due for domain and tells when to look again.
func (a *ACME) attend(ctx context.Context, domain string) (time.Duration, error) {
	cert, err := a.load(ctx, domain)
	if err == nil && a.due(cert) > 0 {
		return min(a.due(cert), lookAgain), nil
	}
	if err != nil {
		err = a.certs.ObtainCertSync(ctx, domain)
	} else {
		err = a.certs.RenewCertSync(ctx, domain, false)
	}
	if err != nil {
		return 0, err
	}
	if cert, err = a.load(ctx, domain); err != nil {
		return 0, err
	}
	// A server whose certificates are due at once must not be asked at once.
	return min(max(a.due(cert), a.cfg.Retry), lookAgain), nil
}

// due is the time until cert has to be renewed.
func (a *ACME) due(cert *tls.Certificate) time.Duration {
	life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
	at := cert.Leaf.NotAfter.Add(-time.Duration(float64(life) * renewLast))
	return at.Sub(a.cfg.Now())
}

// load puts what the folder has for domain into use.
func (a *ACME) load(ctx context.Context, domain string) (*tls.Certificate, error) {
	keys, from := certmagic.StorageKeys, a.issuer.IssuerKey()
	chain, err := a.certs.Storage.Load(ctx, keys.SiteCert(from, domain))
	if err != nil {
		return nil, err
	}
	key, err := a.certs.Storage.Load(ctx, keys.SitePrivateKey(from, domain))
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, err
	}
	a.held[domain].cert.Store(&cert)
	return &cert, nil
}

// forName is the certificate of a domain, as a list of one or none.
func (a *ACME) forName(name string) []*tls.Certificate {
	if m := a.held[name]; m != nil {
		if cert := m.cert.Load(); cert != nil {
			return []*tls.Certificate{cert}
		}
	}
	return nil
}

// all are the certificates that are there, in the order of the domains.
func (a *ACME) all() (list []*tls.Certificate) {
	for _, domain := range a.domains {
		list = append(list, a.forName(domain)...)
	}
	return list
}

// Failures counts the failed attempts by domain.
func (a *ACME) Failures() map[string]uint64 {
	counts := map[string]uint64{}
	for domain, m := range a.held {
		counts[domain] = m.failures.Load()
	}
	return counts
}

// asked reports whether an ACME server wants the answer to a challenge.
func asked(hello *tls.ClientHelloInfo) bool {
	return len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == challengeProtocol
}

// challenge is the configuration for such a handshake.
func (a *ACME) challenge() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{challengeProtocol}, SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if !slices.Contains(a.domains, canonicalName(hello.ServerName)) {
				return nil, errNoChallenge
			}
			return a.certs.GetCertificate(hello)
		},
	}
}

var errNoChallenge = errors.New("no challenge for this name")

// Owns reports whether a request is about a challenge of one of the domains.
func (a *ACME) Owns(host, path []byte) bool {
	return strings.HasPrefix(string(path), challengePath) && a.held[string(host)] != nil
}

// ServeHTTP answers challenges over HTTP.
func (a *ACME) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.issuer.HandleHTTPChallenge(w, r) {
		http.NotFound(w, r)
	}
}
