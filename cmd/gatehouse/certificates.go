package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/gatehouse/gatehouse/routes"
)

// certificates is a listener's certificate, which a reload may replace.
type certificates struct {
	current atomic.Pointer[tls.Certificate]
}

func loadCertificates(t *routes.TLS) (*certificates, error) {
	c := &certificates{}
	return c, c.load(t)
}

func (c *certificates) load(t *routes.TLS) error {
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return routes.Problem{Pos: t.Pos, Message: fmt.Sprintf("tls: %v", err)}
	}
	c.current.Store(&pair)
	return nil
}

// listen wraps ln. HTTP/2 and HTTP/1.1 are offered by ALPN.
func (c *certificates) listen(ln net.Listener) net.Listener {
	return tls.NewListener(ln, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	})
}
