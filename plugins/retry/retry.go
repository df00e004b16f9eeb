// Package retry repeats a failed attempt where nobody can notice: the forwarder
// said that the service cannot have seen it, or that a repetition is harmless,
// and nothing went to the client yet.
//
// It owns how often, how soon and how much of it a service may get. It does not
// own whether an attempt may be repeated (the forwarder's Exchange.Replay) or
// who gets it (gateway/upstream, by Exchange.Avoid).
//
//	p := retry.New(nil)
//	step, err := p.Build(route)
package retry

import (
	"cmp"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

const (
	// Before the second repetition and later ones, a random part of maxDelay.
	minDelay = 10 * time.Millisecond
	maxDelay = 100 * time.Millisecond

	defaultTimeout = 30 * time.Second
)

// Plugin makes the steps and keeps the services' budgets over reloads.
type Plugin struct {
	now func() time.Time

	mu      sync.Mutex
	budgets map[string]*budget

	retried, exhausted atomic.Uint64
}

// New returns a Plugin; now nil is time.Now.
func New(now func() time.Time) *Plugin {
	if now == nil {
		now = time.Now
	}
	return &Plugin{now: now, budgets: map[string]*budget{}}
}

// Name implements plugins.Plugin. The settings stand on the service, under
// retries.
func (p *Plugin) Name() string { return "retry" }

// Build implements plugins.Plugin: nil for a service without retries.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	if r.Upstream == nil || r.Upstream.Retries == nil || r.Upstream.Retries.Attempts < 2 {
		return nil, nil
	}
	service := r.Upstream
	p.mu.Lock()
	b := p.budgets[service.Name]
	if b == nil {
		b = &budget{}
		p.budgets[service.Name] = b
	}
	p.mu.Unlock()
	return func(next plugins.Handler) plugins.Handler {
		s := &step{
			plugin: p, budget: b, next: next,
			attempts: service.Retries.Attempts,
			share:    float64(service.Retries.Budget),
			timeout:  cmp.Or(service.Timeouts.Request, defaultTimeout),
		}
		return s.handle
	}, nil
}

// Retain implements plugins.Retainer.
func (p *Plugin) Retain(live []*routes.Route) {
	used := map[string]bool{}
	for _, r := range live {
		if r.Upstream != nil {
			used[r.Upstream.Name] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for name := range p.budgets {
		if !used[name] {
			delete(p.budgets, name)
		}
	}
}

// Stats returns how many attempts were repeated and how many were not because
// the budget was spent.
func (p *Plugin) Stats() (retried, exhausted uint64) {
	return p.retried.Load(), p.exhausted.Load()
}

// step repeats the attempts of one route.
type step struct {
	plugin   *Plugin
	budget   *budget
	attempts int
	share    float64
	timeout  time.Duration
	next     plugins.Handler
}

func (s *step) handle(x *plugins.Exchange) error {
	s.budget.request(x.Time.Unix())
	err := s.next(x)
	if err == nil || x.Replay == plugins.ReplayNever {
		return err
	}
	return s.repeat(x, err)
}

// repeat makes the further attempts and returns the last one's error.
func (s *step) repeat(x *plugins.Exchange, err error) error {
	deadline := x.Time.Add(s.timeout)
	idempotent := false
	for attempt := 2; attempt <= s.attempts; attempt++ {
		switch x.Replay {
		case plugins.ReplayNever:
			return err
		case plugins.ReplayIdempotent:
			if idempotent {
				return err
			}
			idempotent = true
		}
		delay := delayBefore(attempt)
		if x.Client.Gone() || !s.plugin.now().Add(delay).Before(deadline) {
			return err
		}
		if !s.budget.take(x.Time.Unix(), s.share) {
			s.plugin.exhausted.Add(1)
			return err
		}
		if delay > 0 {
			time.Sleep(delay)
		}
		s.plugin.retried.Add(1)
		x.Replay = plugins.ReplayNever
		if err = s.next(x); err == nil {
			return nil
		}
	}
	return err
}

// delayBefore spreads the later repetitions; the first goes to another instance
// at once.
func delayBefore(attempt int) time.Duration {
	if attempt == 2 {
		return 0
	}
	return minDelay + rand.N(maxDelay-minDelay)
}
