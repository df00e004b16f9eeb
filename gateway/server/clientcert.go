package server

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

// shownCert is the certificate of a connection's client, looked up once: the
// state of a TLS connection is a large copy.
type shownCert struct {
	known bool
	cert  *plugins.ClientCertificate
}

// clientCert returns the certificate that the client showed and that the
// listener verified, nil if there is none. It must not be called before the
// first byte of a request was read, which the handshake precedes.
func (c *conn) clientCert() *plugins.ClientCertificate {
	if !c.tls || c.cert.known {
		return c.cert.cert
	}
	c.cert.known = true
	t, ok := c.Conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil // a balancer ended TLS
	}
	c.cert.cert = clientCertificate(t.ConnectionState())
	return c.cert.cert
}

// clientCertificate describes the certificate of a finished handshake; nil if
// none was shown. Without a verified chain a certificate proves nothing about
// its holder.
func clientCertificate(s tls.ConnectionState) *plugins.ClientCertificate {
	if len(s.VerifiedChains) == 0 {
		return nil
	}
	return plugins.NewClientCertificate(s.VerifiedChains[0][0])
}

// clientCertField gathers what a balancer tells in Client-Cert.
type clientCertField struct {
	value []byte
	count int
}

func (f *clientCertField) note(field *plugins.Field) {
	// Other spellings are dropped like it, but no balancer writes them.
	if wire.EqualFold(field.Name, "client-cert") {
		f.value = field.Value
		f.count++
	}
}

// cert reads the field: one certificate as a byte sequence (RFC 9440, 2.1;
// RFC 8941, 3.3.5). Anything else is no certificate.
func (f *clientCertField) cert() *plugins.ClientCertificate {
	v := f.value
	if f.count != 1 || len(v) < 2 || v[0] != ':' || v[len(v)-1] != ':' {
		return nil
	}
	der, err := base64.StdEncoding.DecodeString(string(v[1 : len(v)-1]))
	if err != nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return plugins.NewClientCertificate(leaf)
}
