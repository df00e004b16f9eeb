// Package server is the gateway's side towards clients: a fiber app that
// listens, HTTP/1.1 connections that read strictly and write responses byte for
// byte, and HTTP/2 connections whose requests pass the same gate.
//
// It owns listeners, the request gate, limits and deadlines of clients, the
// rendering of errors, and the end of every exchange (record, log). It does not
// own routing or policy: it hands each exchange to one plugins.Handler.
//
//	s := server.New(server.Config{Handler: gw.Serve, Limits: file.Server})
//	go s.Serve(ln, server.Transport{})
//	defer s.Shutdown(ctx)
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/gatehouse/gatehouse/gateway/pace"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Recorder is told about every exchange when it has ended. It must not keep x.
type Recorder interface {
	Record(x *plugins.Exchange, took time.Duration)
}

// Config is what a Server needs. All fields are required but Recorders.
type Config struct {
	// Handler answers an exchange; gateway.Gateway.Serve.
	Handler   plugins.Handler
	Limits    routes.Server
	Trusted   []netip.Prefix
	Recorders []Recorder
	Logger    *slog.Logger
	Now       func() time.Time
}

// Server serves clients. Its methods may be called concurrently.
type Server struct {
	handler plugins.Handler
	limits  routes.Server
	// inward is how slow clients may send, outward how slow they may read.
	inward, outward pace.Rule
	trusted         atomic.Pointer[[]netip.Prefix]
	recorders       []Recorder
	logger          *slog.Logger
	now             func() time.Time

	app         *fiber.App
	mux         *multiplexer
	states      sync.Pool // of *state
	buffers     sync.Pool // of *[]byte, each as long as a head may be
	date        dateLine
	connections connections
	addresses   addresses
	tunnels     atomic.Int64
	refused     atomic.Uint64
	// refusedOfAddress counts connections over the limit of their address.
	refusedOfAddress atomic.Uint64
	malformed        atomic.Uint64
	// tunnelsRefused counts upgrades over the limit.
	tunnelsRefused atomic.Uint64
	streams        atomic.Int64 // exchanges over HTTP/2 and HTTP/3
	streamsRefused atomic.Uint64
	floods         atomic.Uint64
	quicConns      atomic.Int64
	quicMu         sync.Mutex // guards quics
	quics          []*quicServer
	draining       atomic.Bool // no connection carries a further request
	stopping       atomic.Bool // idle connections end
	watching       sync.Once
	stop           chan struct{}
	swept          sync.WaitGroup
}

// New makes a Server that is not listening yet.
func New(c Config) *Server {
	s := &Server{
		handler: c.Handler, limits: c.Limits, recorders: c.Recorders,
		logger: c.Logger, now: c.Now, stop: make(chan struct{}),
	}
	l := &s.limits
	s.inward = pace.Rule{Rate: int64(l.MinRequestRate), Grace: l.RateGrace, Idle: l.BodyIdleTimeout}
	s.outward = pace.Rule{Rate: int64(l.MinResponseRate), Grace: l.RateGrace, Idle: l.WriteIdleTimeout}
	s.Trust(c.Trusted)
	s.states.New = func() any { return s.newState() }
	s.buffers.New = func() any {
		b := make([]byte, c.Limits.MaxHeaderBytes)
		return &b
	}
	s.app = fiber.New(fiber.Config{
		DisableStartupMessage: true,
		Concurrency:           c.Limits.MaxConnections + 1,
	})
	// Requests are read here and not by fasthttp: its parser is more lenient
	// than an edge may be, and each head would be parsed twice.
	s.app.Server().NextProto(protoHTTP1, s.serveHTTP1)
	s.app.Server().NextProto(protoHTTP2, s.serveHTTP2)
	// The handshake was the answer to an ACME challenge (RFC 8737, 3): nothing
	// is said on the connection.
	s.app.Server().NextProto("acme-tls/1", func(net.Conn) error { return nil })
	s.mux = newMultiplexer(s)
	return s
}

// Trust replaces the networks whose forwarding fields are believed.
func (s *Server) Trust(networks []netip.Prefix) { s.trusted.Store(&networks) }

// Transport tells what is between a listener and its clients.
type Transport struct {
	// Encrypted: the listener hands out TLS connections, or a trusted balancer
	// ended TLS before it.
	Encrypted bool
	// ClientCertTold: that balancer tells the certificate that the client has
	// shown it, in Client-Cert (RFC 9440). From others the field is not
	// believed.
	ClientCertTold bool
	// Alternative is the value of Alt-Svc in every response (RFC 7838): where
	// HTTP/3 is served too. Empty: nowhere.
	Alternative string
}

// Serve accepts connections of ln until Shutdown.
//
// A listener of TLS connections that offers "h2" by ALPN serves HTTP/2 to the
// clients that choose it.
func (s *Server) Serve(ln net.Listener, t Transport) error {
	return s.serve(&listener{Listener: ln, server: s, transport: t})
}

// ServeHTTP2 is Serve for clients that speak HTTP/2 without asking by ALPN
// (h2c with prior knowledge; RFC 9113, 3.3).
func (s *Server) ServeHTTP2(ln net.Listener, t Transport) error {
	return s.serve(&listener{Listener: ln, server: s, transport: t, http2: true})
}

// Certified is a listener that knows its certificates.
type Certified interface {
	// Covers reports whether the certificate that a client which asked for
	// name was shown is good for other too.
	Covers(name, other string) bool
}

func (s *Server) serve(ln *listener) error {
	if known, ok := ln.Listener.(Certified); ok {
		ln.covers = known.Covers
	}
	s.watching.Do(func() {
		s.swept.Go(func() { s.sweep(s.stop) })
		s.swept.Go(s.mux.run)
	})
	err := s.app.Server().Serve(ln)
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Drain makes every further response end its connection.
func (s *Server) Drain() { s.draining.Store(true) }

// Shutdown stops accepting, closes idle connections and waits for the
// exchanges under way, until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Drain()
	if s.stopping.Swap(true) {
		return nil
	}
	s.connections.each((*conn).wakeIdle)
	muxed := make(chan error, 2)
	go func() { muxed <- s.mux.stop(ctx) }()
	go func() { muxed <- s.stopHTTP3(ctx) }()
	err := s.app.Server().ShutdownWithContext(ctx)
	err = errors.Join(err, <-muxed, <-muxed)
	close(s.stop)
	s.swept.Wait()
	return err
}

// Status is what the metrics tell about connections.
type Status struct {
	Connections int64
	// Refused and RefusedOfAddress count connections over the limit of all and
	// over that of one address, Malformed requests that the gate turned away
	// before they had a route.
	Refused, RefusedOfAddress, Malformed uint64
	// Streams counts the exchanges under way over HTTP/2 and HTTP/3,
	// StreamsRefused those over the limit of their connection, Floods the
	// connections that ended because of too many frames.
	Streams                int64
	StreamsRefused, Floods uint64
	// Tunnels are connections that left HTTP, TunnelsRefused counts those over
	// the limit.
	Tunnels        int64
	TunnelsRefused uint64
}

// Status reads the counters.
func (s *Server) Status() Status {
	return Status{
		Connections: s.connections.count() + s.quicConns.Load(), Refused: s.refused.Load(),
		RefusedOfAddress: s.refusedOfAddress.Load(), Malformed: s.malformed.Load(),
		Streams: s.streams.Load(), StreamsRefused: s.streamsRefused.Load(), Floods: s.floods.Load(),
		Tunnels: s.tunnels.Load(), TunnelsRefused: s.tunnelsRefused.Load(),
	}
}
