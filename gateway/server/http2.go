package server

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
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

// multiplexer is what serves HTTP/2 connections.
type multiplexer struct {
	server *Server
	base   *http.Server
	frames *http2.Server
}

func newMultiplexer(s *Server) *multiplexer {
	m := &multiplexer{server: s, frames: &http2.Server{
		MaxConcurrentStreams:         uint32(cmp.Or(s.limits.MaxStreams, defaultStreams)),
		MaxReadFrameSize:             frameSize,
		MaxDecoderHeaderTableSize:    headerTable,
		MaxEncoderHeaderTableSize:    headerTable,
		MaxUploadBufferPerConnection: connectionWindow,
		MaxUploadBufferPerStream:     streamWindow,
		ReadIdleTimeout:              pingAfter,
		PingTimeout:                  pingWait,
		IdleTimeout:                  s.limits.IdleTimeout,
	}}
	m.base = &http.Server{
		IdleTimeout: s.limits.IdleTimeout,
		// Beyond this the frame layer answers by itself; below, up to
		// server.max_header_bytes, the gate does.
		MaxHeaderBytes: 2 * int(s.limits.MaxHeaderBytes),
		ErrorLog:       log.New(io.Discard, "", 0),
	}
	if err := http2.ConfigureServer(m.base, m.frames); err != nil {
		panic(err) // it looks at cipher suites only, and there are none
	}
	return m
}

// serveHTTP2 is the life of a connection that speaks HTTP/2.
func (s *Server) serveHTTP2(nc net.Conn) error {
	c := nc.(*conn)
	c.watch.since.Store(heading) // it is not for the sweep to end
	o := &origin{peer: c.peer, tls: c.tls, cert: c.clientCert(), certTold: c.certTold, covers: c.covers, version: 2}
	f := &framed{Conn: c.Conn, c: c, in: meter{preface: len(http2.ClientPreface)}}
	f.br = bufio.NewReaderSize(reader{f}, 4<<10)
	f.credit = credit{left: creditLimit, at: s.now()}
	var transport net.Conn = f
	if t, ok := c.Conn.(secured); ok {
		o.name = t.ConnectionState().ServerName
		transport = encrypted{f, t}
	}
	s.mux.frames.ServeConn(transport, &http2.ServeConnOpts{
		BaseConfig: s.mux.base,
		Context:    withOrigin(context.Background(), o),
		Handler:    &muxHandler{s},
	})
	return nil
}

// stop tells all clients to open no further stream here.
func (m *multiplexer) stop(ctx context.Context) { _ = m.base.Shutdown(ctx) }

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
	br       *bufio.Reader
	in, out  meter
	credit   credit
	armed    bool
}

// encrypted lets the frame layer see the state of TLS, of which HTTP/2 demands
// something (RFC 9113, 9.2).
type encrypted struct {
	*framed
	tls secured
}

func (e encrypted) ConnectionState() tls.ConnectionState { return e.tls.ConnectionState() }

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
		return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return n, err
}

// arm gives a header block, and the preface, as long as a head may take.
func (f *framed) arm() error {
	switch open := f.in.preface > 0 || f.in.block; {
	case open && !f.armed:
		f.armed = true
		return f.SetReadDeadline(f.c.server.now().Add(f.c.server.limits.HeaderTimeout))
	case !open && f.armed:
		f.armed = false
		return f.SetReadDeadline(time.Time{})
	}
	return nil
}

// Write implements net.Conn.
func (f *framed) Write(p []byte) (int, error) {
	earned := 0.0
	f.out.pass(p, func(kind http2.FrameType, _ http2.Flags, _ int) { earned += worth(kind) })
	f.credit.give(earned)
	if err := f.c.send(p, f.c.server.now()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close implements net.Conn.
func (f *framed) Close() error { return f.c.Close() }
