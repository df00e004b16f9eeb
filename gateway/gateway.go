// Package gateway turns a configuration into what serves requests: the route
// table, one checked chain of steps per route, and the pools of the services.
//
// It owns loading, publishing and retiring snapshots, and the way of an
// exchange through the current one. It does not own sockets (gateway/server),
// the call to a backend (gateway/forward) or any policy (plugins).
//
//	gw := gateway.New(gateway.Config{Plugins: all, Discover: find, …})
//	err := gw.Load(ctx, file)      // again and again: one atomic swap each
//	err = gw.Serve(exchange)
package gateway

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/gateway/forward"
	"github.com/gatehouse/gatehouse/gateway/upstream"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Discover watches the instances of a service: found is called with each
// complete set until release. It must not block.
type Discover func(s *routes.Service, found func([]discovery.Endpoint)) (release func(), err error)

// Local is something that the gateway serves itself on the clients' listeners.
type Local struct {
	// Owns reports whether the request is for Handler. Both are lent.
	Owns    func(host, path []byte) bool
	Handler plugins.Handler
}

// Config is what a Gateway needs.
type Config struct {
	// Plugins in the order in which they see a request.
	Plugins  []plugins.Plugin
	Discover Discover
	Locals   []Local
	// Settle bounds how long a reload waits for the first instances of
	// services that are new in it.
	Settle time.Duration
	Logger *slog.Logger
	Now    func() time.Time
}

// Gateway serves exchanges by its current snapshot.
type Gateway struct {
	cfg     Config
	current atomic.Pointer[snapshot]

	mu       sync.Mutex // one Load at a time; guards services
	services map[string]*service
	closed   bool
	running  sync.WaitGroup
}

// snapshot is immutable. A request uses the one it found to its end.
type snapshot struct {
	table  *routes.Table
	chains []plugins.Handler // by Route.Index
	// preflights answer for the routes with CORS rules; nil for all others.
	preflights []plugins.Handler
	routes     []*routes.Route
}

// New makes a Gateway that answers 404 to everything until the first Load.
func New(c Config) *Gateway {
	g := &Gateway{cfg: c, services: map[string]*service{}}
	table, err := routes.NewTable(nil)
	if err != nil {
		panic(err) // an empty table has no conflicts
	}
	g.current.Store(&snapshot{table: table})
	return g
}

// Check builds everything that Load would publish, and nothing is published,
// dialled or started. The error joins all problems.
func (g *Gateway) Check(file *routes.File) error {
	_, err := g.build(file, func(*routes.Service) *upstream.Service { return nil })
	return errors.Join(err, checkServices(file))
}

