// Package ratelimit is the policy behind a route's rate_limit: GCRA buckets per
// client, subject, address, claim or route, shared by all replicas through a
// store.
//
// It owns the algorithm (Decide), the leases that keep the network off the
// request's path, the Redis store and its script, the behaviour while the store
// is away, and the RateLimit response fields. It does not own who the caller is
// (plugins/auth) or what a client's address is (gateway/server).
//
// A leased bucket debits the store first and spends locally: at most q tokens
// per replica, each within the lease's life L. So N replicas together admit in
// any window at most burst + rate·window + min(rate·L, N·q), and L or q is
// chosen so that this slack is at most 5 % of the burst and one second's rate.
// Losing the store costs at most one more burst.
//
//	p := ratelimit.New(ratelimit.Config{Store: store})
//	go p.Run(ctx)
//	step, err := p.Build(route) // plugins.Step
package ratelimit

import (
	"context"
	"hash/maphash"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

const (
	// shareOfWindow is the part of burst + one second's rate that leases may
	// admit too much or hold back.
	shareOfWindow = 0.05
	// minLife is the shortest lease that is worth its call; maxLife bounds how
	// long tokens may lie in a replica that does not need them.
	minLife = 10 * time.Millisecond
	maxLife = 4 * time.Second
	// minShare is the fewest tokens for which a replica's share is leased.
	minShare = 16
	// exactBelow is the burst per replica under which leases starve others.
	exactBelow = 20

	defaultBuckets = 1 << 17
)

// Config is what a Plugin needs from the process.
type Config struct {
	// Store holds the buckets that replicas share; nil: this process counts
	// for itself, exactly.
	Store Store
	// Nodes tells how many replicas there are at least; the store counts them
	// too, and the larger number is taken. nil: 1.
	Nodes func() int
	// Now is the clock; nil: the monotonic clock.
	Now func() time.Time
	// MaxBuckets bounds the buckets kept in this process; 0: 131,072. Beyond
	// it idle ones are forgotten, then those used longest ago.
	MaxBuckets int
}

// Plugin limits requests. Its buckets outlive reloads.
type Plugin struct {
	store    Store
	nodesOf  func() int
	elapsed  func() int64 // nanoseconds on a monotonic clock
	replica  string
	seed     maphash.Seed
	shards   []shard
	perShard int
	urgent   chan work
	refills  chan work
	health   health
	calls    callCounters
	// owes is set when some bucket may have a debt to post.
	owes atomic.Bool
	// nodes is the number of live replicas as last known, at least 1.
	nodes atomic.Int64
	// fewer: the last heartbeat counted fewer. Only the watch uses it.
	fewer bool
}

// New returns a Plugin. With a Store it needs Run.
func New(c Config) *Plugin {
	p := &Plugin{
		store:   c.Store,
		nodesOf: c.Nodes,
		health:  newHealth(),
		replica: strconv.FormatUint(rand.Uint64()|1<<63, 16),
		seed:    maphash.MakeSeed(),
		urgent:  make(chan work, queueSize),
		refills: make(chan work, queueSize),
	}
	start := time.Now()
	p.elapsed = func() int64 { return int64(time.Since(start)) }
	if c.Now != nil {
		start := c.Now()
		p.elapsed = func() int64 { return int64(c.Now().Sub(start)) }
	}
	if c.MaxBuckets <= 0 {
		c.MaxBuckets = defaultBuckets
	}
	p.shards = make([]shard, shardCount)
	for i := range p.shards {
		p.shards[i].buckets = make(map[uint64]*bucket)
	}
	p.perShard = max(1, c.MaxBuckets/shardCount)
	p.nodes.Store(p.knownNodes(0))
	return p
}

// Name is the key of the limits on a route.
func (p *Plugin) Name() string { return "rate_limit" }

// Build makes the step of the route's limits that need to know the caller. Its
// place is behind auth. Limits by route are among them: before auth, a flood of
// bad tokens would use up what authenticated callers share.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	return p.build(r, func(k subjectKind) bool { return k != byAddress })
}

// ByAddress is the plugin of the limits `by: ip`. Its place is before auth, so
// that it also slows down who guesses tokens.
func (p *Plugin) ByAddress() plugins.Plugin { return addressPlugin{p} }

type addressPlugin struct{ p *Plugin }

func (a addressPlugin) Name() string { return a.p.Name() }

func (a addressPlugin) Build(r *routes.Route) (plugins.Step, error) {
	return a.p.build(r, func(k subjectKind) bool { return k == byAddress })
}

func (p *Plugin) build(r *routes.Route, mine func(subjectKind) bool) (plugins.Step, error) {
	policies, err := p.policies(r)
	if err != nil {
		return nil, err
	}
	var kept []*policy
	for _, pol := range policies {
		if mine(pol.by) {
			kept = append(kept, pol)
		}
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return func(next plugins.Handler) plugins.Handler {
		s := &step{plugin: p, policies: kept, shadow: r.Mode == "shadow", next: next}
		return s.handle
	}, nil
}

// knownNodes is the number of replicas, given how many the store counted.
func (p *Plugin) knownNodes(counted int) int64 {
	if p.nodesOf != nil {
		counted = max(counted, p.nodesOf())
	}
	return int64(max(1, counted))
}

// Run talks to the store until ctx ends. Without a store it only waits.
func (p *Plugin) Run(ctx context.Context) error {
	if p.store == nil {
		<-ctx.Done()
		return nil
	}
	return p.runStore(ctx)
}
