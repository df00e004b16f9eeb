package discovery

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// entry is one query in use: its last good set and who is told of changes.
type entry struct {
	cache *Cache
	query Query
	refs  int                // guarded by Cache.mu
	stop  context.CancelFunc // guarded by Cache.mu; nil before the watcher runs

	set   atomic.Pointer[set]
	first chan struct{} // closed with the first set, from wherever
	live  chan struct{} // closed with the source's first answer

	// mu orders sets and calls of users, and so makes leave a barrier.
	mu    sync.Mutex
	users map[*func([]Endpoint)]struct{}
}

// set is one immutable finding.
type set struct {
	endpoints []Endpoint
	confirmed time.Time // when the source last said so
	changed   time.Time // when the endpoints became these
	restored  bool      // from disk, the source has not spoken yet
}

func (s *set) age(now time.Time) time.Duration { return max(0, now.Sub(s.confirmed)) }

// found takes the source's answer: a new set, or the known one confirmed.
func (e *entry) found(eps []Endpoint) {
	now := e.cache.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	next := &set{endpoints: eps, confirmed: now, changed: now}
	old := e.set.Load()
	same := old != nil && slices.EqualFunc(old.endpoints, eps, Endpoint.equal)
	if same {
		next.endpoints, next.changed = old.endpoints, old.changed
	}
	e.set.Store(next)
	if e.cache.disk != nil {
		e.cache.disk.remember(e.query, next, !same)
	}
	if old == nil {
		close(e.first)
	}
	if old == nil || old.restored {
		close(e.live)
	}
	if !same {
		e.tellLocked(next.endpoints)
	}
}

// restore takes a set from disk unless the source has been faster.
func (e *entry) restore(s *set) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set.CompareAndSwap(nil, s) {
		close(e.first)
		e.tellLocked(s.endpoints)
	}
}

func (e *entry) tellLocked(eps []Endpoint) {
	for user := range e.users {
		(*user)(eps)
	}
}

func (e *entry) join(user *func([]Endpoint)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.users[user] = struct{}{}
	if s := e.set.Load(); s != nil {
		(*user)(s.endpoints)
	}
}

func (e *entry) leave(user *func([]Endpoint)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.users, user)
}

// equal tells whether nothing about the instance differs.
func (e Endpoint) equal(o Endpoint) bool {
	return e.ID == o.ID && e.Addr == o.Addr && e.Weight == o.Weight &&
		slices.Equal(e.Tags, o.Tags) && maps.Equal(e.Meta, o.Meta)
}

// String is the service, with its tag after an @.
func (q Query) String() string {
	if q.Tag == "" {
		return q.Service
	}
	return q.Service + "@" + q.Tag
}

func sortByQuery[T any](all []T, of func(T) Query) {
	slices.SortFunc(all, func(a, b T) int {
		qa, qb := of(a), of(b)
		return cmp.Or(cmp.Compare(qa.Service, qb.Service), cmp.Compare(qa.Tag, qb.Tag))
	})
}
