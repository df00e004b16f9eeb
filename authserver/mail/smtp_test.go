package mail

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/mail/mailbox"
)

// certificate is one for 127.0.0.1 and who vouches for it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, pool
}

// serve runs a mailbox; implicit puts TLS before everything.
func serve(t *testing.T, c mailbox.Config, implicit *tls.Config) (*mailbox.Mailbox, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if implicit != nil {
		ln = tls.NewListener(ln, implicit)
	}
	box := mailbox.New(c)
	done := make(chan error, 1)
	go func() { done <- box.Serve(ln) }()
	t.Cleanup(func() {
		box.Close()
		<-done
	})
	return box, address
}

var letter = Message{ID: "id-1", To: "bob@example.org", Subject: "Bestätigen ☂", Text: "Zeile 1\nhttps://example.com/x?ticket=" + strings.Repeat("a", 100) + "\n", HTML: "<p>ü</p>"}

func TestMailArrivesEncryptedAndAuthenticated(t *testing.T) {
	own, roots := certificate(t)
	server := &tls.Config{Certificates: []tls.Certificate{own}}
	known := mailbox.Config{TLS: server, Username: "u", Password: "p"}
	f := func(name string, box mailbox.Config, implicit *tls.Config, c SMTPConfig, wrong string) {
		t.Run(name, func(t *testing.T) {
			kept, address := serve(t, box, implicit)
			c.Address, c.From, c.Timeout = address, "Example <no-reply@example.com>", 20*time.Second
			s, err := NewSMTP(c)
			if err != nil {
				t.Fatal(err)
			}
			err = s.Send(t.Context(), letter)
			if wrong != "" {
				if err == nil || !strings.Contains(err.Error(), wrong) || len(kept.Mails()) > 0 {
					t.Errorf("error %v, want %s; %d mails", err, wrong, len(kept.Mails()))
				}
				return
			}
			if err != nil || len(kept.Mails()) != 1 {
				t.Fatalf("%v, %d mails", err, len(kept.Mails()))
			}
			m := kept.Mails()[0]
			if m.Encrypted != (c.TLS != Plain) || m.From != "no-reply@example.com" || m.To[0] != letter.To || m.Subject != letter.Subject ||
				strings.TrimRight(m.Text, "\n") != strings.TrimRight(letter.Text, "\n") || m.HTML != letter.HTML {
				t.Errorf("received %+v", m)
			}
			for field, want := range map[string]string{"Message-Id": "<id-1@example.com>", "Auto-Submitted": "auto-generated", "From": `"Example" <no-reply@example.com>`} {
				if got := m.Header.Get(field); got != want {
					t.Errorf("%s: %q, want %q", field, got, want)
				}
			}
		})
	}
	f("starttls", known, nil, SMTPConfig{TLS: StartTLS, Roots: roots, Username: "u", Password: "p"}, "")
	f("implicit", mailbox.Config{Username: "u", Password: "p"}, server, SMTPConfig{TLS: Implicit, Roots: roots, Username: "u", Password: "p"}, "")
	f("without a password that is wanted", known, nil, SMTPConfig{TLS: StartTLS, Roots: roots}, "502")
	f("none", mailbox.Config{}, nil, SMTPConfig{TLS: Plain}, "")
	f("no starttls offered", mailbox.Config{}, nil, SMTPConfig{TLS: StartTLS, Roots: roots}, "STARTTLS")
	f("an unknown certificate", known, nil, SMTPConfig{TLS: StartTLS, Username: "u", Password: "p"}, "certificate")
	f("a wrong password", known, nil, SMTPConfig{TLS: StartTLS, Roots: roots, Username: "u", Password: "q"}, "535")
	f("no password in the open", mailbox.Config{Username: "u", Password: "p"}, nil, SMTPConfig{TLS: Plain, Username: "u", Password: "p"}, "connect: ")
}

func TestErrorsOfMailNameNoAddress(t *testing.T) {
	for code, final := range map[int]bool{451: false, 550: true} {
		_, address := serve(t, mailbox.Config{Refuse: func(string) int { return code }}, nil)
		s, err := NewSMTP(SMTPConfig{Address: address, From: "a@example.com", TLS: Plain, Timeout: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		err = s.Send(t.Context(), letter)
		var refused *RefusedError
		if err == nil || errors.As(err, &refused) != final || strings.Contains(err.Error(), "bob") {
			t.Errorf("%d: %v, final %v", code, err, !final)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	s, err := NewSMTP(SMTPConfig{Address: ln.Addr().String(), From: "a@example.com", TLS: Plain, Timeout: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), letter); err == nil || !strings.HasPrefix(err.Error(), "connect: ") {
		t.Errorf("a closed port: %v", err)
	}
}

func TestSMTPConfigurationIsChecked(t *testing.T) {
	for _, c := range []SMTPConfig{
		{Address: "mail.example.com", From: "a@example.com", TLS: Plain},
		{Address: "mail.example.com:smtp", From: "a@example.com", TLS: Plain},
		{Address: "mail.example.com:25", From: "nobody", TLS: Plain},
		{Address: "mail.example.com:25", From: "a@example.com", TLS: "ssl"},
	} {
		c.Timeout = time.Second
		if _, err := NewSMTP(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
