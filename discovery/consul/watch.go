package consul

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/gatehouse/gatehouse/discovery"
)

const (
	wait           = 55 * time.Second // below the minute after which many balancers cut
	readTimeout    = 10 * time.Second // beyond what Consul may wait
	confirmTimeout = time.Second
	forcedEvery    = 5 * time.Minute // ± 20 %
	maxLastContact = 5 * time.Second
	backoffMin     = 100 * time.Millisecond
	backoffMax     = 10 * time.Second
	loopBurst      = 5
	loopEvery      = time.Second
	loopSpacing    = 100 * time.Millisecond // changes that come together are read together
	startJitter    = 5 * time.Millisecond   // for each watcher that already runs
	startJitterMax = 2 * time.Second
)

// Why an answer is not believed.
var (
	errNoLeader = errors.New("consul: the answering server knows no leader")
	errTooStale = errors.New("consul: the answering server is too far behind its leader")
	errFiltered = errors.New("consul: the token may not see all instances, and the set shrank")
)

// watcher is one running Watch.
type watcher struct {
	*Source
	query discovery.Query
	found func([]discovery.Endpoint)

	index    uint64 // 0: the next read does not block
	forced   time.Time
	last     []discovery.Endpoint
	answered bool // last holds an answer, be it an empty one
	failures int
	dropped  string // last report of dropped instances, to report changes only
}

// Watch implements discovery.Source.
func (s *Source) Watch(ctx context.Context, q discovery.Query, found func([]discovery.Endpoint)) error {
	others := s.watching.Add(1) - 1
	defer s.watching.Add(-1)
	w := &watcher{Source: s, query: q, found: found}
	w.forceLater()
	// Many watchers that start together do not ask together.
	jitter := min(startJitterMax, time.Duration(others)*startJitter)
	if err := sleep(ctx, time.Duration(s.rand()*float64(jitter))); err != nil {
		return err
	}
	limit := newBucket(loopBurst, loopEvery, s.now())
	next := s.now()
	for {
		// Watching a service that has no instances, Consul answers at each
		// change of any other.
		now := s.now()
		if err := sleep(ctx, max(limit.take(now), next.Sub(now))); err != nil {
			return err
		}
		next = s.now().Add(loopSpacing)
		err := w.step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			w.failures = 0
			continue
		}
		w.report(q, err)
		w.index = 0
		if err := sleep(ctx, w.backoff()); err != nil {
			return err
		}
	}
}

// step reads once and applies what may be believed.
func (w *watcher) step(ctx context.Context) error {
	opts := api.QueryOptions{AllowStale: w.failures == 0}
	timeout := readTimeout
	if left := w.forced.Sub(w.now()); left <= 0 {
		// No lost wake-up outlives this read (geldata/gel#6148).
		w.index = 0
		w.forceLater()
	} else if w.index > 0 {
		opts.WaitIndex = w.index
		opts.WaitTime = max(time.Second, min(wait, left))
		timeout += opts.WaitTime + opts.WaitTime/16
	}
	eps, meta, err := w.read(ctx, opts, timeout)
	if err != nil {
		return err
	}
	w.advance(meta.LastIndex)
	if err := w.believable(meta, eps); err != nil {
		w.counters.Refused.Add(1)
		return err
	}
	if w.shrunk(eps) {
		if eps, err = w.confirm(ctx); err != nil {
			return fmt.Errorf("confirm a much smaller set: %w", err)
		}
	}
	w.last, w.answered = eps, true
	w.counters.Answers.Add(1)
	w.found(eps)
	return nil
}

