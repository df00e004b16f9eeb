package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/gateway/upstream"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// service is a pool and the watch that feeds it.
type service struct {
	name string
	// identity is the part of the description on which pool and watch rest.
	identity string
	pool     *upstream.Service
	release  func()
	stop     context.CancelFunc
	known    chan struct{} // closed with the first set of instances
	once     sync.Once
}

// ServiceStatus is what operators see of a service.
type ServiceStatus struct {
	Name string
	upstream.Status
}

// Services reports on the services in use, by name.
func (g *Gateway) Services() []ServiceStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []ServiceStatus
	for _, name := range slices.Sorted(maps.Keys(g.services)) {
		list = append(list, ServiceStatus{name, g.services[name].pool.Status()})
	}
	return list
}

// prepare makes the set of services of file: those that run already and
// fresh ones, which are started.
func (g *Gateway) prepare(file *routes.File) (all map[string]*service, fresh []*service, err error) {
	all = map[string]*service{}
	for _, r := range plugins.WithBranches(g.cfg.Plugins, file.Routes) {
		s := r.Upstream
		if s == nil || all[s.Name] != nil {
			continue
		}
		encryption, sum, err := serviceTLS(s)
		if err != nil {
			g.drop(fresh)
			return nil, nil, err
		}
		id := identity(s) + sum
		if old := g.services[s.Name]; old != nil && old.identity == id {
			all[s.Name] = old
			continue
		}
		started, err := g.start(s, id, encryption)
		if err != nil {
			g.drop(fresh)
			return nil, nil, fmt.Errorf("%s: service %q: %w", s.Pos, s.Name, err)
		}
		all[s.Name] = started
		fresh = append(fresh, started)
	}
	return all, fresh, nil
}

// identity names everything that a pool or a watch was made from, but for TLS.
func identity(s *routes.Service) string {
	consul := routes.ConsulService{}
	if s.Consul != nil {
		consul = *s.Consul
		consul.Pos = routes.Pos{}
	}
	return fmt.Sprintf("%+v %q %s %s %s %d %d %s", consul, s.Targets, s.Protocol, s.Balance, s.Timeouts.Connect, s.MaxConnections,
		s.MaxPending, s.Timeouts.Pending)
}

func (g *Gateway) start(s *routes.Service, id string, encryption *tls.Config) (*service, error) {
	cfg := upstream.Config{
		Name: s.Name, Connect: s.Timeouts.Connect, MaxConnsPerInstance: s.MaxConnections, Balance: balances[s.Balance],
		MaxPending: s.MaxPending, PendingWait: s.Timeouts.Pending,
		TLS:   encryption,
		HTTP2: s.Protocol == "h2c" || s.Protocol == "grpc",
	}
	if s.MaxPending == 0 {
		cfg.MaxPending = -1 // none
	}
	ctx, stop := context.WithCancel(context.Background())
	v := &service{name: s.Name, identity: id, pool: upstream.NewService(cfg, g.cfg.Now), stop: stop, known: make(chan struct{})}
	release, err := g.cfg.Discover(s, func(eps []discovery.Endpoint) {
		v.pool.Update(eps)
		v.once.Do(func() { close(v.known) })
	})
	if err != nil {
		stop()
		v.pool.Close()
		return nil, err
	}
	v.release = release
	g.running.Go(func() { _ = v.pool.Run(ctx) })
	return v, nil
}

var balances = map[string]upstream.Balance{"": upstream.P2C, "p2c": upstream.P2C, "round_robin": upstream.RoundRobin, "hash": upstream.Hash}

func (g *Gateway) drop(services []*service) {
	for _, v := range services {
		v.release()
		v.stop()
		v.pool.Close()
	}
}

// settle waits until every fresh service knows its instances, but not long:
// discovery that is away must not hold up the others.
func (g *Gateway) settle(ctx context.Context, fresh []*service) {
	if len(fresh) == 0 {
		return
	}
	timer := time.NewTimer(g.cfg.Settle)
	defer timer.Stop()
	for _, v := range fresh {
		select {
		case <-v.known:
		case <-ctx.Done():
			return
		case <-timer.C:
			g.cfg.Logger.Warn("no instances known yet", "service", v.name)
			return
		}
	}
}

// retire makes live the services in use and ends all others.
func (g *Gateway) retire(live map[string]*service) {
	var gone []*service
	for name, v := range g.services {
		if live[name] != v {
			gone = append(gone, v)
		}
	}
	g.services = live
	g.drop(gone)
}

// serverName is the name that an https service's certificate must have: the
// host of its targets, or its name in Consul.
func serverName(s *routes.Service) string {
	if s.Consul != nil {
		return s.Consul.Service
	}
	for _, t := range s.Targets {
		if u, err := url.Parse(t); err == nil {
			return u.Hostname()
		}
	}
	return ""
}
