package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// staleAfter is the age at which a set counts as stale: twice what the
	// slowest source leaves between two confirmations.
	staleAfter = 2 * time.Minute
	// rewatch is the pause after a Source broke its contract by returning
	// while it should watch.
	rewatch = time.Second
	// liveGrace is how long Known prefers a live answer to a set from disk:
	// addresses of yesterday may belong to somebody else today.
	liveGrace = time.Second
)

// ErrNotAcquired is returned by Known for a query that nobody has acquired.
var ErrNotAcquired = errors.New("discovery: query is not acquired")

// Cache keeps the last good set of each query in use, for as long as it takes
// when the source is away, and tells its users of each change. One watcher
// serves all users of a query. It is safe for concurrent use.
type Cache struct {
	src    Source
	now    func() time.Time
	report func(error)
	disk   *snapshot // nil: nothing is kept on disk

	// index is what readers see without a lock; written under mu only.
	index atomic.Pointer[map[Query]*entry]

	mu       sync.Mutex
	watchers sync.WaitGroup
	running  context.Context // nil before Run and after it
}

// Option sets one property of a Cache.
type Option func(*Cache)

// WithSnapshot keeps the sets in a file too, from which a start without the
// source takes those that are at most a day old. The file's folder must exist.
func WithSnapshot(path string) Option {
	return func(c *Cache) { c.disk = newSnapshot(path) }
}

// WithClock replaces time.Now.
func WithClock(now func() time.Time) Option {
	return func(c *Cache) { c.now = now }
}

// WithReport has f told what went wrong and was survived: a snapshot that
// cannot be read or written, a watch that ended. f must not block.
func WithReport(f func(error)) Option {
	return func(c *Cache) { c.report = f }
}

// NewCache returns a Cache over src; nothing is watched before Run.
func NewCache(src Source, opts ...Option) *Cache {
	c := &Cache{src: src, now: time.Now, report: func(error) {}}
	for _, o := range opts {
		o(c)
	}
	c.index.Store(&map[Query]*entry{})
	return c
}

// Run watches what is acquired until ctx ends, and returns ctx.Err() when all
// watchers have ended. Sets stay readable after it. It is called once.
func (c *Cache) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.disk != nil {
		if err := c.disk.load(c.now()); err != nil {
			c.report(err)
		}
	}

	c.mu.Lock()
	c.running = ctx
	for q, e := range *c.index.Load() {
		c.restore(q, e)
		c.startLocked(e)
	}
	c.mu.Unlock()

	if c.disk != nil {
		c.disk.run(ctx, c.now, c.report)
	}
	<-ctx.Done()

	c.mu.Lock()
	c.running = nil
	c.mu.Unlock()
	c.watchers.Wait()
	if c.disk != nil {
		if err := c.disk.write(c.now()); err != nil {
			c.report(err)
		}
	}
	return ctx.Err()
}

// Acquire starts watching q, or joins those who do. changed is called at once
// when a set is known, and after each change; never before a first set is
// known and never again after release has returned. Calls do not overlap.
// changed must not block, must not call Acquire or release and must not modify
// the slice. release may be called more than once.
func (c *Cache) Acquire(q Query, changed func([]Endpoint)) (release func()) {
	user := &changed
	c.mu.Lock()
	e := (*c.index.Load())[q]
	if e == nil {
		e = &entry{cache: c, query: q, users: map[*func([]Endpoint)]struct{}{}, first: make(chan struct{}), live: make(chan struct{})}
		c.updateLocked(func(m map[Query]*entry) { m[q] = e })
		if c.running != nil {
			c.restore(q, e)
			c.startLocked(e)
		}
	}
	e.refs++
	c.mu.Unlock()
	e.join(user)

	var once sync.Once
	return func() {
		once.Do(func() {
			e.leave(user)
			c.mu.Lock()
			defer c.mu.Unlock()
			if e.refs--; e.refs == 0 {
				c.updateLocked(func(m map[Query]*entry) { delete(m, q) })
				if e.stop != nil {
					e.stop()
				}
			}
		})
	}
}

// Endpoints returns the last good set of q and the time since the source last
// said so. ok is false while nothing was ever found or q is not acquired. It
// takes no lock; the slice must not be modified.
func (c *Cache) Endpoints(q Query) (eps []Endpoint, age time.Duration, ok bool) {
	e := (*c.index.Load())[q]
	if e == nil {
		return nil, 0, false
	}
	s := e.set.Load()
	if s == nil {
		return nil, 0, false
	}
	return s.endpoints, s.age(c.now()), true
}

// Known waits until a set of q is known: the source's first answer, or one
// from disk when the source has not answered within a second. It returns
// ctx.Err(), or ErrNotAcquired.
func (c *Cache) Known(ctx context.Context, q Query) error {
	e := (*c.index.Load())[q]
	if e == nil {
		return fmt.Errorf("%w: %s", ErrNotAcquired, q)
	}
	grace := time.NewTimer(liveGrace)
	defer grace.Stop()
	select {
	case <-e.live:
		return nil
	case <-ctx.Done():
	case <-grace.C:
	}
	if e.set.Load() != nil {
		return nil
	}
	select {
	case <-e.first:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for instances of %s: %w", q, ctx.Err())
	}
}

// Status is what is known of one query.
type Status struct {
	Query     Query
	Known     bool // false: no set was ever found
	Endpoints []Endpoint
	Age       time.Duration // since the source last said so
	Changed   time.Time     // when the set last became another one
	Stale     bool          // from disk and not yet confirmed, or too old
}

// Status reports on all acquired queries, sorted by service and tag.
func (c *Cache) Status() []Status {
	now := c.now()
	all := make([]Status, 0, len(*c.index.Load()))
	for q, e := range *c.index.Load() {
		st := Status{Query: q}
		if s := e.set.Load(); s != nil {
			st.Known, st.Endpoints, st.Age, st.Changed = true, s.endpoints, s.age(now), s.changed
			st.Stale = s.restored || st.Age > staleAfter
		}
		all = append(all, st)
	}
	sortByQuery(all, func(s Status) Query { return s.Query })
	return all
}

// updateLocked replaces the index by a changed copy.
func (c *Cache) updateLocked(change func(map[Query]*entry)) {
	next := maps.Clone(*c.index.Load())
	change(next)
	c.index.Store(&next)
}

// restore gives an entry without a set the one that the disk remembers.
func (c *Cache) restore(q Query, e *entry) {
	if c.disk == nil {
		return
	}
	if r, ok := c.disk.recall(q, c.now()); ok {
		e.restore(r)
	}
}

func (c *Cache) startLocked(e *entry) {
	ctx, stop := context.WithCancel(c.running)
	e.stop = stop
	c.watchers.Add(1)
	go c.watch(ctx, e)
}

// watch keeps a watch of e's query running until ctx ends.
func (c *Cache) watch(ctx context.Context, e *entry) {
	defer c.watchers.Done()
	for {
		err := c.src.Watch(ctx, e.query, e.found)
		if ctx.Err() != nil {
			return
		}
		c.report(fmt.Errorf("watch of %s ended: %w", e.query, err))
		select {
		case <-ctx.Done():
			return
		case <-time.After(rewatch):
		}
	}
}
