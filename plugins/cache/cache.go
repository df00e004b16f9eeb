// Package cache answers GET and HEAD from responses that it stored, as a shared
// cache (RFC 9111).
//
// It owns what may be stored, for how long, and for whom. It does not own who
// may ask: every request has been authorised when its steps run, hits too.
//
//	routes:
//	  - path: /catalogue/**
//	    cache: {max_bytes: 64MiB}
package cache

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "cache"

// Settings are what stands under the key; all may be absent.
type Settings struct {
	Pos routes.Pos
	// MaxBytes bounds what is stored for the route; default 16MiB.
	MaxBytes routes.Size `yaml:"max_bytes"`
	// MaxEntry bounds one response; default 1MiB.
	MaxEntry routes.Size `yaml:"max_entry"`
}

// Plugin makes the steps and keeps the stores over reloads.
type Plugin struct {
	mu     sync.Mutex
	stores map[storeKey]*store

	results [numResults]atomic.Uint64
}

// result is what became of a request that may be answered from a store.
type result int

const (
	hit         result = iota
	revalidated        // the service confirmed what was stored
	stale              // the service sent another response than the stored one
	miss
	bypass // the request wants nothing stored
	numResults
)

var resultNames = [numResults]string{"hit", "revalidated", "stale", "miss", "bypass"}

// Stats are what the metrics tell about all stores.
type Stats struct {
	// Results counts GET and HEAD requests of routes with a cache by what became
	// of them: hit, revalidated, stale, miss, bypass.
	Results map[string]uint64
	// Entries are stored, and take Bytes.
	Entries int
	Bytes   int64
}

// Stats reads the counters.
func (p *Plugin) Stats() Stats {
	s := Stats{Results: make(map[string]uint64, numResults)}
	for r, name := range resultNames {
		s.Results[name] = p.results[r].Load()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, store := range p.stores {
		entries, bytes := store.size()
		s.Entries, s.Bytes = s.Entries+entries, s.Bytes+bytes
	}
	return s
}

// storeKey tells stores apart: other settings, route or service, other store.
type storeKey struct {
	route, service string
	most, entry    int64
}

// New returns a Plugin.
func New() *Plugin { return &Plugin{stores: map[storeKey]*store{}} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

// Build implements plugins.Plugin: nil for a route without cache.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	key, ok, err := keyOf(r)
	if !ok || err != nil {
		return nil, err
	}
	p.mu.Lock()
	s := p.stores[key]
	if s == nil {
		s = newStore(key.most)
		p.stores[key] = s
	}
	p.mu.Unlock()
	u := &rule{plugin: p, store: s, maxEntry: key.entry}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error { return u.serve(x, next) }
	}, nil
}

func keyOf(r *routes.Route) (storeKey, bool, error) {
	node := r.Plugin(Name)
	if node.IsZero() {
		return storeKey{}, false, nil
	}
	s := Settings{MaxBytes: 16 << 20, MaxEntry: 1 << 20}
	if err := node.Decode(&s); err != nil {
		return storeKey{}, false, err
	}
	if s.MaxEntry == 0 || s.MaxBytes < s.MaxEntry {
		return storeKey{}, false, routes.Problem{Pos: s.Pos, Message: fmt.Sprintf(
			"route %q: %s: max_bytes of %v must hold at least one entry of max_entry, %v, and that is not 0", r.Name, Name, s.MaxBytes, s.MaxEntry)}
	}
	return storeKey{r.Name, r.Service, int64(s.MaxBytes), int64(s.MaxEntry)}, true, nil
}

// Retain implements plugins.Retainer.
func (p *Plugin) Retain(live []*routes.Route) {
	used := map[storeKey]bool{}
	for _, r := range live {
		if key, ok, err := keyOf(r); ok && err == nil {
			used[key] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.stores {
		if !used[key] {
			delete(p.stores, key)
		}
	}
}

// invalidate forgets a URI in every store: the route of an unsafe request is
// often not the one that reads.
func (p *Plugin) invalidate(uri string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.stores {
		s.forget(uri)
	}
}

// rule is the cache of a route.
type rule struct {
	plugin   *Plugin
	store    *store
	maxEntry int64
}

func (u *rule) serve(x *plugins.Exchange, next plugins.Handler) error {
	switch string(x.Method) {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions, http.MethodTrace:
		return next(x)
	default:
		return u.unsafe(x, next)
	}
	q := ask(x)
	if q.bypass {
		u.plugin.results[bypass].Add(1)
		return next(x)
	}
	e := u.store.find(q.uri, x)
	switch {
	case e != nil && e.private && q.credentials:
		e = nil
	case e != nil && !q.noCache && e.fresh(x.Time, q.maxAge):
		u.plugin.results[hit].Add(1)
		return e.answer(x, q, "hit")
	}
	return u.fetch(x, q, e, next)
}

// unsafe lets a request pass that may change what is stored (RFC 9111, 4.4).
func (u *rule) unsafe(x *plugins.Exchange, next plugins.Handler) error {
	uri := uriOf(x)
	err := next(x)
	if s := x.Record.Status; err == nil && s >= 200 && s < 400 {
		u.plugin.invalidate(uri)
	}
	return err
}
