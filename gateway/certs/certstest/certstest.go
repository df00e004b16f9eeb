// Package certstest makes certificates for tests.
//
// It owns a CA in memory and what it issues, and an ACME server. It does not own a convention of
// where files stand: the caller names them.
//
//	ca := certstest.NewCA(t, "Test CA")
//	leaf := ca.Issue(t, certstest.Wanted{Names: []string{"api.example.com"}})
//	leaf.Write(t, certFile, keyFile)
package certstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// CA issues certificates.
type CA struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes a CA of its own.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	ca := &CA{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca.Cert = sign(t, template, template, ca.key, ca.key)
	return ca
}

// Pool has the CA alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// PEM is the CA's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw})
}

// Write puts the CA's certificate into a file.
func (ca *CA) Write(t testing.TB, path string) {
	t.Helper()
	write(t, path, ca.PEM())
}

// Wanted describes a certificate. Zero values take the default.
type Wanted struct {
	Subject string // common name; default: the first of Names
	Names   []string
	IPs     []string
	// NotBefore and NotAfter default to an hour around now.
	NotBefore, NotAfter time.Time
}

// Leaf is a certificate with its key.
type Leaf struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Issue makes a certificate for servers and clients.
func (ca *CA) Issue(t testing.TB, w Wanted) *Leaf {
	t.Helper()
	leaf := w.leaf(t)
	leaf.Cert = sign(t, leaf.Cert, ca.Cert, leaf.key, ca.key)
	return leaf
}

// leaf has a new key, and as its certificate what is to be signed.
func (w Wanted) leaf(t testing.TB) *Leaf {
	t.Helper()
	if w.Subject == "" && len(w.Names) > 0 {
		w.Subject = w.Names[0]
	}
	if w.NotBefore.IsZero() {
		w.NotBefore = time.Now().Add(-time.Hour)
	}
	if w.NotAfter.IsZero() {
		w.NotAfter = time.Now().Add(time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: w.Subject},
		DNSNames: w.Names, NotBefore: w.NotBefore, NotAfter: w.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, ip := range w.IPs {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	return &Leaf{Cert: template, key: newKey(t)}
}

// SelfSigned makes a certificate that nobody else vouches for.
func SelfSigned(t testing.TB, w Wanted) *Leaf {
	t.Helper()
	leaf := w.leaf(t)
	leaf.Cert = sign(t, leaf.Cert, leaf.Cert, leaf.key, leaf.key)
	return leaf
}

// TLS is the leaf as crypto/tls takes it.
func (l *Leaf) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{l.Cert.Raw}, PrivateKey: l.key, Leaf: l.Cert}
}

// PEM is the certificate and its key.
func (l *Leaf) PEM(t testing.TB) (cert, key []byte) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(l.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Cert.Raw}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Write puts certificate and key into two files.
func (l *Leaf) Write(t testing.TB, certFile, keyFile string) {
	t.Helper()
	cert, key := l.PEM(t)
	write(t, certFile, cert)
	write(t, keyFile, key)
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
