// Package proxied is a listener behind balancers that tell, in a PROXY protocol
// header before a connection's first byte, whose connection it is.
//
// It owns who must send a header, how long that may take, and the address that
// the connection then has. It does not own the format of the header
// (go-proxyproto), TLS, or what the address is good for (gateway/server).
//
//	ln = proxied.Listen(ln, proxied.Config{Trusted: balancers, Timeout: 5 * time.Second})
package proxied

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pires/go-proxyproto"
)

// maxPending bounds the connections whose header is awaited. More wait in the
// kernel until one of them has come or is given up.
const maxPending = 1024

// Config describes the balancers.
type Config struct {
	// Trusted must send a header; a connection of theirs without one is
	// closed. From all others the bytes are the client's: a header is then
	// no HTTP, and no TLS either.
	Trusted []netip.Prefix
	// Timeout is how long the header may take.
	Timeout time.Duration
}

// Listener hands out connections whose RemoteAddr is the client's. Where no
// header was expected they are the ones that the inner listener accepted.
type Listener struct {
	net.Listener
	cfg     Config
	refused atomic.Uint64

	start   sync.Once
	ready   chan accepted
	slots   chan struct{}
	closed  chan struct{}
	running sync.WaitGroup

	mu      sync.Mutex
	pending map[net.Conn]struct{} // nil once closed
}

type accepted struct {
	conn net.Conn
	err  error
}

// Listen returns a Listener over ln. It accepts from the first call of Accept
// on, until Close.
func Listen(ln net.Listener, c Config) *Listener {
	return &Listener{
		Listener: ln, cfg: c, ready: make(chan accepted), closed: make(chan struct{}),
		slots: make(chan struct{}, maxPending), pending: map[net.Conn]struct{}{},
	}
}

// Refused counts the connections of balancers that came without a header that
// can be read.
func (l *Listener) Refused() uint64 { return l.refused.Load() }

// Accept implements net.Listener. It does not wait for the header of one
// connection while another is ready.
func (l *Listener) Accept() (net.Conn, error) {
	l.start.Do(func() { l.running.Go(l.accept) })
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It closes the connections whose header was
// still awaited.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	if l.pending != nil {
		close(l.closed)
		for c := range l.pending {
			_ = c.Close()
		}
		l.pending = nil
	}
	l.mu.Unlock()
	l.running.Wait()
	return err
}

// accept runs until the inner listener is closed.
func (l *Listener) accept() {
	for {
		c, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			l.hand(accepted{err: err})
			return
		case err != nil:
			l.hand(accepted{err: err})
			continue
		case !l.trusted(c.RemoteAddr()):
			l.hand(accepted{conn: c})
			continue
		}
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			_ = c.Close()
			return
		}
		if !l.await(c) {
			_ = c.Close()
			return
		}
		l.running.Go(func() { l.receive(c) })
	}
}

func (l *Listener) trusted(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return false
	}
	peer := tcp.AddrPort().Addr().Unmap()
	return slices.ContainsFunc(l.cfg.Trusted, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// hand gives a to Accept.
func (l *Listener) hand(a accepted) {
	select {
	case l.ready <- a:
	case <-l.closed:
		if a.conn != nil {
			_ = a.conn.Close()
		}
	}
}

// await notes that c's header is awaited; false after Close.
func (l *Listener) await(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return false
	}
	l.pending[c] = struct{}{}
	return true
}

// receive reads the header of c.
func (l *Listener) receive(c net.Conn) {
	told := proxyproto.NewConn(c, proxyproto.WithPolicy(proxyproto.REQUIRE), proxyproto.SetReadHeaderTimeout(l.cfg.Timeout))
	header := told.ProxyHeader()
	l.mu.Lock()
	delete(l.pending, c)
	l.mu.Unlock()
	<-l.slots
	if header == nil {
		l.refused.Add(1)
		_ = c.Close()
		return
	}
	w := &conn{Conn: c, reader: told, remote: c.RemoteAddr()}
	// A health check of the balancer itself (LOCAL), or a client that it does
	// not know, has the balancer's address.
	if source, _, ok := header.TCPAddrs(); ok && !header.Command.IsLocal() {
		w.remote = source
	}
	l.hand(accepted{conn: w})
}

// conn is a connection whose header was read.
type conn struct {
	net.Conn
	reader *proxyproto.Conn // has what came with the header
	remote net.Addr
}

func (c *conn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// RemoteAddr is the client's address.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// NetConn is the connection as it was accepted, to write to and to watch. To
// read from it would miss what came with the header.
func (c *conn) NetConn() net.Conn { return c.Conn }

// CloseWrite ends the sending half.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
