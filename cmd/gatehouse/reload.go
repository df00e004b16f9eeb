package main

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse/gatehouse/plugins/all"
	"github.com/gatehouse/gatehouse/routes"
)

// load reads a configuration file.
func load(path string, dev bool) (*routes.File, error) {
	return routes.Load(path, routes.Options{Plugins: all.Names(), Dev: dev})
}

// Reload reads the configuration again and makes it live, or changes nothing.
func (p *process) Reload(ctx context.Context) error {
	p.reloading.Lock()
	defer p.reloading.Unlock()
	file, err := load(p.path, p.dev)
	p.sources.Store(&file.Sources)
	if err == nil {
		if err = unchangeable(p.file.Load(), file); err == nil {
			err = p.publish(ctx, file)
		}
	}
	p.reloads.count(err)
	if err != nil {
		p.logger.Error("configuration not reloaded; the last good one stays", "error", err)
		return err
	}
	p.logger.Info("configuration reloaded", "routes", len(file.Routes), "services", len(file.Services))
	return nil
}

// unchangeable refuses a reload of what needs a restart.
func unchangeable(old, fresh *routes.File) error {
	var errs []error
	refuse := func(what string, a, b any) {
		if !reflect.DeepEqual(a, b) {
			errs = append(errs, routes.Problem{Pos: routes.Pos{File: fresh.Path, Line: 1, Column: 1},
				Message: what + " cannot change while running: restart gatehouse"})
		}
	}
	refuse("listeners", listenerAddresses(old), listenerAddresses(fresh))
	refuse("store", old.Store, fresh.Store)
	refuse("redis", old.Redis, fresh.Redis)
	refuse("consul", consulOf(old), consulOf(fresh))
	refuse("admin", adminOf(old), adminOf(fresh))
	refuse("server", old.Server, fresh.Server)
	refuse("authserver", issuerOf(old), issuerOf(fresh))
	return errors.Join(errs...)
}

func listenerAddresses(f *routes.File) (list []string) {
	for _, l := range f.Listeners {
		list = append(list, transportName(l))
	}
	return list
}

func consulOf(f *routes.File) (c routes.Consul) {
	if f.Consul != nil {
		c = *f.Consul
		c.Pos = routes.Pos{}
	}
	return c
}

func adminOf(f *routes.File) (a routes.Admin) {
	if f.Admin != nil {
		a = *f.Admin
		a.Pos = routes.Pos{}
	}
	return a
}

// issuerOf is the part of the authorization server that a reload cannot change.
func issuerOf(f *routes.File) (a routes.AuthServer) {
	if f.AuthServer != nil {
		a = *f.AuthServer
		a.Pos, a.Scopes, a.Clients, a.Users, a.Theme = routes.Pos{}, nil, nil, nil, ""
		a.Permissions, a.ClientRegistration, a.Unusual.Countries = nil, nil, ""
		a.Upstream = slices.Clone(a.Upstream)
		for i := range a.Upstream {
			a.Upstream[i].Pos = routes.Pos{}
		}
		if a.LDAP != nil { // where it stands does not matter
			directory := *a.LDAP
			directory.Pos = routes.Pos{}
			a.LDAP = &directory
		}
		if a.SMTP != nil {
			server := *a.SMTP
			server.Pos = routes.Pos{}
			a.SMTP = &server
		}
	}
	return a
}

// publish makes file live in every part. What can fail comes first.
func (p *process) publish(ctx context.Context, file *routes.File) error {
	if err := p.edge.check(file); err != nil {
		return err
	}
	if err := p.secured.check(file); err != nil {
		return err
	}
	if err := p.gateway.Check(file); err != nil {
		return err
	}
	if err := runTests(file); err != nil {
		return err
	}
	if p.issuer != nil {
		if err := p.issuer.reload(ctx, file); err != nil {
			return err
		}
	}
	if err := p.edge.prepare(file); err != nil {
		return err
	}
	p.resources.publish(file)
	if err := p.secured.load(file); err != nil {
		return err
	}
	p.requests.Retain(file.Routes)
	if err := p.gateway.Load(ctx, file); err != nil {
		return err
	}
	p.server.Trust(file.TrustedProxies)
	p.file.Store(file)
	return nil
}

// reloadMetrics tell how the last reload went.
type reloadMetrics struct {
	successful, at prometheus.Gauge
	generation     prometheus.Counter
}

func (m *reloadMetrics) register(r *prometheus.Registry) {
	m.successful = prometheus.NewGauge(prometheus.GaugeOpts{Name: "gateway_config_last_reload_successful", Help: "1 if the last reload went live."})
	m.at = prometheus.NewGauge(prometheus.GaugeOpts{Name: "gateway_config_last_reload_success_timestamp_seconds", Help: "When the configuration went live."})
	m.generation = prometheus.NewCounter(prometheus.CounterOpts{Name: "gateway_config_generation", Help: "Configurations that went live."})
	r.MustRegister(m.successful, m.at, m.generation)
	m.count(nil)
}

func (m *reloadMetrics) count(err error) {
	if err != nil {
		m.successful.Set(0)
		return
	}
	m.successful.Set(1)
	m.at.Set(float64(time.Now().UnixNano()) / 1e9)
	m.generation.Inc()
}
