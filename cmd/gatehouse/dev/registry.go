// Package dev is what `gatehouse dev` needs instead of servers: a registry that
// speaks Consul's HTTP API, and demo backends that register in one.
//
// It owns the part of that API which is named in ServeHTTP and refuses what it
// does not do; a real Consul judges it in the tests. It keeps everything in
// memory, knows one node and no ACLs, and is no registry for production. The
// backends register in a real Consul as well. It imports nothing of ours.
//
//	registry := dev.NewRegistry(time.Now)
//	go registry.Run(ctx)
//	go http.Serve(listener, registry)
//	err := dev.RunBackend(ctx, dev.BackendConfig{Service: "orders", Registry: "http://" + listener.Addr().String()})
package dev

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"
)

const (
	passing  = "passing"
	warning  = "warning"
	critical = "critical"
)

var (
	errNoService = errors.New("unknown service ID")
	errNoCheck   = errors.New("unknown check ID")
	errNotTTL    = errors.New("check has no TTL")
)

// Registry is an http.Handler for Consul's API over services in memory. It is
// safe for concurrent use. Checks are made while Run runs.
type Registry struct {
	now func() time.Time
	mux *http.ServeMux

	mu       sync.Mutex
	services map[string]*service // by id
	checks   map[string]*check   // by id
	index    uint64              // of the last change
	byName   map[string]uint64   // index of the last change below a service's name, its end included
	changed  chan struct{}       // closed and replaced with each change
	running  context.Context     // nil unless Run runs
	probes   sync.WaitGroup
	wake     chan struct{} // has one element when a deadline may be nearer
	closed   chan struct{} // closed when Run has ended
}

// service is one registered instance.
type service struct {
	registration
	internal          bool // the registry itself: in the catalog, not the agent's
	created, modified uint64
}

// check is one health check of a service.
type check struct {
	checkDefinition
	service *service
	status  string
	output  string
	created uint64
	changed uint64

	expires  time.Time          // TTL: when the silence becomes critical
	critical time.Time          // since when, for DeregisterCriticalServiceAfter
	stop     context.CancelFunc // ends its probe; nil without one
}

// NewRegistry returns a registry that holds only itself, as the service consul.
func NewRegistry(now func() time.Time) *Registry {
	r := &Registry{
		now:      now,
		services: map[string]*service{},
		checks:   map[string]*check{},
		index:    10, // 0 and 1 have meanings of their own in a query
		byName:   map[string]uint64{},
		changed:  make(chan struct{}),
		wake:     make(chan struct{}, 1),
		closed:   make(chan struct{}),
	}
	r.services["consul"] = &service{internal: true, created: r.index, modified: r.index,
		registration: registration{ID: "consul", Name: "consul", Port: 8300, Weights: &weights{1, 1}}}
	r.bumpLocked("consul")
	r.mux = r.routes()
	return r
}

// register adds or replaces an instance. Checks that a replaced one has keep
// their status; those that the new one does not name stay unless replace.
func (r *Registry) register(reg registration, replace bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[reg.ID]
	switch {
	case s == nil:
		s = &service{registration: reg}
		r.services[reg.ID] = s
		s.created = r.bumpLocked(reg.Name)
		s.modified = s.created
	case !s.same(reg):
		if s.Name != reg.Name {
			r.bumpLocked(s.Name)
		}
		s.registration = reg
		s.modified = r.bumpLocked(reg.Name)
	}
	named := map[string]bool{}
	for _, d := range reg.definitions() {
		named[d.CheckID] = true
		r.addCheckLocked(s, d)
	}
	if replace {
		for id, c := range r.checks {
			if c.service == s && !named[id] {
				r.removeCheckLocked(c)
				r.bumpLocked(s.Name)
			}
		}
	}
}

// addCheckLocked starts a check. One that replaces its namesake begins with
// that one's status, so that registering again disturbs nothing.
func (r *Registry) addCheckLocked(s *service, d checkDefinition) {
	now := r.now()
	c := &check{checkDefinition: d, service: s, status: d.Status}
	if c.status == "" {
		c.status = critical
	}
	if d.ttl > 0 {
		c.expires = now.Add(d.ttl)
	}
	if c.status == critical {
		c.critical = now
	}
	old := r.checks[d.CheckID]
	if old != nil && old.service == s {
		old.expires = c.expires
		if reflect.DeepEqual(old.checkDefinition, d) {
			return
		}
		c.status, c.output, c.critical, c.created = old.status, old.output, old.critical, old.created
	}
	if old != nil {
		r.removeCheckLocked(old)
	}
	r.checks[d.CheckID] = c
	c.changed = r.bumpLocked(s.Name)
	if c.created == 0 {
		c.created = c.changed
	}
	r.startLocked(c)
	r.wakeUp()
}

func (r *Registry) removeCheckLocked(c *check) {
	delete(r.checks, c.CheckID)
	if c.stop != nil {
		c.stop()
	}
}

// deregister removes an instance and its checks.
func (r *Registry) deregister(id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.services[id]
	if s == nil || s.internal {
		return errNoService
	}
	r.removeLocked(s)
	return nil
}

func (r *Registry) removeLocked(s *service) {
	for _, c := range r.checks {
		if c.service == s {
			r.removeCheckLocked(c)
		}
	}
	delete(r.services, s.ID)
	r.bumpLocked(s.Name)
}

// heartbeat sets the status of a TTL check.
func (r *Registry) heartbeat(checkID, status, output string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.checks[checkID]
	switch {
	case c == nil:
		return errNoCheck
	case c.ttl == 0:
		return errNotTTL
	}
	c.expires = r.now().Add(c.ttl)
	r.setLocked(c, status, output)
	return nil
}

// setLocked notes what a check says. Only another status is a change.
func (r *Registry) setLocked(c *check, status, output string) {
	c.output = output
	if c.status == status {
		return
	}
	c.status = status
	c.critical = time.Time{}
	if status == critical {
		c.critical = r.now()
	}
	c.changed = r.bumpLocked(c.service.Name)
	r.wakeUp()
}

// bumpLocked counts a change of what is below a service's name, and wakes the
// queries that wait.
func (r *Registry) bumpLocked(name string) uint64 {
	r.index++
	r.byName[name] = r.index
	close(r.changed)
	r.changed = make(chan struct{})
	return r.index
}

// wakeUp has Run look at its deadlines again.
func (r *Registry) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// instancesLocked are the instances of a service in the order of their ids.
func (r *Registry) instancesLocked(name string) []*service {
	var all []*service
	for _, id := range slices.Sorted(maps.Keys(r.services)) {
		if s := r.services[id]; s.Name == name {
			all = append(all, s)
		}
	}
	return all
}

func (r *Registry) checksLocked(s *service) []*check {
	var all []*check
	for _, id := range slices.Sorted(maps.Keys(r.checks)) {
		if c := r.checks[id]; c.service == s {
			all = append(all, c)
		}
	}
	return all
}
