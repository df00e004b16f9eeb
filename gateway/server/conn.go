package server

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/gateway/sock"
)

// phase is what a connection waits for; it chooses the read deadline.
type phase uint8

const (
	idle phase = iota // the first byte of a request
	head              // the rest of a request's head
	body              // a request's content
)

// conn stands between fasthttp and the client's connection. fasthttp reads
// requests through it, but nothing that fasthttp writes reaches the client:
// every response is written by a stream, byte for byte as the upstream sent
// it, so fasthttp's own rendering (a second Date dropped, fields reordered and
// folded; EDGE: P10) never happens.
//
// It also keeps the deadlines: fasthttp's own would cost two timer updates a
// request, here one is armed only when the connection really waits and what
// is armed does not fit.
type conn struct {
	net.Conn
	tcp    *net.TCPConn  // nil where the transport is not TCP
	plain  io.ReadWriter // Conn, or a cheaper way to it where it is plain TCP
	peer   netip.Addr
	server *Server
	tls    bool
	cert   shownCert

	phase      phase
	until      time.Time // end of the idle or head phase
	armedRead  time.Time
	armedWrite time.Time
	// seen tells whether a byte of the request at hand has arrived.
	seen bool
	// waiting is the exchange that waits for its content; see Server.expect.
	waiting *state
	// linger asks Close to let the client read the answer first.
	linger  bool
	gone    atomic.Bool
	closed  atomic.Bool
	stopped atomic.Bool // no more content is wanted
}

func (s *Server) newConn(c net.Conn, isTLS bool) *conn {
	now := s.now()
	// A new connection gets no longer for its first byte than for its head.
	w := &conn{Conn: c, server: s, tls: isTLS, until: now.Add(s.limits.HeaderTimeout)}
	inner := c
	if t, ok := inner.(interface{ NetConn() net.Conn }); ok {
		inner = t.NetConn()
	}
	w.tcp, _ = inner.(*net.TCPConn)
	w.plain = c
	if t, ok := c.(*net.TCPConn); ok {
		if cheap, ok := sock.New(t); ok {
			w.plain = cheap
		}
	}
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		w.peer = a.AddrPort().Addr().Unmap()
	}
	return w
}

// Read implements net.Conn for fasthttp.
func (c *conn) Read(p []byte) (int, error) {
	if err := c.armRead(); err != nil {
		return 0, err
	}
	for {
		n, err := c.plain.Read(p)
		if n > 0 {
			c.seen = true
			if c.phase == idle {
				c.phase, c.until = head, time.Time{}
			}
			return n, err
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if c.stopped.Load() {
			return n, err
		}
		// An armed deadline may be early, never late.
		if now := c.server.now(); c.until.IsZero() || !now.Before(c.until) {
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
		now := c.server.now()
		c.until = now.Add(l.BodyIdleTimeout)
		if d := c.armedRead.Sub(now); d < l.BodyIdleTimeout/2 || d > l.BodyIdleTimeout {
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
	if c.stopped.Load() { // it may have come between
		return c.Conn.SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

// stopReading ends a Read that is under way in another goroutine; the
// connection cannot be read again.
func (c *conn) stopReading() {
	c.stopped.Store(true)
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
}

// ready starts the wait for the next request.
func (c *conn) ready(now time.Time) {
	c.phase, c.seen = idle, false
	c.until = now.Add(c.server.limits.IdleTimeout)
}

// Write drops what fasthttp renders; see conn.
func (c *conn) Write(p []byte) (int, error) { return len(p), nil }

// send writes to the client. now may be the time of the request: a deadline
// too early by the age of the request is renewed by the next write.
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
	c.server.connections.Add(-1)
	if c.linger && c.tcp != nil && !c.gone.Load() {
		c.linger = false
		if c.closeWrite() == nil {
			_ = c.Conn.SetReadDeadline(c.server.now().Add(lingerTime))
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)
		}
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
	server *Server
	tls    bool
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.server.connections.Add(1) > int64(l.server.limits.MaxConnections) {
			l.server.connections.Add(-1)
			l.server.refused.Add(1)
			_ = c.Close()
			continue
		}
		return l.server.newConn(c, l.tls), nil
	}
}
