package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/gatehouse/gatehouse/gateway"
	"github.com/gatehouse/gatehouse/gateway/admin"
	"github.com/gatehouse/gatehouse/gateway/certs"
	"github.com/gatehouse/gatehouse/gateway/server"
	"github.com/gatehouse/gatehouse/routes"
)

// process is a running gatehouse: every part, wired.
type process struct {
	path   string
	dev    bool
	logger *slog.Logger
	file   atomic.Pointer[routes.File] // the configuration that is live
	// sources are the files that were read last, even if they were refused.
	sources atomic.Pointer[[]string]

	registry *prometheus.Registry
	requests *admin.Requests
	reloads  reloadMetrics

	edge      *edge
	secured   *secured
	issuer    *issuer // nil: this process enforces only
	resources resources
	gateway   *gateway.Gateway
	server    *server.Server
	accesses  *server.AccessLog // nil: off

	listeners []boundListener
	adminAt   net.Listener
	reloading sync.Mutex
	ready     atomic.Bool
	draining  atomic.Bool
}

type boundListener struct {
	net.Listener
	transport server.Transport
	http2     bool           // h2c
	http3     net.PacketConn // nil: off
	certs     *certs.Listener
}

// newProcess wires file and takes its addresses; nothing is served yet. What
// has to be closed is closed when ctx ends or by Run.
func newProcess(ctx context.Context, file *routes.File, dev bool, logger *slog.Logger) (p *process, err error) {
	p = &process{path: file.Path, dev: dev, logger: logger, registry: prometheus.NewRegistry(), requests: admin.NewRequests()}
	p.file.Store(file)
	p.sources.Store(&file.Sources)
	p.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), p.requests)
	p.reloads.register(p.registry)
	// What was opened is closed again when a later part fails.
	var opened []func()
	defer func() {
		if err != nil {
			for _, closeOne := range slices.Backward(opened) {
				closeOne()
			}
		}
	}()
	p.resources.publish(file)
	limits, err := newLimits(file)
	if err != nil {
		return nil, err
	}
	opened = append(opened, limits.close)
	if file.AuthServer != nil {
		if p.issuer, err = openIssuer(ctx, file, dev, limits, logger, p.registry); err != nil {
			return nil, err
		}
		opened = append(opened, p.issuer.close)
	}
	if p.edge, err = newEdge(file, p.issuer, limits, logger, p.registry); err != nil {
		return nil, err
	}
	opened = append(opened, p.edge.close)
	if p.secured, err = newSecured(file, logger); err != nil {
		return nil, err
	}
	opened = append(opened, p.secured.close)
	p.secured.register(p.registry)
	p.gateway = gateway.New(gateway.Config{
		Plugins: p.edge.plugins, Discover: p.edge.discover, Locals: p.locals(),
		Settle: 2 * time.Second, Logger: logger, Now: time.Now,
	})
	opened = append(opened, p.gateway.Close)
	p.registry.MustRegister(admin.NewServices(p.gateway.Services))
	recorders := []server.Recorder{p.requests}
	if file.AccessLog.Enabled {
		if p.accesses, err = server.OpenAccessLog(file.AccessLog.Path); err != nil {
			return nil, fmt.Errorf("%s: access_log: %w", file.AccessLog.Pos, err)
		}
		recorders = append(recorders, p.accesses)
	}
	registerAccessLog(p.registry, p.accesses)
	p.server = server.New(server.Config{
		Handler: p.gateway.Serve, Limits: file.Server, Trusted: file.TrustedProxies,
		Recorders: recorders, Logger: logger, Now: time.Now,
	})
	p.registry.MustRegister(admin.NewConnections(p.server.Status))
	if err := p.listen(file, &opened); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) listen(file *routes.File, opened *[]func()) error {
	for _, l := range file.Listeners {
		ln, err := net.Listen("tcp", l.Address)
		if err != nil {
			return fmt.Errorf("%s: listener: %w", l.Pos, err)
		}
		*opened = append(*opened, func() { ln.Close() })
		bound := boundListener{Listener: ln, transport: transport(l.TLS), http2: l.Protocol == "h2c"}
		if l.ProxyProtocol != nil {
			// Before TLS: the balancer speaks first.
			bound.Listener = p.secured.behind(ln, l.ProxyProtocol)
		}
		if l.TLS != nil && !l.TLS.Terminated {
			secured, err := p.secured.open(l.TLS)
			if err != nil {
				return err
			}
			bound.Listener = secured.Listen(bound.Listener)
			if l.HTTP3 {
				if bound.http3, err = net.ListenPacket("udp", ln.Addr().String()); err != nil {
					return fmt.Errorf("%s: listener: http3: %w", l.Pos, err)
				}
				*opened = append(*opened, func() { bound.http3.Close() })
				bound.certs = secured
				bound.transport.Alternative = alternative(bound.http3.LocalAddr())
			}
		}
		p.listeners = append(p.listeners, bound)
	}
	if file.Admin != nil {
		ln, err := net.Listen("tcp", file.Admin.Address)
		if err != nil {
			return fmt.Errorf("%s: admin: %w", file.Admin.Pos, err)
		}
		*opened = append(*opened, func() { ln.Close() })
		p.adminAt = ln
	}
	return nil
}

