package upstream

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// tlsPair makes a server's configuration and that of a client that trusts it
// under the address 127.0.0.1.
func tlsPair(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"http/1.1"}},
		&tls.Config{RootCAs: roots}
}

func startTLS(t testing.TB, cfg *tls.Config, play func(n int, c net.Conn)) *script {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startScriptOn(t, tls.NewListener(ln, cfg), play)
}

func TestTLSConnectionIsReusedAndTicketsAreNoAnswer(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server, client := tlsPair(t)
		server.MaxVersion = version
		s := startTLS(t, server, echo)
		svc := newTestService(t, Config{TLS: client}, s.addr)
		for i := range 5 {
			if body, reused := get(t, svc, "/a"); body != "/a" || reused != (i > 0) {
				t.Errorf("exchange %d: %q, reused %v", i, body, reused)
			}
		}
		c := lend(t, svc)
		if c.TCP(soon()) != nil {
			t.Error("an encrypted connection offers its socket")
		}
		c.Release(false)
	}
}

func TestP1PoisonWithinTLSEndsTheConnection(t *testing.T) {
	server, client := tlsPair(t)
	poison, poisoned := make(chan struct{}), make(chan struct{})
	tests := map[string]func(c net.Conn){
		"in the same record":  func(c net.Conn) { io.WriteString(c, answer("ok")+answer("POISON")) },
		"in the next record":  func(c net.Conn) { io.WriteString(c, answer("ok")); io.WriteString(c, answer("POISON")) },
		"while it is idle":    func(c net.Conn) { io.WriteString(c, answer("ok")); <-poison; io.WriteString(c, answer("POISON")) },
		"closed when idle":    func(c net.Conn) { io.WriteString(c, answer("ok")); <-poison; c.Close() },
		"behind the small 8k": func(c net.Conn) { io.WriteString(c, answer(strings.Repeat("x", 8<<10))+answer("POISON")) },
	}
	for name, play := range tests {
		t.Run(name, func(t *testing.T) {
			idle := strings.Contains(name, "idle")
			s := startTLS(t, server, func(n int, c net.Conn) {
				br := bufio.NewReader(c)
				readRequest(br)
				if n == 0 {
					play(c)
					if idle {
						poisoned <- struct{}{}
					}
					readRequest(br) // whoever comes now gets poison
					return
				}
				io.WriteString(c, answer("fine"))
				io.Copy(io.Discard, br)
			})
			svc := newTestService(t, Config{TLS: client}, s.addr)
			c := lend(t, svc)
			sock := c.sock
			c.Out = append(c.Out, request("/")...)
			head, err := c.RoundTrip(soon())
			if err != nil {
				t.Fatal(err)
			}
			c.BodyLength(contentLength(t, head))
			if _, err := readAll(c); err != nil {
				t.Fatal(err)
			}
			c.Release(true)
			if idle {
				poison <- struct{}{}
				<-poisoned
			}
			eventually(t, "poison arrives", func() bool { return !sock.fresh() })
			if body, _ := get(t, svc, "/"); body != "fine" {
				t.Errorf("the second exchange got %q", body)
			}
		})
	}
}

func answer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// RFC 9112, 9.8: without the closing alert the end may be an attacker's.
func TestTLSBodyUntilCloseNeedsTheClosingAlert(t *testing.T) {
	server, client := tlsPair(t)
	for _, orderly := range []bool{true, false} {
		s := startTLS(t, server, func(_ int, c net.Conn) {
			readRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nabc")
			if !orderly {
				c.(*tls.Conn).NetConn().Close()
			}
		})
		svc := newTestService(t, Config{TLS: client}, s.addr)
		c := lend(t, svc)
		c.Out = append(c.Out, request("/")...)
		if _, err := c.RoundTrip(soon()); err != nil {
			t.Fatal(err)
		}
		c.BodyUntilClose()
		body, err := readAll(c)
		if body != "abc" || orderly && err != nil {
			t.Errorf("orderly %v: %q, %v", orderly, body, err)
		}
		if !orderly {
			wantKind(t, err, io.ErrUnexpectedEOF, PhaseBody)
		}
		c.Release(true)
	}
}

func TestTLSHandshakeFailuresAreConnectFailures(t *testing.T) {
	server, client := tlsPair(t)
	_, stranger := tlsPair(t)
	wrongName := client.Clone()
	wrongName.ServerName = "orders.example"
	onlyH2 := client.Clone()
	onlyH2.NextProtos = []string{"h2"}
	h2 := server.Clone()
	h2.NextProtos = []string{"h2"}
	mute := func(_ int, c net.Conn) { io.Copy(io.Discard, c) }
	tests := map[string]struct {
		s   *script
		cfg *tls.Config
	}{
		"untrusted":         {startTLS(t, server, mute), stranger},
		"other name":        {startTLS(t, server, mute), wrongName},
		"other protocol":    {startTLS(t, h2, mute), onlyH2},
		"plaintext":         {startScript(t, func(_ int, c net.Conn) { io.WriteString(c, "HTTP/1.1 400 No\r\n\r\n") }), client},
		"handshake is slow": {startScript(t, mute), client},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			svc := newTestService(t, Config{TLS: tc.cfg, Connect: 100 * time.Millisecond}, tc.s.addr)
			_, err := svc.Pick(0, 0).Conn(soon())
			wantKind(t, err, ErrConnect, PhaseConnect)
			if st := svc.Status().Instances[0]; st.Open != 0 {
				t.Error("connection leaked")
			}
		})
	}
}

// Deadlines that come and go must not break the TLS state.
func TestTLSDeadlinesAreLazy(t *testing.T) {
	server, client := tlsPair(t)
	s := startTLS(t, server, func(_ int, c net.Conn) {
		br := bufio.NewReader(c)
		for {
			target, err := readRequest(br)
			if err != nil {
				return
			}
			if target == "/slow" {
				time.Sleep(600 * time.Millisecond)
			}
			io.WriteString(c, answer("ok"))
		}
	})
	svc := newTestService(t, Config{TLS: client}, s.addr)
	for i, limit := range []time.Duration{500 * time.Millisecond, 10 * time.Second, 5 * time.Second} {
		c := lend(t, svc)
		target := "/slow"
		if i == 0 {
			target = "/quick"
		}
		c.Out = append(c.Out, request(target)...)
		head, err := c.RoundTrip(time.Now().Add(limit))
		if err != nil {
			t.Fatal(err)
		}
		c.BodyLength(contentLength(t, head))
		readAll(c)
		c.Release(true)
	}
	c := lend(t, svc)
	defer c.Release(false)
	if !c.Reused() {
		t.Error("not reused")
	}
	c.Out = append(c.Out, request("/slow")...)
	_, err := c.RoundTrip(time.Now().Add(200 * time.Millisecond))
	wantKind(t, err, ErrTimeout, PhaseHead)
}
