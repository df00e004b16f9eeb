package server

import (
	"crypto/tls"

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
