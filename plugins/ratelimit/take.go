package ratelimit

import "time"

// patience is how long a request waits for the store: 25 ms less what waking
// up may take.
const patience = 22 * time.Millisecond

type verdict uint8

const (
	allowed verdict = iota
	denied
	unavailable
)

// decision is the answer for one request under one limit. Times are
// nanoseconds from now.
type decision struct {
	verdict   verdict
	remaining int64
	retry     int64
	reset     int64
	// lease is the end of the lease that was spent from, 0 for none.
	lease int64
}

// take decides one request. Where live tokens were leased it only takes a
// shard's lock; else it may wait for the store until deadline, which the first
// wait of a request sets.
func (p *Plugin) take(pol *policy, s *subject, deadline *int64) decision {
	now := p.elapsed()
	sh, hash := p.shardOf(pol, s)
	sh.mu.Lock()
	b := sh.find(pol, s, hash, now, p.perShard)
	d, decided := p.takeHere(sh, b, pol, now)
	if decided {
		sh.counts.add(d.verdict)
		sh.mu.Unlock()
		return d
	}
	d = p.takeStore(sh, b, pol, now, deadline)
	sh.counts.add(d.verdict)
	sh.mu.Unlock()
	return d
}

func (p *Plugin) shardOf(pol *policy, s *subject) (*shard, uint64) {
	hash := s.hash(p.seed) ^ pol.hash
	return &p.shards[hash%shardCount], hash
}

// takeHere decides from what this process holds, if it can.
func (p *Plugin) takeHere(sh *shard, b *bucket, pol *policy, now int64) (decision, bool) {
	if pol.local {
		return b.count(pol.limit, pol.cost, now), true
	}
	if b.spend(pol.cost, now) {
		p.prefetch(sh, b, now)
		return decision{remaining: p.remaining(b, now), reset: max(0, b.resetAt-now), lease: b.now.until}, true
	}
	if now < b.denyUntil {
		return decision{verdict: denied, retry: b.denyUntil - now, reset: max(0, b.resetAt-now)}, true
	}
	if p.health.down() {
		return p.fallback(sh, b, pol, now), true
	}
	return decision{}, false
}

// count keeps the bucket in this process: plain GCRA.
func (b *bucket) count(l Limit, cost, now int64) decision {
	tat, g := Decide(l, b.tat, now/1000, Ask{Want: cost, Least: cost})
	b.tat = tat
	d := decision{remaining: g.Free, retry: g.Retry * 1000, reset: g.Reset * 1000}
	if g.Tokens == 0 {
		d.verdict = denied
	}
	return d
}

// takeStore asks the store and waits for the answer. It is called and returns
// with sh locked, and unlocks it meanwhile.
func (p *Plugin) takeStore(sh *shard, b *bucket, pol *policy, now int64, deadline *int64) decision {
	if *deadline == 0 {
		*deadline = now + int64(patience)
	}
	if p.exact(pol) {
		return p.takeExact(sh, b, pol, now, *deadline)
	}
	b.waiting += pol.cost
	defer func() { b.waiting -= pol.cost }()
	for now < *deadline {
		if !b.asking && !p.ask(sh, b, p.urgent, now) {
			break // the queue is full: the store is too slow for us
		}
		if b.answered == nil {
			b.answered = &answer{done: make(chan struct{})}
		}
		a := b.answered
		sh.mu.Unlock()
		ok := p.await(a.done, *deadline-now)
		sh.mu.Lock()
		if ok && a.err != nil {
			break
		}
		now = p.elapsed() // an answer that came with the deadline counts
		if d, decided := p.takeHere(sh, b, pol, now); decided {
			return d
		}
	}
	return p.fallback(sh, b, pol, p.elapsed())
}

// exact reports whether pol's bucket is too small to be leased to all replicas.
func (p *Plugin) exact(pol *policy) bool {
	return pol.exact || pol.limit.Burst < exactBelow*p.nodes.Load()
}

// takeExact asks for this request alone.
func (p *Plugin) takeExact(sh *shard, b *bucket, pol *policy, now, deadline int64) decision {
	q := &single{answer: answer{done: make(chan struct{})}}
	if !offer(p.urgent, work{sh: sh, b: b, single: q}) {
		return p.fallback(sh, b, pol, now)
	}
	sh.mu.Unlock()
	ok := p.await(q.done, deadline-now)
	sh.mu.Lock()
	if !ok || q.err != nil {
		return p.fallback(sh, b, pol, p.elapsed())
	}
	d := decision{remaining: q.grant.Free, retry: q.grant.Retry * 1000, reset: q.grant.Reset * 1000}
	if q.grant.Tokens == 0 {
		d.verdict = denied
	}
	return d
}

// prefetch asks for the next lease when a quarter of this one is left. Small
// leases have no successor in advance: a slow caller would pay for tokens that
// expire.
func (p *Plugin) prefetch(sh *shard, b *bucket, now int64) {
	l := &b.now
	if l.granted < 4*b.pol.cost || l.tokens*4 > l.granted || b.asking || b.later.granted != 0 ||
		now < b.denyUntil || p.health.down() {
		return
	}
	p.ask(sh, b, p.refills, now)
}

// await reports whether done was closed within d nanoseconds.
func (p *Plugin) await(done <-chan struct{}, d int64) bool {
	timer := time.NewTimer(time.Duration(d))
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// fallback decides without the store, as the limit says.
func (p *Plugin) fallback(sh *shard, b *bucket, pol *policy, now int64) decision {
	sh.counts.fallback++
	switch pol.onFailure {
	case failOpen:
		return decision{}
	case failClosed:
		return decision{verdict: unavailable, retry: int64(time.Second)}
	}
	nodes := p.nodes.Load()
	share := Limit{
		Interval: pol.limit.Interval * nodes,
		Burst:    max(pol.cost, pol.limit.Burst/nodes),
	}
	if !b.cut {
		// Start with this replica's share of what was left when the store last
		// answered. A bucket that it never asked for counts as full: all
		// replicas together then admit one burst, which is what losing the
		// store may cost.
		b.cut = true
		left := share.Burst
		if b.heard != 0 {
			free := min(pol.limit.Burst, b.free+(now-b.heard)/1000/pol.limit.Interval)
			left = min(left, max(0, free-b.debt)/nodes)
		}
		b.tat = now/1000 + (share.Burst-left)*share.Interval
	}
	d := b.count(share, pol.cost, now)
	if d.verdict == allowed {
		b.addDebt(p, pol.cost)
	}
	return d
}

// remaining is what the caller may still count on: the lease and a share of
// what was free, rounded down.
func (p *Plugin) remaining(b *bucket, now int64) int64 {
	return b.held(now) + b.free/p.nodes.Load()
}

// addDebt notes n tokens that the store does not know of. More than one burst
// would change nothing there.
func (b *bucket) addDebt(p *Plugin, n int64) {
	if n != 0 {
		b.debt = min(b.debt+n, b.pol.limit.Burst)
		p.owes.Store(true)
	}
}
