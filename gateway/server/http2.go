package server

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// protoHTTP2 is the name of HTTP/2 in ALPN, and of a listener on which clients
// speak it without asking (RFC 9113, 3.3).
const protoHTTP2 = http2.NextProtoTLS

// Windows and tables are small: what a client may have buffered here is a
// window for each stream and one for the connection.
const (
	streamWindow     = 64 << 10
	connectionWindow = 1 << 20
	frameSize        = 16 << 10
	headerTable      = 4 << 10
	defaultStreams   = 100
	// A connection that is silent while a stream is open is asked whether it
	// lives.
	pingAfter, pingWait = 30 * time.Second, 15 * time.Second
)

// multiplexer serves the HTTP/2 connections that serveHTTP2 gives it: the frame
// layer is net/http's.
type multiplexer struct {
	http  *http.Server
	conns chan net.Conn
	once  sync.Once
	over  chan struct{}
}

func newMultiplexer(s *Server) *multiplexer {
	m := &multiplexer{conns: make(chan net.Conn), over: make(chan struct{})}
	m.http = &http.Server{
		Handler:     &muxHandler{s},
		IdleTimeout: s.limits.IdleTimeout,
		// Beyond this the frame layer answers by itself; below, up to
		// server.max_header_bytes, the gate does.
		MaxHeaderBytes:               2 * int(s.limits.MaxHeaderBytes),
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0),
		ConnContext:                  func(ctx context.Context, c net.Conn) context.Context { return withOrigin(ctx, c.(*framed).origin) },
		Protocols:                    new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          cmp.Or(s.limits.MaxStreams, defaultStreams),
			MaxReadFrameSize:              frameSize,
			MaxDecoderHeaderTableSize:     headerTable,
			MaxEncoderHeaderTableSize:     headerTable,
			MaxReceiveBufferPerConnection: connectionWindow,
			MaxReceiveBufferPerStream:     streamWindow,
			CountError:                    s.countStream,
			SendPingTimeout:               pingAfter,
			PingTimeout:                   pingWait,
		},
	}
	// TLS is behind framed, which the frame layer sees as a plain connection.
	m.http.Protocols.SetUnencryptedHTTP2(true)
	return m
}

// countStream counts a stream that the frame layer refused because there were
// too many, and nothing else that it tells.
func (s *Server) countStream(failure string) {
	if strings.Contains(failure, "over_max_streams") {
		s.streamsRefused.Add(1)
	}
}

// serveHTTP2 is the life of a connection that speaks HTTP/2.
func (s *Server) serveHTTP2(nc net.Conn) error {
	c := nc.(*conn)
	c.watch.since.Store(heading) // it is not for the sweep to end
	o := &origin{peer: c.peer, tls: c.tls, cert: c.clientCert(), certTold: c.certTold, covers: c.covers, alternative: c.alternative, version: 2}
	if t, ok := c.Conn.(secured); ok {
		o.name = t.ConnectionState().ServerName
	}
	f := &framed{Conn: c.Conn, c: c, origin: o, in: meter{preface: len(http2.ClientPreface)}, over: make(chan struct{})}
	f.br = bufio.NewReaderSize(reader{f}, 4<<10)
	f.credit = credit{left: creditLimit, at: s.now()}
	select {
	case s.mux.conns <- f:
		<-f.over
	case <-s.mux.over:
	}
	return nil
}

// run serves until stop.
func (m *multiplexer) run() { _ = m.http.Serve(m) }

// stop tells all clients to open no further stream, closes connections without
// any and waits for the others until ctx ends.
func (m *multiplexer) stop(ctx context.Context) error { return m.http.Shutdown(ctx) }

// Accept implements net.Listener for net/http: the connections come from
// serveHTTP2.
func (m *multiplexer) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.over:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (m *multiplexer) Close() error {
	m.once.Do(func() { close(m.over) })
	return nil
}

// Addr implements net.Listener; there is none.
func (m *multiplexer) Addr() net.Addr { return &net.TCPAddr{} }

// originKey is where a connection's context holds its origin.
type originKey struct{}

func withOrigin(ctx context.Context, o *origin) context.Context {
	return context.WithValue(ctx, originKey{}, o)
}

// muxHandler is the http.Handler behind the frame layers of HTTP/2 and HTTP/3.
type muxHandler struct{ server *Server }

func (h *muxHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.server.serveMultiplexed(w, r, r.Context().Value(originKey{}).(*origin))
}

// framed is the connection as the frame layer sees it: it counts frames, and
// gives header blocks and writes a deadline. What streams and idle connections
// wait for has its own.
type framed struct {
	net.Conn // as accepted, or TLS
	c        *conn
	origin   *origin
	br       *bufio.Reader
	in       meter
	credit   credit
	armed    bool
	writing  sync.Mutex
	out      meter // guarded by writing
	once     sync.Once
	over     chan struct{}
}

// Read implements net.Conn.
func (f *framed) Read(p []byte) (int, error) { return f.br.Read(p) }

// reader reads for the buffer.
type reader struct{ f *framed }

func (r reader) Read(p []byte) (int, error) {
	f, s := r.f, r.f.c.server
	if err := f.arm(); err != nil {
		return 0, err
	}
	n, err := f.Conn.Read(p)
	spent := 0.0
	f.in.pass(p[:n], func(kind http2.FrameType, flags http2.Flags, length int) {
		spent += price(kind, flags, length)
	})
	if !f.credit.take(spent, s.now) {
		s.floods.Add(1)
		f.sayCalm()
		return 0, errFlood
	}
	return n, err
}

var errFlood = errors.New("too many frames without content")

// sayCalm tells the client why its connection ends, if no frame is under way.
func (f *framed) sayCalm() {
	f.writing.Lock()
	defer f.writing.Unlock()
	if f.out.between() {
		var b bytes.Buffer
		if http2.NewFramer(&b, nil).WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil) == nil {
			_ = f.c.send(b.Bytes(), f.c.server.now())
		}
	}
}

// arm gives a header block, and the preface, as long as a head may take.
func (f *framed) arm() error {
	switch open := f.in.preface > 0 || f.in.block; {
	case open && !f.armed:
		f.armed = true
		return f.Conn.SetReadDeadline(f.c.server.now().Add(f.c.server.limits.HeaderTimeout))
	case !open && f.armed:
		f.armed = false
		return f.Conn.SetReadDeadline(time.Time{})
	}
	return nil
}

// Write implements net.Conn.
func (f *framed) Write(p []byte) (int, error) {
	f.writing.Lock()
	defer f.writing.Unlock()
	earned := 0.0
	f.out.pass(p, func(kind http2.FrameType, _ http2.Flags, _ int) { earned += worth(kind) })
	f.credit.give(earned)
	if err := f.c.send(p, f.c.server.now()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline implements net.Conn. The deadlines are ours: net/http would only
// take them away.
func (f *framed) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn; see SetDeadline.
func (f *framed) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn; see SetDeadline.
func (f *framed) SetWriteDeadline(time.Time) error { return nil }

// Close implements net.Conn.
func (f *framed) Close() error {
	f.once.Do(func() { close(f.over) })
	return f.c.Close()
}
