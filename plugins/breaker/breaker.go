// Package breaker keeps requests away from a service that fails: one circuit
// breaker per service, open while too many of its answers were failures.
//
// It owns what counts as a failure, how long a circuit stays open, and the
// states that metrics show. It does not own single instances, which
// gateway/upstream ejects, or repetition (plugins/retry, which stands before it
// so that every attempt is counted).
//
//	p := breaker.New()
//	step, err := p.Build(route) // the same circuit for all routes of a service
package breaker

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Plugin makes the steps and keeps the circuits, which outlive reloads.
type Plugin struct {
	mu       sync.Mutex
	circuits map[key]*circuit
}

// key tells circuits apart. Changed settings start with a new circuit: a
// reload that is refused must not touch the one in use.
type key struct {
	service  string
	settings settings
}

// settings are those of routes.Breaker, without their place.
type settings struct {
	failures    float64
	minRequests uint32
	window      time.Duration
	open        time.Duration
}

// New returns a Plugin without circuits.
func New() *Plugin { return &Plugin{circuits: map[key]*circuit{}} }

// Name implements plugins.Plugin. The settings stand on the service.
func (p *Plugin) Name() string { return "breaker" }

// Build implements plugins.Plugin: nil for a service whose breaker is off.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	if r.Upstream == nil || r.Upstream.Breaker == nil {
		return nil, nil
	}
	k := keyOf(r.Upstream)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.circuits[k]
	if c == nil {
		c = newCircuit(k.service, k.settings)
		p.circuits[k] = c
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error { return c.serve(x, next) }
	}, nil
}

// keyOf fills in the defaults, so that a configuration that spells them out
// keeps its circuit.
func keyOf(s *routes.Service) key {
	b := s.Breaker
	return key{service: s.Name, settings: settings{
		failures:    cmp.Or(float64(b.Failures), 0.5),
		minRequests: uint32(cmp.Or(b.MinRequests, 50)),
		window:      cmp.Or(b.Window, 10*time.Second),
		open:        cmp.Or(b.Open, 2*time.Second),
	}}
}

// Retain implements plugins.Retainer.
func (p *Plugin) Retain(live []*routes.Route) {
	used := map[key]bool{}
	for _, r := range live {
		if r.Upstream != nil && r.Upstream.Breaker != nil {
			used[keyOf(r.Upstream)] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for k := range p.circuits {
		if !used[k] {
			delete(p.circuits, k)
		}
	}
}

// Status is one circuit as metrics and operators see it.
type Status struct {
	Service string
	State   string // closed, half-open or open
	// Until is when an open circuit lets requests try again.
	Until time.Time
	// Opened and Refused are counts since the circuit was made.
	Opened, Refused uint64
}

// Status returns all circuits, sorted by service.
func (p *Plugin) Status() []Status {
	p.mu.Lock()
	all := make([]Status, 0, len(p.circuits))
	for _, c := range p.circuits {
		all = append(all, c.status())
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Service, b.Service) })
	return all
}

// The outcomes that a circuit is told besides nil, the success.
var (
	errFailed   = errors.New("the service failed")
	errExcluded = errors.New("the service is not to blame")
)

// outcome judges a finished request. An answer in time is a success, a refusal
// of the service's own (4xx) too; its errors (5xx) and everything that broke on
// the way to it are failures. What this gateway or the client did says nothing.
func outcome(x *plugins.Exchange, err error) error {
	if err == nil {
		switch {
		case blames(x.Record.Reason), x.Record.Status >= http.StatusInternalServerError, x.Record.Unavailable:
			return errFailed
		case x.Record.Reason != "":
			return errExcluded
		}
		return nil
	}
	var e *plugins.Error
	if errors.As(err, &e) && blames(e.Code) {
		return errFailed
	}
	return errExcluded
}

// blames reports whether a reason code is the service's failure. That no
// instance is there, or that all connections are taken, was decided here: the
// circuit could not tell from it when the service recovers.
func blames(code string) bool {
	switch code {
	case plugins.UpstreamConnect, plugins.UpstreamTimeout, plugins.UpstreamReset, plugins.UpstreamInvalid:
		return true
	}
	return false
}
