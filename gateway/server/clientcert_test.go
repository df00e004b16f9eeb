package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// selfSigned makes a client certificate that is its own CA.
func selfSigned(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"Partners"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTheVerifiedClientCertificateIsOnEveryExchange(t *testing.T) {
	donor := httptest.NewTLSServer(http.NotFoundHandler())
	defer donor.Close()
	cert := selfSigned(t, "batch")
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	verifying := donor.TLS.Clone()
	verifying.ClientCAs = x509.NewCertPool()
	verifying.ClientCAs.AddCert(leaf)
	verifying.ClientAuth = tls.VerifyClientCertIfGiven
	believing := donor.TLS.Clone()
	believing.ClientAuth = tls.RequestClientCert // shown, but verified by nobody

	sum := sha256.Sum256(cert.Certificate[0])
	known := "CN=batch,O=Partners " + hex.EncodeToString(sum[:])
	f := func(name string, server *tls.Config, shown []tls.Certificate, want string) {
		t.Helper()
		s := New(Config{
			Limits: testLimits, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			Handler: func(x *plugins.Exchange) error {
				body := "none"
				if c := x.ClientCert; c != nil {
					body = c.Subject + " " + hex.EncodeToString(c.Thumbprint[:])
				}
				if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: -1}); err != nil {
					return err
				}
				if _, err := x.Client.Write([]byte(body)); err != nil {
					return err
				}
				return x.Client.Finish()
			},
		})
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Serve(tls.NewListener(ln, server), Transport{Encrypted: true}) }()
		transport := donor.Client().Transport.(*http.Transport).Clone()
		transport.TLSClientConfig.Certificates = shown
		client := &http.Client{Transport: transport}
		for range 2 {
			resp, err := client.Get("https://" + ln.Addr().String() + "/")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(got) != want {
				t.Errorf("%s: the exchange has %s, want %s", name, got, want)
			}
		}
		client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	f("verified", verifying, []tls.Certificate{cert}, known)
	f("none shown", verifying, nil, "none")
	f("not verified", believing, []tls.Certificate{cert}, "none")
}