// alternative announces HTTP/3 on the port of a, for a day.
func alternative(a net.Addr) string {
	return fmt.Sprintf(`h3=":%d"; ma=86400`, a.(*net.UDPAddr).Port)
}

// Run serves until ctx ends, then drains. The first failure of a part ends
// everything.
func (p *process) Run(ctx context.Context) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	failed := make(chan error, 16)
	start := func(name string, run func(context.Context) error) {
		running.Go(func() {
			if err := run(background); err != nil && background.Err() == nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	defer func() {
		stop()
		running.Wait()
		p.gateway.Close()
		p.edge.close()
		p.secured.close()
		if p.issuer != nil {
			p.issuer.close()
		}
	}()
	p.edge.run(start)
	p.secured.run(start)
	if p.issuer != nil {
		p.issuer.run(start)
	}
	if p.accesses != nil {
		start("access log", p.accesses.Run)
	}
	if admins := p.serveAdmin(start); admins != nil {
		defer admins.Close()
	}
	if err := p.publish(ctx, p.file.Load()); err != nil {
		return err
	}
	for _, l := range p.listeners {
		if l.http3 != nil {
			start("HTTP/3 listener "+l.Addr().String(), func(context.Context) error {
				return p.server.ServeHTTP3(l.http3, l.certs.TLS(), l.certs.Covers)
			})
		}
		start("listener "+l.Addr().String(), func(context.Context) error {
			if l.http2 {
				return p.server.ServeHTTP2(l.Listener, l.transport)
			}
			return p.server.Serve(l.Listener, l.transport)
		})
	}
	start("file watch", func(ctx context.Context) error {
		return watchFiles(ctx, func() []string { return *p.sources.Load() }, func() { _ = p.Reload(ctx) })
	})
	if err := p.awaitView(ctx); err == nil {
		p.ready.Store(true)
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	p.drain()
	return err
}

// awaitView waits until the edge knows every revocation: serving before could
// let a revoked token pass.
func (p *process) awaitView(ctx context.Context) error {
	if p.issuer == nil {
		return nil
	}
	select {
	case <-p.issuer.follower.Ready():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drain fails readiness, keeps serving while balancers notice, and then lets
// the exchanges under way end.
func (p *process) drain() {
	limits := p.file.Load().Server
	p.draining.Store(true)
	if !p.dev {
		time.Sleep(limits.DrainDelay)
	}
	p.server.Drain()
	ctx, cancel := context.WithTimeout(context.Background(), limits.DrainTimeout)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		p.logger.Warn("connections were cut off", "error", err)
	}
}

var errDraining, errStarting = errors.New("draining"), errors.New("starting")

func (p *process) readiness() error {
	switch {
	case p.draining.Load():
		return errDraining
	case !p.ready.Load():
		return errStarting
	}
	return nil
}

func (p *process) serveAdmin(start func(string, func(context.Context) error)) *http.Server {
	if p.adminAt == nil {
		return nil
	}
	cfg := admin.Config{
		Ready: p.readiness, Reload: p.Reload, Routes: p.gateway.Routes, Services: p.gateway.Services, Registry: p.registry,
		Token: p.file.Load().Admin.Token.Reveal(),
	}
	if p.issuer != nil {
		cfg.AuthServer = p.issuer.admin()
		cfg.Verify = p.edge.operators(p.issuer)
		cfg.AuthServerReady = p.issuer.store.Ping
	}
	s := &http.Server{Handler: admin.New(cfg).Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	start("admin listener", func(context.Context) error {
		if err := s.Serve(p.adminAt); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return s
}

// locals is what the gateway serves itself on the clients' listeners.
func (p *process) locals() []gateway.Local {
	locals := append(p.secured.locals(), gateway.Local{Owns: p.resources.owns, Handler: gateway.HTTP(&p.resources)})
	if p.issuer != nil {
		locals = append(locals, gateway.Local{Owns: p.issuer.owns, Handler: gateway.HTTP(p.issuer.handler())})
	}
	return locals
}
