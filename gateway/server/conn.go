package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/gateway/pace"
	"github.com/gatehouse/gatehouse/gateway/sock"
)

// phase is what a connection waits for; it chooses the read deadline.
type phase uint8

const (
	idle phase = iota // the first byte of a request
	head              // the rest of a request's head
	body              // a request's content
)

// conn is a client's connection, and how an HTTP/1.1 one is read and written:
// fiber's server accepts it and gives it a goroutine, and then hands it over
// (see proto), so that each head is parsed once, strictly, and each response
// reaches the client byte for byte as the upstream sent it (EDGE: S10, P10).
//
// It keeps the deadlines: one is armed only when the connection really waits
// and what is armed does not fit.
type conn struct {
	net.Conn
	tcp    *net.TCPConn  // nil where the transport is not TCP
	plain  io.ReadWriter // Conn, or cheap
	cheap  *sock.Conn    // nil where the transport is not plain TCP
	peer   netip.Addr
	server *Server
	tls    bool
	// certTold: a balancer may tell the client's certificate in the head.
	certTold bool
	// alternative: see Transport.
	alternative string
	cert        shownCert
	// http2: the client speaks HTTP/2 without asking by ALPN.
	http2 bool
	// covers: see Certified.
	covers func(name, other string) bool

	// buf[r:w] was read and not consumed yet. A plain connection that waits for
	// a request has no buffer.
	buf  *[]byte
	r, w int

	phase      phase
	until      time.Time // end of the phase; of the wait for the next piece of content
	asked      time.Time // when that wait began
	inward     pace.Meter
	armedRead  time.Time
	armedWrite time.Time
	// seen tells whether a byte of the request at hand has arrived.
	seen bool
	// linger asks Close to let the client read the answer first.
	linger  bool
	gone    atomic.Bool
	slow    atomic.Bool // it was cut off for taking the answer too slowly
	closed  atomic.Bool
	stopped atomic.Bool // no more content is wanted

	watch watch
}

func (s *Server) newConn(c net.Conn, t Transport) *conn {
	now := s.now()
	// A new connection gets no longer for its first byte than for its head.
	w := &conn{Conn: c, server: s, tls: t.Encrypted, certTold: t.ClientCertTold, alternative: t.Alternative, until: now.Add(s.limits.HeaderTimeout)}
	inner := c
	for {
		layer, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = layer.NetConn()
	}
	w.tcp, _ = inner.(*net.TCPConn)
	limitUnsent(w.tcp)
	w.plain = c
	if tcp, ok := c.(*net.TCPConn); ok {
		if cheap, ok := sock.New(tcp); ok {
			w.plain, w.cheap = cheap, cheap
		}
	}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		w.peer = a.AddrPort().Addr().Unmap()
	}
	return w
}

// maxUnsent is what the kernel may hold of an answer beyond what is on its way.
// It would hold megabytes for each client that reads slowly, and what it holds
// looks sent to the minimum rate.
const maxUnsent = 128 << 10

func limitUnsent(c *net.TCPConn) {
	if c == nil {
		return
	}
	// Where it fails, the kernel's bound is what is left.
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = sock.LimitUnsent(fd, maxUnsent) })
	}
}

// protoHTTP1 is the name under which fasthttp hands over a connection that
// speaks HTTP/1.1.
const protoHTTP1 = "http/1.1"

// secured is a TLS connection.
type secured interface {
	Handshake() error
	ConnectionState() tls.ConnectionState
}

// Handshake is called by fasthttp in the connection's goroutine; with
// ConnectionState it makes fasthttp hand the connection to the function
// registered for its protocol instead of reading from it.
func (c *conn) Handshake() error {
	t, ok := c.Conn.(secured)
	if !ok {
		return nil
	}
	if err := c.Conn.SetDeadline(c.until); err != nil {
		return err
	}
	if err := t.Handshake(); err != nil {
		return err
	}
	c.until = c.server.now().Add(c.server.limits.HeaderTimeout)
	return c.Conn.SetDeadline(time.Time{})
}

// ConnectionState tells fasthttp the protocol; see Handshake.
func (c *conn) ConnectionState() tls.ConnectionState {
	var state tls.ConnectionState
	if t, ok := c.Conn.(secured); ok {
		state = t.ConnectionState()
	}
	switch {
	case c.http2:
		state.NegotiatedProtocol = protoHTTP2
	case state.NegotiatedProtocol == "":
		state.NegotiatedProtocol = protoHTTP1
	}
	return state
}

// Read reads from the client until the deadline of the phase.
func (c *conn) Read(p []byte) (int, error) { return c.read(p, nil) }

