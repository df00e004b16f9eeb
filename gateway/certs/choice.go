package certs

import (
	"crypto/tls"
	"errors"
	"strings"
)

// choice finds the certificate for a handshake. It is immutable once the
// state that it belongs to is in use.
type choice struct {
	exact map[string][]*tls.Certificate
	wild  map[string][]*tls.Certificate // by what stands behind "*."
	all   []*tls.Certificate
	acme  *ACME // nil: there are no certificates but those of files
}

// add makes c known under its names. Where several certificates have a name,
// as with keys of two kinds, the one added first is preferred.
func (s *choice) add(c *tls.Certificate) {
	if s.exact == nil {
		s.exact, s.wild = map[string][]*tls.Certificate{}, map[string][]*tls.Certificate{}
	}
	s.all = append(s.all, c)
	for _, name := range c.Leaf.DNSNames {
		name = canonicalName(name)
		if parent, ok := strings.CutPrefix(name, "*."); ok {
			s.wild[parent] = append(s.wild[parent], c)
		} else {
			s.exact[name] = append(s.exact[name], c)
		}
	}
}

// get implements tls.Config.GetCertificate: the exact name, of a file or of ACME,
// then a wildcard (RFC 9525, 6.3: for one label), then the first certificate, for
// clients that name nothing or something else.
func (s *choice) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	for _, candidates := range s.candidates(hello.ServerName) {
		for _, c := range candidates {
			if usable(hello, c) {
				return c, nil
			}
		}
	}
	if len(s.all) > 0 {
		// The handshake then fails with an alert that says why.
		return s.all[0], nil
	}
	return nil, errNoCertificate
}

// candidates are the certificates that may be shown to a client that asks for
// name, in the order of preference.
func (s *choice) candidates(name string) (list [5][]*tls.Certificate) {
	name = canonicalName(name)
	_, parent, _ := strings.Cut(name, ".")
	list[0], list[2], list[3] = s.exact[name], s.wild[parent], s.all
	if s.acme != nil {
		list[1], list[4] = s.acme.forName(name), s.acme.all()
	}
	return list
}

// covers reports whether whatever a client that asks for name is shown is good
// for other too.
func (s *choice) covers(name, other string) bool {
	for _, candidates := range s.candidates(name) {
		for _, c := range candidates {
			if c.Leaf.VerifyHostname(other) != nil {
				return false
			}
		}
		if len(candidates) > 0 {
			return true
		}
	}
	return false
}

var errNoCertificate = errors.New("no certificate yet")

// usable reports whether the client can verify signatures of c's key. The name
// was compared before, or is meant not to matter.
func usable(hello *tls.ClientHelloInfo, c *tls.Certificate) bool {
	anyName := *hello
	anyName.ServerName = ""
	return anyName.SupportsCertificate(c) == nil
}

func canonicalName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}
