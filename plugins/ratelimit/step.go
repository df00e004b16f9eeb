package ratelimit

import (
	"strconv"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// step enforces a route's limits, or those of them that have their place here.
type step struct {
	plugin   *Plugin
	policies []*policy
	shadow   bool
	next     plugins.Handler
}

// handle takes from every limit. The first that refuses ends it, and what was
// taken from the others before is given back, so that refused requests do not
// use up a wider limit.
func (s *step) handle(x *plugins.Exchange) error {
	var deadline int64
	var tightest decision
	var leases [maxLimits]int64
	of := 0
	for i, pol := range s.policies {
		subj := subjectOf(pol, x)
		d := s.plugin.take(pol, &subj, &deadline)
		if d.verdict != allowed {
			for j, before := range s.policies[:i] {
				subj := subjectOf(before, x)
				s.plugin.giveBack(before, &subj, leases[j])
			}
			return s.refuse(x, pol, d)
		}
		leases[i] = d.lease
		if i == 0 || d.remaining < tightest.remaining {
			tightest, of = d, i
		}
	}
	pol := s.policies[of]
	pol.appendFields(x, tightest.remaining, tightest.reset)
	return s.next(x)
}

func (s *step) refuse(x *plugins.Exchange, pol *policy, d decision) error {
	refusal := pol.refusal
	if d.verdict == unavailable {
		refusal = pol.unavailable
	}
	if s.shadow {
		if x.Record.ShadowReason == "" {
			x.Record.ShadowReason = refusal.Code
		}
		return s.next(x)
	}
	if d.verdict == denied {
		pol.appendFields(x, 0, d.retry)
	}
	appendRetry(x, d.retry)
	return refusal
}

// appendFields renders the policy, the remaining requests, and the whole
// seconds until there are more.
func (pol *policy) appendFields(x *plugins.Exchange, remaining, until int64) {
	x.AppendResponseFields(pol.fields)
	var buf [48]byte
	b := strconv.AppendInt(buf[:0], remaining/pol.cost, 10)
	b = append(b, ";t="...)
	b = strconv.AppendInt(b, seconds(until), 10)
	x.AppendResponseFields(append(b, '\r', '\n'))
}

func appendRetry(x *plugins.Exchange, after int64) {
	var buf [40]byte
	b := append(buf[:0], "Retry-After: "...)
	b = strconv.AppendInt(b, max(1, seconds(after)), 10)
	x.AppendResponseFields(append(b, '\r', '\n'))
}

// seconds rounds up: who comes back by then is not too early.
func seconds(ns int64) int64 { return (ns + int64(time.Second) - 1) / int64(time.Second) }

// giveBack undoes a take as far as this process can: of its own bucket, or of
// the lease that ends at until, if it still lives. What the store was asked for
// one by one stays spent.
func (p *Plugin) giveBack(pol *policy, s *subject, until int64) {
	now := p.elapsed()
	sh, hash := p.shardOf(pol, s)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	b := sh.find(pol, s, hash, now, p.perShard)
	switch {
	case pol.local:
		b.tat = max(0, b.tat-pol.cost*pol.limit.Interval)
	case until == b.now.until && b.now.tokens+pol.cost <= b.now.granted:
		b.now.tokens += pol.cost
	}
}