// read reads into p, or into l's buffer, which only a cheap connection can.
func (c *conn) read(p []byte, l sock.Lender) (n int, err error) {
	if err := c.armRead(); err != nil {
		return 0, err
	}
	for {
		if l != nil {
			n, err = c.cheap.ReadLent(l)
		} else {
			n, err = c.plain.Read(p)
		}
		if n > 0 {
			c.seen = true
			switch c.phase {
			case idle:
				c.watch.since.Store(heading)
				c.phase, c.until = head, time.Time{}
			case body:
				c.inward.Waited(&c.server.inward, int64(n), c.server.now().Sub(c.asked))
			}
			return n, err
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if c.stopped.Load() || c.phase == idle && c.server.stopping.Load() {
			return n, err
		}
		// An armed deadline may be early, never late.
		if now := c.server.now(); c.until.IsZero() || !now.Before(c.until) {
			if c.phase == body && c.server.inward.Short(c.inward) {
				err = errRequestSlow
			}
			return n, err
		}
		if err := c.setRead(c.until); err != nil {
			return 0, err
		}
	}
}

// armRead makes sure that a read ends in time, with as few timer updates as
// can be: an idle connection's deadline may be armed for as little as half of
// its time, since Read renews one that fires early.
func (c *conn) armRead() error {
	l := &c.server.limits
	switch c.phase {
	case idle:
		if c.armedRead.IsZero() || c.armedRead.After(c.until) || c.until.Sub(c.armedRead) > l.IdleTimeout/2 {
			return c.setRead(c.until)
		}
	case head:
		if c.until.IsZero() {
			c.until = c.server.now().Add(l.HeaderTimeout)
			return c.setRead(c.until)
		}
	case body:
		c.asked = c.server.now()
		patience := c.server.inward.Patience(c.inward, 0)
		c.until = c.asked.Add(patience)
		if d := c.armedRead.Sub(c.asked); d < patience/2 || d > patience {
			return c.setRead(c.until)
		}
	}
	return nil
}

func (c *conn) setRead(t time.Time) error {
	c.armedRead = t
	if err := c.Conn.SetReadDeadline(t); err != nil {
		return err
	}
	if c.stopped.Load() || c.phase == idle && c.server.stopping.Load() { // it may have come between
		return c.Conn.SetReadDeadline(past)
	}
	return nil
}

var past = time.Unix(1, 0)

// stopReading ends a Read that is under way in another goroutine; the
// connection cannot be read again.
func (c *conn) stopReading() {
	c.stopped.Store(true)
	_ = c.Conn.SetReadDeadline(past)
}

// ready starts the wait for the next request.
func (c *conn) ready(now time.Time) {
	c.phase, c.seen = idle, false
	c.until = now.Add(c.server.limits.IdleTimeout)
}

// send writes to the client, which from now on has the usual time to take it.
func (c *conn) send(p []byte, now time.Time) error {
	if err := c.armWrite(now); err != nil {
		return err
	}
	if _, err := c.plain.Write(p); err != nil {
		c.gone.Store(true)
		return err
	}
	return nil
}

func (c *conn) armWrite(now time.Time) error {
	w := c.server.limits.WriteIdleTimeout
	if d := c.armedWrite.Sub(now); d < w/2 {
		c.armedWrite = now.Add(w)
		return c.Conn.SetWriteDeadline(c.armedWrite)
	}
	return nil
}

const lingerBytes, lingerTime = 256 << 10, time.Second

// Close ends the connection. After an answer that left content unread it
// first closes the writing side and reads on for a moment: otherwise the reset
// could destroy the answer before the client has read it.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.server.connections.remove(c)
	c.server.addresses.leave(c.peer)
	if c.linger && c.tcp != nil && !c.gone.Load() {
		c.linger = false
		if c.closeWrite() == nil {
			_ = c.Conn.SetReadDeadline(c.server.now().Add(lingerTime))
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
		}
	}
	if c.slow.Load() {
		return c.tcp.Close() // no farewell of TLS: it would not be taken either
	}
	return c.Conn.Close()
}

func (c *conn) closeWrite() error {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return t.CloseWrite()
	}
	return errors.ErrUnsupported
}

// listener wraps accepted connections and bounds their number.
type listener struct {
	net.Listener
	server    *Server
	transport Transport
	http2     bool
	covers    func(name, other string) bool
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		w := l.server.newConn(c, l.transport)
		w.http2, w.covers = l.http2, l.covers
		if !l.server.admitConn(w) {
			_ = c.Close()
			continue
		}
		return w, nil
	}
}

// admitConn adds c to the open connections, as long as there are not too many.
func (s *Server) admitConn(c *conn) bool {
	if !s.admitAddress(c.peer) {
		return false
	}
	if !s.connections.add(c, s.limits.MaxConnections) {
		s.addresses.leave(c.peer)
		s.refused.Add(1)
		return false
	}
	return true
}

// connections is the set of open ones.
type connections struct {
	mu  sync.Mutex
	set map[*conn]struct{}
}

func (s *connections) add(c *conn, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.set) >= limit {
		return false
	}
	if s.set == nil {
		s.set = make(map[*conn]struct{})
	}
	s.set[c] = struct{}{}
	return true
}

func (s *connections) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, c)
}

func (s *connections) count() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.set))
}

// each calls f for every open connection; f must not wait.
func (s *connections) each(f func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.set {
		f(c)
	}
}
