package routes

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

func (c *checker) listenerDefaults(l *Listener) {
	if t := l.TLS; t != nil && !t.Terminated {
		orDefault(c, &t.ClientAuth, "require")
		orDefault(c, &t.MinVersion, "1.2")
	}
	if p := l.ProxyProtocol; p != nil {
		orDefault(c, &p.Timeout, 5*time.Second)
	}
}

// proxyProtocol wants to know who may tell the addresses of clients.
func (c *checker) proxyProtocol(p *ProxyProtocol) {
	if len(p.Trusted) == 0 && !c.broken(&p.Trusted) {
		c.report(c.at(&p.Trusted, p.Pos), "proxy_protocol: trusted is missing: the networks of the balancers that send the header")
	}
	within(c, &p.Timeout, "proxy_protocol: timeout", time.Millisecond, time.Minute)
}

// tls checks how a listener is encrypted and gathers its certificates.
func (c *checker) tls(t *TLS) {
	if t.Terminated {
		c.terminated(t)
		return
	}
	if c.written(&t.ClientCertHeader) {
		c.report(c.at(&t.ClientCertHeader, t.Pos), "tls: client_cert_header is for terminated: true; here the handshake shows the certificate")
	}
	if c.written(&t.Certificates) && len(t.Certificates) == 0 && !c.broken(&t.Certificates) {
		c.report(c.at(&t.Certificates, t.Pos), "tls: certificates: the list is empty")
	}
	for i := range t.Certificates {
		if pair := &t.Certificates[i]; !c.broken(pair) {
			c.certificate(&pair.Cert, &pair.Key, pair.Pos)
		}
	}
	if c.written(&t.Cert) || c.written(&t.Key) || !c.written(&t.Certificates) && t.ACME == nil && !c.broken(&t.ACME) {
		c.certificate(&t.Cert, &t.Key, t.Pos)
		t.Certificates = slices.Insert(t.Certificates, 0, Certificate{Pos: c.at(&t.Cert, t.Pos), Cert: t.Cert, Key: t.Key})
	}
	if t.ACME != nil && !c.broken(&t.ACME) {
		c.acme(t.ACME)
	}
	if c.written(&t.ClientCA) {
		c.namedFile(&t.ClientCA, "tls: client_ca", t.Pos)
	} else if c.written(&t.ClientAuth) {
		c.report(c.at(&t.ClientAuth, t.Pos), "tls: client_auth needs client_ca, a file of the CAs whose clients are believed")
	}
	c.oneOf(&t.ClientAuth, "tls: client_auth", t.Pos, "require", "request")
	c.oneOf(&t.MinVersion, "tls: min_version", t.Pos, "1.2", "1.3")
}

// acme checks what is asked of an ACME server.
func (c *checker) acme(a *ACME) {
	if len(a.Domains) == 0 && !c.broken(&a.Domains) {
		c.report(c.at(&a.Domains, a.Pos), "acme: domains is missing: the names of the certificates")
	}
	for i := range a.Domains {
		domain := &a.Domains[i]
		pos := c.at(domain, a.Pos)
		_, wildcard, err := parseHost(*domain)
		_, ip := netip.ParseAddr(*domain)
		switch {
		case c.broken(domain):
		case err != nil || ip == nil:
			c.report(pos, "acme: domains: %q is not the name of a host", *domain)
		case wildcard:
			c.report(pos, "acme: domains: %q needs a challenge by DNS, which is not supported; name each host", *domain)
		case slices.Index(a.Domains, *domain) < i:
			c.report(pos, "acme: domains: %q stands there twice", *domain)
		}
	}
	if c.required(&a.Email, "acme: email", a.Pos) && !strings.Contains(a.Email, "@") {
		c.report(c.at(&a.Email, a.Pos), "acme: email: %q is not an address", a.Email)
	}
	if c.written(&a.Directory) && !c.broken(&a.Directory) {
		if u, ok := webURL(a.Directory); !ok || u.Scheme != "https" {
			c.report(c.at(&a.Directory, a.Pos), "acme: directory is not a URL such as https://acme-v02.api.letsencrypt.org/directory")
		}
	}
	if c.written(&a.Storage) && c.required(&a.Storage, "acme: storage", a.Pos) && !filepath.IsAbs(a.Storage) {
		a.Storage = filepath.Join(filepath.Dir(c.at(&a.Storage, a.Pos).File), a.Storage)
	}
	if c.written(&a.CA) {
		c.namedFile(&a.CA, "acme: ca", a.Pos)
	}
}

