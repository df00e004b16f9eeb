package proxied

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
)

func listen(t *testing.T, c Config) *Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(ln, c)
	t.Cleanup(func() { l.Close() })
	return l
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// dial sends raw and returns its connection.
func dial(t *testing.T, l net.Listener, raw string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// v2 is a header of version 2 in its binary form.
func v2(t *testing.T, change func(*proxyproto.Header)) string {
	t.Helper()
	h := &proxyproto.Header{
		Version: 2, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4,
		SourceAddr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 1234}, DestinationAddr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 443},
	}
	change(h)
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func same(*proxyproto.Header) {}

func TestHeaderOfATrustedBalancerTellsTheClient(t *testing.T) {
	l := listen(t, Config{Trusted: loopback, Timeout: 20 * time.Second})
	f := func(name, header, want string) {
		t.Helper()
		c := dial(t, l, header+"hello")
		got, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		if want == "" {
			want = c.LocalAddr().String()
		}
		if got.RemoteAddr().String() != want {
			t.Errorf("%s: the address is %v, want %s", name, got.RemoteAddr(), want)
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(got, buf); err != nil || string(buf) != "hello" {
			t.Errorf("%s: read %q, %v", name, buf, err)
		}
		// Later bytes, and the other direction.
		if _, err := io.WriteString(c, "again"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(got, buf); err != nil || string(buf) != "again" {
			t.Errorf("%s: read %q, %v", name, buf, err)
		}
		if _, err := io.WriteString(got, "world"); err != nil {
			t.Fatal(err)
		}
		if err := got.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if answer, err := io.ReadAll(c); err != nil || string(answer) != "world" {
			t.Errorf("%s: answered %q, %v", name, answer, err)
		}
	}
	f("version 1", "PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n", "192.0.2.7:1234")
	f("version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\r\n", "[2001:db8::7]:1234")
	f("version 1, unknown", "PROXY UNKNOWN\r\n", "")
	f("version 2", v2(t, same), "192.0.2.7:1234")
	f("version 2, IPv6", v2(t, func(h *proxyproto.Header) {
		h.TransportProtocol = proxyproto.TCPv6
		h.SourceAddr, h.DestinationAddr = &net.TCPAddr{IP: net.ParseIP("2001:db8::7"), Port: 1}, &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 2}
	}), "[2001:db8::7]:1")
	f("version 2, with more about the client", v2(t, func(h *proxyproto.Header) {
		if err := h.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_NOOP, Value: bytes.Repeat([]byte{0}, 2000)}}); err != nil {
			t.Fatal(err)
		}
	}), "192.0.2.7:1234")
	f("version 2, a health check", v2(t, func(h *proxyproto.Header) { h.Command = proxyproto.LOCAL }), "")
	f("a second header is content", "PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n", "192.0.2.7:1234")
}

func TestConnectionOfATrustedBalancerWithoutAHeaderIsClosed(t *testing.T) {
	l := listen(t, Config{Trusted: loopback, Timeout: 300 * time.Millisecond})
	accepted := make(chan error, 1)
	go func() { _, err := l.Accept(); accepted <- err }()
	f := func(name, raw string) {
		t.Helper()
		before := l.Refused()
		c := dial(t, l, raw)
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, errTimeout(err)) {
			t.Errorf("%s: read %d bytes, %v", name, n, err)
		}
		if got := l.Refused(); got != before+1 {
			t.Errorf("%s: counted %d", name, got-before)
		}
	}
	f("HTTP", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	f("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	f("nothing", "")
	f("half a header", "PROXY TCP4 192.0.2.7 10.")
	f("half a binary header", v2(t, same)[:20])
	f("no address", "PROXY TCP4 everybody 10.0.0.1 1 2\r\n")
	f("another family", "PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n")
	f("too long", "PROXY TCP4 "+strings.Repeat("1", 500)+"\r\n")
	raw, err := hex.DecodeString("0d0a0d0a000d0a515549540a" + "91110000")
	if err != nil {
		t.Fatal(err)
	}
	f("an unknown version", string(raw))
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepted one of them: %v", err)
	}
}

// errTimeout is err itself where it says that nothing came in time.
func errTimeout(err error) error {
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		return err
	}
	return io.ErrNoProgress
}

func TestHeaderOfAnybodyElseIsContent(t *testing.T) {
	l := listen(t, Config{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Timeout: time.Second})
	const header = "PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n"
	c := dial(t, l, header)
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if _, raw := got.(*net.TCPConn); !raw || got.RemoteAddr().String() != c.LocalAddr().String() {
		t.Errorf("got a %T from %v", got, got.RemoteAddr())
	}
	buf := make([]byte, len(header))
	if _, err := io.ReadFull(got, buf); err != nil || string(buf) != header {
		t.Errorf("read %q, %v", buf, err)
	}
}

func TestASlowHeaderHoldsUpNobodyElse(t *testing.T) {
	l := listen(t, Config{Trusted: loopback, Timeout: time.Minute})
	for range 50 {
		dial(t, l, "PROXY TCP4 ")
	}
	dial(t, l, "PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\n")
	got, err := l.Accept()
	if err != nil || got.RemoteAddr().String() != "192.0.2.7:1234" {
		t.Fatal(got, err)
	}
	got.Close()
	// Close ends those that wait, and is not held up by them.
	var closing sync.WaitGroup
	closing.Go(func() { l.Close() })
	closing.Go(func() { l.Close() })
	closing.Wait()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 10.0.0.1 1234 443\r\nGET"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		client, gateway := net.Pipe()
		l := Listen(nil, Config{Timeout: time.Second})
		l.slots <- struct{}{}
		go func() { _, _ = client.Write(raw); client.Close() }()
		var receiving sync.WaitGroup
		receiving.Go(func() { l.receive(gateway) })
		done := make(chan struct{})
		go func() { receiving.Wait(); close(done) }()
		select {
		case a := <-l.ready:
			if a.conn.RemoteAddr() == nil {
				t.Error("no address")
			}
			_, _ = io.Copy(io.Discard, a.conn)
			a.conn.Close()
			<-done
		case <-done:
			if l.Refused() != 1 {
				t.Error("neither refused nor handed out")
			}
		}
		client.Close()
	})
}