// read asks once; it counts what there is to count in the answer.
func (w *watcher) read(ctx context.Context, opts api.QueryOptions, timeout time.Duration) ([]discovery.Endpoint, *api.QueryMeta, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	entries, meta, err := w.health.Service(w.query.Service, w.query.Tag, true, opts.WithContext(ctx))
	if err != nil {
		w.counters.Errors.Add(1)
		return nil, nil, fmt.Errorf("ask consul: %w", err)
	}
	if meta.ResultsFilteredByACLs {
		w.counters.ACLFiltered.Add(1)
	}
	eps, dropped := endpoints(entries)
	w.counters.Dropped.Add(int64(len(dropped)))
	w.reportDropped(dropped)
	return eps, meta, nil
}

// reportDropped reports which instances are left out, once until that changes.
func (w *watcher) reportDropped(dropped []error) {
	const shown = 5
	n := len(dropped)
	if n > shown {
		dropped = append(dropped[:shown:shown], fmt.Errorf("and %d more instances", n-shown))
	}
	err := errors.Join(dropped...)
	switch {
	case err == nil:
		w.dropped = ""
	case err.Error() != w.dropped:
		w.dropped = err.Error()
		w.report(w.query, fmt.Errorf("left out: %w", err))
	}
}

// advance takes the index of an answer. One that went backwards comes from a
// Consul that lost its state: waiting for the old one could take for ever.
// Index 0 would not block, and the loop would be a busy one.
func (w *watcher) advance(index uint64) {
	switch {
	case index < w.index:
		w.counters.IndexResets.Add(1)
		w.index = 0
	default:
		w.index = max(1, index)
	}
}

// believable tells why an answer must not be applied, whatever Consul meant.
func (w *watcher) believable(meta *api.QueryMeta, eps []discovery.Endpoint) error {
	// Answers from an agent's stream never know the leader (consul#9776, open
	// since 2021). They count, but shrink a set only after confirm.
	streamed := meta.QueryBackend == api.QueryBackendStreaming
	switch {
	case !meta.KnownLeader && !streamed:
		return errNoLeader
	case meta.LastContact > maxLastContact:
		return fmt.Errorf("%w: %v", errTooStale, meta.LastContact)
	case meta.ResultsFilteredByACLs && (len(eps) == 0 || w.shrunk(eps)):
		// An expired token is answered 200 with an empty list.
		return errFiltered
	}
	return nil
}

// shrunk tells whether the set is empty or less than half of what it was.
func (w *watcher) shrunk(eps []discovery.Endpoint) bool {
	if len(w.last) == 0 {
		return !w.answered && len(eps) == 0 // a first answer may contradict a snapshot
	}
	return 2*len(eps) < len(w.last)
}

// confirm asks the leader, which never answers from a stream.
func (w *watcher) confirm(ctx context.Context) ([]discovery.Endpoint, error) {
	eps, meta, err := w.read(ctx, api.QueryOptions{}, confirmTimeout)
	if err != nil {
		return nil, err
	}
	w.advance(meta.LastIndex)
	err = w.believable(meta, eps)
	if err == nil && !meta.KnownLeader {
		err = errNoLeader
	}
	if err != nil {
		w.counters.Refused.Add(1)
		return nil, err
	}
	return eps, nil
}

func (w *watcher) forceLater() {
	w.forced = w.now().Add(time.Duration((0.8 + 0.4*w.rand()) * float64(forcedEvery)))
}

// backoff is the next pause after a failure: full jitter, short, capped, so
// that a change is seen soon after Consul is back.
func (w *watcher) backoff() time.Duration {
	top := min(backoffMax, backoffMin<<min(w.failures, 20))
	w.failures++
	return time.Duration(w.rand() * float64(top))
}

// bucket limits how often the loop runs.
type bucket struct {
	burst, every time.Duration
	full         time.Time // when burst turns are free again
}

func newBucket(burst int, every time.Duration, now time.Time) *bucket {
	return &bucket{burst: time.Duration(burst) * every, every: every, full: now}
}

// take uses one turn and returns the pause until it comes.
func (b *bucket) take(now time.Time) time.Duration {
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.every)
	return b.full.Sub(now) - b.burst
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
