package ratelimit

import "sync/atomic"

// Stats is what a Plugin did since it was made, for metrics.
type Stats struct {
	// Allowed, Denied and Unavailable are decisions, one per limit and request.
	Allowed, Denied, Unavailable uint64
	// Fallback are those of them that were made without the store that should
	// have been asked.
	Fallback uint64
	// Calls are the store's round trips, Errors those that failed, Asks the
	// buckets asked for in them, Granted the tokens that were leased or spent.
	Calls, Errors, Asks, Granted uint64
	// Down tells that the store is away; Nodes is how many replicas are known.
	Down  bool
	Nodes int
	// Buckets are kept in this process.
	Buckets int
}

// decisionCounters are guarded by their shard's lock: counting costs no shared
// cache line.
type decisionCounters struct {
	verdicts [3]uint64
	fallback uint64
}

func (c *decisionCounters) add(v verdict) { c.verdicts[v]++ }

type callCounters struct {
	calls, errors, asks, granted atomic.Uint64
}

func (c *callCounters) called(asks []StoreAsk, err error) {
	c.calls.Add(1)
	c.asks.Add(uint64(len(asks)))
	if err != nil {
		c.errors.Add(1)
		return
	}
	var granted int64
	for i := range asks {
		if asks[i].Err == nil {
			granted += asks[i].Grant.Tokens
		}
	}
	c.granted.Add(uint64(granted))
}

// Stats sums up the counters.
func (p *Plugin) Stats() Stats {
	s := Stats{
		Calls:   p.calls.calls.Load(),
		Errors:  p.calls.errors.Load(),
		Asks:    p.calls.asks.Load(),
		Granted: p.calls.granted.Load(),
		Down:    p.health.down(),
		Nodes:   int(p.nodes.Load()),
	}
	for i := range p.shards {
		sh := &p.shards[i]
		sh.mu.Lock()
		s.Allowed += sh.counts.verdicts[allowed]
		s.Denied += sh.counts.verdicts[denied]
		s.Unavailable += sh.counts.verdicts[unavailable]
		s.Fallback += sh.counts.fallback
		s.Buckets += len(sh.all)
		sh.mu.Unlock()
	}
	return s
}
