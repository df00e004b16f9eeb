package clients

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Client authentication methods, by their registered names.
const (
	SecretBasic   = "client_secret_basic"
	SecretPost    = "client_secret_post"
	PrivateKeyJWT = "private_key_jwt"
	TLSClient     = "tls_client_auth"
	SelfSignedTLS = "self_signed_tls_client_auth"
	None          = "none"
)

// Methods are the methods that work on every listener; TLSMethods need one that
// asks for client certificates.
var (
	Methods    = [...]string{SecretBasic, SecretPost, PrivateKeyJWT, None}
	TLSMethods = [...]string{TLSClient, SelfSignedTLS}
)

// Method is how the client proves who it is. SecretBasic stands for both ways
// to send a secret where the client has not chosen one.
func (c *Client) Method() string {
	switch {
	case c.AuthMethod != "":
		return c.AuthMethod
	case len(c.SecretHashes) > 0:
		return SecretBasic
	}
	return None
}

// accepts reports whether the client may authenticate with a secret that was
// sent in the way called method.
func (c *Client) accepts(method string) bool {
	return method == c.Method() || c.AuthMethod == "" && method == SecretPost && c.Method() == SecretBasic
}

// shows reports whether a verified certificate is the client's (RFC 8705, 2.1
// and 2.2). keys are the client's own.
func (c *Client) shows(cert *x509.Certificate, keys []jose.Key) bool {
	if c.Method() == SelfSignedTLS {
		return slices.ContainsFunc(keys, func(k jose.Key) bool { return k.Certifies(cert) })
	}
	s := &c.ClientSettings
	switch {
	case s.TLSSubjectDN != "":
		return sameName(cert.RawSubject, s.TLSSubjectDN)
	case s.TLSSANDNS != "":
		return slices.ContainsFunc(cert.DNSNames, func(n string) bool { return strings.EqualFold(n, s.TLSSANDNS) })
	case s.TLSSANURI != "":
		for _, u := range cert.URIs {
			if u.String() == s.TLSSANURI {
				return true
			}
		}
	case s.TLSSANIP != "":
		want, err := netip.ParseAddr(s.TLSSANIP)
		for _, ip := range cert.IPAddresses {
			if a, ok := netip.AddrFromSlice(ip); ok && err == nil && a.Unmap() == want.Unmap() {
				return true
			}
		}
	case s.TLSSANEmail != "":
		return slices.Contains(cert.EmailAddresses, s.TLSSANEmail)
	}
	return false
}

// sameName compares a subject with a distinguished name written as RFC 4514 has
// it. Spaces around commas and the case of attribute types do not count.
func sameName(subject []byte, written string) bool {
	var rdn pkix.RDNSequence
	if rest, err := asn1.Unmarshal(subject, &rdn); err != nil || len(rest) > 0 || len(rdn) == 0 {
		return false
	}
	return canonicalName(rdn.String()) == canonicalName(written)
}

func canonicalName(dn string) string {
	var parts []string
	start := 0
	for i := 0; i <= len(dn); i++ {
		switch {
		case i < len(dn) && dn[i] == '\\':
			i++
			continue
		case i < len(dn) && dn[i] != ',':
			continue
		}
		kind, value, _ := strings.Cut(strings.TrimSpace(dn[start:min(i, len(dn))]), "=")
		parts = append(parts, strings.ToUpper(strings.TrimSpace(kind))+"="+strings.TrimSpace(value))
		start = i + 1
	}
	return strings.Join(parts, ",")
}

// names are the names of the certificate that the settings give.
func names(s store.ClientSettings) (n int) {
	for _, name := range []string{s.TLSSubjectDN, s.TLSSANDNS, s.TLSSANURI, s.TLSSANIP, s.TLSSANEmail} {
		if name != "" {
			n++
		}
	}
	return n
}
