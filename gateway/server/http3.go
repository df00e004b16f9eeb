package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// unidirectional streams that a client may open: those of the protocol
// (RFC 9114, 6.2).
const quicUnidirectional = 8

// quicServer serves HTTP/3 on one UDP socket; the frame layer is quic-go's.
type quicServer struct {
	server *Server
	http   *http3.Server
	// active counts requests under way.
	active atomic.Int64
	over   chan struct{} // closed when all connections have ended
}

// ServeHTTP3 serves HTTP/3 on conn, which it closes in the end, until Shutdown.
// cfg is that of the TLS listener beside it, and so is covers (see Certified).
func (s *Server) ServeHTTP3(conn net.PacketConn, cfg *tls.Config, covers func(name, other string) bool) error {
	defer conn.Close()
	q := &quicServer{server: s, over: make(chan struct{})}
	q.http = &http3.Server{
		Handler:        q,
		MaxHeaderBytes: 2 * int(s.limits.MaxHeaderBytes),
		IdleTimeout:    s.limits.IdleTimeout,
		Logger:         slog.New(slog.DiscardHandler),
		ConnContext: func(ctx context.Context, c *quic.Conn) context.Context {
			state := c.ConnectionState().TLS
			o := &origin{peer: quicPeer(c), tls: true, cert: clientCertificate(state), name: state.ServerName, covers: covers, version: 3}
			return withOrigin(ctx, o)
		},
	}
	transport := &quic.Transport{Conn: conn}
	defer transport.Close()
	// Not the early listener: what comes before the handshake is complete can
	// be replayed by anybody (RFC 8470).
	ln, err := transport.Listen(http3.ConfigureTLSConfig(cfg), &quic.Config{
		HandshakeIdleTimeout:           s.limits.HeaderTimeout,
		MaxIdleTimeout:                 s.limits.IdleTimeout,
		InitialStreamReceiveWindow:     streamWindow,
		MaxStreamReceiveWindow:         streamWindow,
		InitialConnectionReceiveWindow: connectionWindow,
		MaxConnectionReceiveWindow:     connectionWindow,
		MaxIncomingStreams:             int64(cmp.Or(s.limits.MaxStreams, defaultStreams)),
		MaxIncomingUniStreams:          quicUnidirectional,
	})
	if err != nil {
		return err
	}
	defer ln.Close()
	if !s.join(q) {
		return nil
	}
	if err := q.http.ServeListener(&bounded{ln, s}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-q.over
	return nil
}

// join lets Shutdown know of q; false once it has begun.
func (s *Server) join(q *quicServer) bool {
	s.quicMu.Lock()
	defer s.quicMu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.quics = append(s.quics, q)
	return true
}

// stopHTTP3 ends all HTTP/3 connections when their requests have ended, or ctx.
func (s *Server) stopHTTP3(ctx context.Context) error {
	s.quicMu.Lock()
	quics := s.quics
	s.quicMu.Unlock()
	var errs []error
	for _, q := range quics {
		errs = append(errs, q.stop(ctx))
		close(q.over)
	}
	return errors.Join(errs...)
}

// quicFarewell is how many sweeps the last bytes of answers have to leave in: a
// request has ended here before its answer is out.
const quicFarewell = 10

// stop tells clients to open no further request. Whether they close their
// connections then is up to them, so that is not waited for.
func (q *quicServer) stop(ctx context.Context) error {
	closing, cut := context.WithCancel(ctx)
	defer cut()
	done := make(chan error, 1)
	go func() { done <- q.http.Shutdown(closing) }()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for quiet := 0; ; {
		select {
		case err := <-done:
			if ctx.Err() == nil {
				err = nil // it was cut because nothing was under way
			}
			return err
		case <-tick.C:
			if quiet++; q.active.Load() > 0 {
				quiet = 0
			}
			if quiet >= quicFarewell {
				cut()
			}
		}
	}
}

// ServeHTTP implements http.Handler.
func (q *quicServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q.active.Add(1)
	defer q.active.Add(-1)
	q.server.serveMultiplexed(w, r, r.Context().Value(originKey{}).(*origin))
}

// bounded is a QUIC listener whose connections count among the server's.
type bounded struct {
	*quic.Listener
	server *Server
}

// Accept implements http3.QUICListener.
func (b *bounded) Accept(ctx context.Context) (*quic.Conn, error) {
	s := b.server
	for {
		c, err := b.Listener.Accept(ctx)
		if err != nil {
			return nil, err
		}
		peer := quicPeer(c)
		leave := func() {
			s.quicConns.Add(-1)
			s.addresses.leave(peer)
		}
		if !s.admitAddress(peer) {
			_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "")
			continue
		}
		if s.quicConns.Add(1)+s.connections.count() > int64(s.limits.MaxConnections) {
			leave()
			s.refused.Add(1)
			_ = c.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad), "")
			continue
		}
		context.AfterFunc(c.Context(), leave)
		return c, nil
	}
}

func quicPeer(c *quic.Conn) (peer netip.Addr) {
	if a, ok := c.RemoteAddr().(*net.UDPAddr); ok {
		peer = a.AddrPort().Addr().Unmap()
	}
	return peer
}
