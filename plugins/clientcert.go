package plugins

import (
	"crypto/sha256"
	"crypto/x509"
)

// ClientCertificate is a certificate whose key the client has proven to hold
// and whose chain was verified. It is immutable.
type ClientCertificate struct {
	// Thumbprint is the SHA-256 of DER: what `cnf.x5t#S256` of a token that is
	// bound to the certificate holds (RFC 8705, 3.1).
	Thumbprint [sha256.Size]byte
	// Subject is the distinguished name in the form of RFC 4514.
	Subject string
	// DER is the certificate as the client showed it.
	DER []byte
}

// NewClientCertificate describes leaf. It does not verify it.
func NewClientCertificate(leaf *x509.Certificate) *ClientCertificate {
	return &ClientCertificate{Thumbprint: sha256.Sum256(leaf.Raw), Subject: leaf.Subject.String(), DER: leaf.Raw}
}