// build makes a snapshot; pool returns the pool of a service.
func (g *Gateway) build(file *routes.File, pool func(*routes.Service) *upstream.Service) (*snapshot, error) {
	table, err := routes.NewTable(file.Routes)
	errs := []error{err}
	next := &snapshot{
		table: table, routes: file.Routes,
		chains: make([]plugins.Handler, len(file.Routes)), preflights: make([]plugins.Handler, len(file.Routes)),
	}
	for _, r := range file.Routes {
		chain, err := g.chain(r, g.cfg.Plugins, pool)
		next.chains[r.Index], errs = chain, append(errs, err)
		for _, p := range g.cfg.Plugins {
			if browsers, ok := p.(plugins.Preflighter); ok && err == nil {
				if next.preflights[r.Index], err = browsers.Preflight(r); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	return next, errors.Join(errs...)
}

// chain builds the steps of list for r, and those of its branches.
func (g *Gateway) chain(r *routes.Route, list []plugins.Plugin, pool func(*routes.Service) *upstream.Service) (plugins.Handler, error) {
	steps, errs := make([]plugins.Step, len(list)), make([]error, len(list))
	for i, p := range list {
		var others []plugins.Handler
		brancher, ok := p.(plugins.Brancher)
		if ok {
			for _, branch := range brancher.Branches(r) {
				other, err := g.chain(branch, list[i+1:], pool)
				others, errs[i] = append(others, other), errors.Join(errs[i], err)
			}
		}
		var err error
		if len(others) > 0 {
			steps[i], err = brancher.BuildBranches(r, others)
		} else {
			steps[i], err = p.Build(r)
		}
		errs[i] = errors.Join(errs[i], err)
	}
	last := plugins.Handler(unserved)
	if r.Upstream != nil {
		last = forward.New(r, pool(r.Upstream), g.cfg.Now)
	}
	return plugins.Chain(last, steps...), errors.Join(errs...)
}

// unserved ends the chain of a route without a service, whose steps answer
// every request.
func unserved(*plugins.Exchange) error {
	return &plugins.Error{Status: http.StatusInternalServerError, Code: plugins.Internal,
		Err: errors.New("no step answered, and the route has no service")}
}

// Load builds file's snapshot and publishes it with one atomic swap. Any error
// leaves the running one as it is. Services whose description did not change
// keep their connections and statistics.
func (g *Gateway) Load(ctx context.Context, file *routes.File) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errors.New("the gateway is closed")
	}
	if err := g.Check(file); err != nil {
		return err
	}
	services, fresh, err := g.prepare(file)
	if err != nil {
		return err
	}
	next, err := g.build(file, func(s *routes.Service) *upstream.Service { return services[s.Name].pool })
	if err != nil {
		g.drop(fresh)
		return err
	}
	g.settle(ctx, fresh)
	g.current.Store(next)
	g.retire(services)
	for _, p := range g.cfg.Plugins {
		if r, ok := p.(plugins.Retainer); ok {
			r.Retain(plugins.WithBranches(g.cfg.Plugins, file.Routes))
		}
	}
	return nil
}

// Serve answers one exchange: it is the plugins.Handler of gateway/server.
func (g *Gateway) Serve(x *plugins.Exchange) error {
	for i := range g.cfg.Locals {
		if l := &g.cfg.Locals[i]; l.Owns(x.Host, x.Path) {
			return l.Handler(x)
		}
	}
	s := g.current.Load()
	if string(x.Method) == http.MethodOptions {
		if answer := s.preflight(x); answer != nil {
			return answer(x)
		}
	}
	m := s.table.Match(x.Host, x.Method, x.Path)
	if m.Route == nil {
		if m.Allow != "" {
			return &plugins.Error{Status: http.StatusMethodNotAllowed, Code: plugins.MethodNotAllowed,
				Header: [][2]string{{"Allow", m.Allow}}}
		}
		return &plugins.Error{Status: http.StatusNotFound, Code: plugins.NoRoute}
	}
	x.Route = m.Route
	x.Record.Service = m.Route.Service
	if !m.Route.AllowEncodedSlash && bytes.IndexByte(x.Path, '%') >= 0 && routes.EncodedSlash(x.Path) {
		return &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest,
			Detail: "The path holds an escaped slash."}
	}
	if bytes.IndexByte(x.Path, ';') >= 0 && s.table.Shadowed(m.Route, x.Host, x.Method, x.Path) {
		return &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest,
			Detail: "Without its parameters (;…) the path is another route's."}
	}
	return s.chains[m.Route.Index](x)
}

// preflight finds what answers a CORS preflight: the rules of the route that
// the browser's real request would take. nil: x is an ordinary request.
func (s *snapshot) preflight(x *plugins.Exchange) plugins.Handler {
	method, n := x.Field("access-control-request-method")
	if _, origins := x.Field("origin"); n != 1 || origins == 0 {
		return nil
	}
	r := s.table.Match(x.Host, method, x.Path).Route
	if r == nil || s.preflights[r.Index] == nil {
		return nil
	}
	x.Route, x.Record.Service = r, r.Service
	return s.preflights[r.Index]
}

// Routes returns the routes that are live now.
func (g *Gateway) Routes() []*routes.Route { return g.current.Load().routes }

// Close stops discovery and closes the pools; exchanges under way finish.
func (g *Gateway) Close() {
	g.mu.Lock()
	g.closed = true
	g.retire(nil)
	g.mu.Unlock()
	g.running.Wait()
}
