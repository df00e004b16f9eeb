package ratelimit

import (
	"context"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A store is away after this many failed calls in a row, or when half of
	// the last 20 failed.
	failuresInRow = 5
	recentCalls   = 20

	probeEvery     = 500 * time.Millisecond
	heartbeatEvery = 2 * time.Second
	// settling is how long a store that answers again is given only debts, so
	// that every replica's have arrived when the first takes tokens.
	settling = time.Second
	// probeTimeout bounds a call that no request waits for.
	probeTimeout = 250 * time.Millisecond
)

// health is the breaker in front of the store. While it is down no request
// waits: only the watch probes.
type health struct {
	away atomic.Bool
	// trial: the store answers again, and debts may be posted.
	trial atomic.Bool
	// opened wakes the watch.
	opened chan struct{}

	mu     sync.Mutex
	inRow  int
	recent uint32 // one bit a call, 1 is a failure
}

func newHealth() health { return health{opened: make(chan struct{}, 1)} }

func (h *health) down() bool { return h.away.Load() }

// report takes the outcome of a call.
func (h *health) report(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.recent = h.recent << 1 & (1<<recentCalls - 1)
	if err == nil {
		h.inRow = 0
		return
	}
	h.inRow++
	h.recent |= 1
	if h.inRow < failuresInRow && bits.OnesCount32(h.recent) < recentCalls/2 {
		return
	}
	if !h.away.Swap(true) {
		select {
		case h.opened <- struct{}{}:
		default:
		}
	}
}

// recover ends the outage.
func (h *health) recover() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inRow, h.recent = 0, 0
	h.trial.Store(false)
	h.away.Store(false)
}

// watch sends heartbeats, probes a store that is away, and posts debts.
func (p *Plugin) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.health.opened:
			timer.Reset(jittered(probeEvery))
			continue
		case <-timer.C:
		}
		timer.Reset(p.beat(ctx))
	}
}

// beat makes one heartbeat, which is the probe too, and returns when the next
// is due.
func (p *Plugin) beat(ctx context.Context) time.Duration {
	call, cancel := context.WithTimeout(ctx, probeTimeout)
	n, err := p.store.Heartbeat(call, p.replica)
	cancel()
	if err != nil {
		p.health.trial.Store(false)
		if ctx.Err() == nil && !p.health.down() {
			p.health.report(err)
		}
		return jittered(probeEvery)
	}
	p.learnNodes(n)
	next := jittered(heartbeatEvery)
	if p.health.down() {
		if p.health.trial.Load() {
			p.health.recover()
		} else {
			p.health.trial.Store(true)
			next = settling
		}
	}
	if p.owes.Load() {
		p.postDebts(ctx)
	}
	return next
}

// learnNodes takes how many replicas the store counted. A store that lost its
// state counts only those that came back so far, and each replica would take
// more than its share: fewer than before are believed when the next heartbeat
// counts fewer too, and not while limits are counted locally.
func (p *Plugin) learnNodes(counted int) {
	n := p.knownNodes(counted)
	fewer := n < p.nodes.Load()
	if !fewer || p.fewer && !p.health.down() {
		p.nodes.Store(n)
	}
	p.fewer = fewer
}

// postDebts queues the debt of every bucket that has one.
func (p *Plugin) postDebts(ctx context.Context) {
	p.owes.Store(false)
	for i := range p.shards {
		sh := &p.shards[i]
		sh.mu.Lock()
		var owing []*bucket
		for _, b := range sh.all {
			if b.debt > 0 && !b.asking {
				b.asking = true
				owing = append(owing, b)
			}
		}
		sh.mu.Unlock()
		for _, b := range owing {
			select {
			case p.refills <- work{sh: sh, b: b, post: true}:
			case <-ctx.Done():
				return
			}
		}
	}
}

// jittered is d to 1.5 d, so that replicas do not act at once.
func jittered(d time.Duration) time.Duration { return d + rand.N(d/2) }
