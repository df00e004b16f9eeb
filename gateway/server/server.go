// Package server is the gateway's HTTP/1.1 side towards clients: a fiber app
// with one handler, around connections that read strictly and write responses
// byte for byte.
//
// It owns listeners, the request gate, limits and deadlines of clients, the
// rendering of errors, and the end of every exchange (record, log). It does not
// own routing or policy: it hands each exchange to one plugins.Handler.
//
//	s := server.New(server.Config{Handler: gw.Serve, Limits: file.Server})
//	go s.Serve(ln, false)
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
	"github.com/valyala/fasthttp"

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
	Handler plugins.Handler
	// Canonical forms of host and path.
	Limits    routes.Server
	Trusted   []netip.Prefix
	Recorders []Recorder
	Logger    *slog.Logger
	Now       func() time.Time
}

// Server serves clients. Its methods may be called concurrently.
type Server struct {
	handler   plugins.Handler
	limits    routes.Server
	trusted   atomic.Pointer[[]netip.Prefix]
	recorders []Recorder
	logger    *slog.Logger
	now       func() time.Time

	app         *fiber.App
	states      sync.Pool
	date        dateLine
	connections atomic.Int64
	refused     atomic.Uint64
	malformed   atomic.Uint64
	draining    atomic.Bool
}

// New makes a Server that is not listening yet.
func New(c Config) *Server {
	s := &Server{
		handler: c.Handler, limits: c.Limits, recorders: c.Recorders,
		logger: c.Logger, now: c.Now,
	}
	s.Trust(c.Trusted)
	s.states.New = func() any { return s.newState() }
	s.app = fiber.New(fiber.Config{
		DisableStartupMessage:        true,
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		DisableDefaultDate:           true,
		DisableDefaultContentType:    true,
		CaseSensitive:                true,
		StrictRouting:                true,
		ReadBufferSize:               int(c.Limits.MaxHeaderBytes),
		// What fasthttp renders is never sent (see conn), so this is small.
		WriteBufferSize: 512,
		// With StreamRequestBody this is the number of bytes that are read
		// before the handler runs, not a limit: a request waits for no more
		// of its content than one byte.
		BodyLimit:    1,
		Concurrency:  c.Limits.MaxConnections + 1,
		ErrorHandler: func(*fiber.Ctx, error) error { return nil },
	})
	s.app.Use(func(c *fiber.Ctx) error {
		s.serve(c.Context())
		return nil
	})
	fast := s.app.Server()
	fiberHandler := s.app.Handler()
	fast.Handler = func(ctx *fasthttp.RequestCtx) {
		// fiber answers methods outside its list by itself; policy decides
		// about methods here, so such a request goes straight to serve.
		if knownMethod(ctx.Method()) {
			fiberHandler(ctx)
		} else {
			s.serve(ctx)
		}
	}
	fast.ErrorHandler = s.unreadable
	fast.ExpectHandler = s.expect
	fast.SecureErrorLogMessage = true
	fast.NoDefaultServerHeader = true
	fast.LazyRequestTime = true
	return s
}

func knownMethod(m []byte) bool {
	switch string(m) {
	case fiber.MethodGet, fiber.MethodHead, fiber.MethodPost, fiber.MethodPut, fiber.MethodPatch,
		fiber.MethodDelete, fiber.MethodOptions, fiber.MethodTrace, fiber.MethodConnect:
		return true
	}
	return false
}

// Trust replaces the networks whose forwarding fields are believed.
func (s *Server) Trust(networks []netip.Prefix) { s.trusted.Store(&networks) }

// Serve accepts connections of ln until Shutdown. encrypted tells that ln
// hands out TLS connections, or that a trusted balancer ended TLS before it.
func (s *Server) Serve(ln net.Listener, encrypted bool) error {
	err := s.app.Server().Serve(&listener{Listener: ln, server: s, tls: encrypted})
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
	return s.app.Server().ShutdownWithContext(ctx)
}

// Status is what the metrics tell about connections.
type Status struct {
	Connections int64
	// Refused counts connections over the limit, Malformed requests that
	// the gate turned away before they had a route.
	Refused, Malformed uint64
}

// Status reads the counters.
func (s *Server) Status() Status {
	return Status{s.connections.Load(), s.refused.Load(), s.malformed.Load()}
}