// terminated refuses what only a handshake of our own could do.
func (c *checker) terminated(t *TLS) {
	for _, k := range []struct {
		address any
		key     string
	}{{&t.Cert, "cert"}, {&t.Key, "key"}, {&t.Certificates, "certificates"}, {&t.ACME, "acme"}, {&t.ClientCA, "client_ca"}, {&t.ClientAuth, "client_auth"}, {&t.MinVersion, "min_version"}} {
		if c.written(k.address) {
			c.report(c.at(k.address, t.Pos), "tls: %s has no meaning where TLS is terminated by a balancer", k.key)
		}
	}
}

// certificate checks the files of a certificate and its key.
func (c *checker) certificate(cert, key *string, owner Pos) {
	c.namedFile(cert, "tls: cert", owner)
	c.namedFile(key, "tls: key", owner)
}

// namedFile puts the folder of the naming file before a path, sees whether the
// file is there, and has it watched.
func (c *checker) namedFile(path *string, key string, owner Pos) {
	if !c.required(path, key, owner) {
		return
	}
	pos := c.at(path, owner)
	if !filepath.IsAbs(*path) {
		*path = filepath.Join(filepath.Dir(pos.File), *path)
	}
	c.sources(*path)
	if _, err := readBounded(*path, 1<<20); err != nil {
		c.report(pos, "%s: the file %s: %v", key, *path, err)
	}
}

// serviceTLS checks how instances are verified and what they are shown.
func (c *checker) serviceTLS(s *Service) {
	t := s.TLS
	if t == nil || c.broken(&s.TLS) {
		return
	}
	if !s.Encrypted() && !c.broken(&s.Protocol) {
		c.report(t.Pos, "tls: the service %q has protocol: %s; write protocol: https or grpc", s.Name, s.Protocol)
	}
	if c.written(&t.CA) {
		c.namedFile(&t.CA, "tls: ca", t.Pos)
	}
	if c.written(&t.ServerName) && !c.broken(&t.ServerName) {
		if host, _, ok := CanonicalHost(nil, []byte(t.ServerName)); !ok || string(host) != t.ServerName {
			c.report(c.at(&t.ServerName, t.Pos), "tls: server_name: %q is not the name of a host", t.ServerName)
		}
	}
	if c.written(&t.Cert) || c.written(&t.Key) {
		c.certificate(&t.Cert, &t.Key, t.Pos)
	}
}

// ticketSecrets refuses secrets that can be guessed: they open recorded
// sessions.
func (c *checker) ticketSecrets(s *Server) {
	if c.written(&s.TicketSecret) && len(s.TicketSecret) == 0 && !c.broken(&s.TicketSecret) {
		c.report(c.at(&s.TicketSecret, Pos{}), "ticket_secret: the list is empty")
	}
	for i := range s.TicketSecret {
		secret := &s.TicketSecret[i]
		if len(secret.Reveal()) < minSecret && !c.broken(secret) && !c.broken(&s.TicketSecret) {
			c.report(c.at(secret, c.at(&s.TicketSecret, Pos{})), "ticket_secret is shorter than %d characters", minSecret)
		}
	}
}

// mutualTLS refuses a route that wants a client certificate where no listener
// could ever show one.
func (c *checker) mutualTLS(r *Route) {
	a := r.Auth
	if !c.written(&a.MTLS) || c.broken(&a.MTLS) || !c.oneOf(&a.MTLS, "mtls", a.Pos, "required") || a.MTLS != "required" {
		return
	}
	asks := func(l Listener) bool { return l.TLS != nil && (l.TLS.ClientCA != "" || l.TLS.ClientCertHeader) }
	if !slices.ContainsFunc(c.file.Listeners, asks) && !c.broken(&c.file.Listeners) {
		c.report(c.at(&a.MTLS, a.Pos), "the route %q wants a client certificate, but no listener asks for one: give one of them tls: client_ca", r.Name)
	}
}
