package auth

import (
	"bytes"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// life bounds how long a verification is believed without another look.
const life = time.Minute

// Token is a verified token: facts, never the verdict of a route. It is
// immutable and shared by all requests that carry the token.
type Token struct {
	Principal *plugins.Principal
	// Own tells a token of the gateway's own authorization server.
	Own bool
	// Audience tells that the token names an audience of its issuer's
	// configuration; for own tokens the gateway's own.
	Audience bool
}

// entry is a verified token in the cache with what its verification stood on.
type entry struct {
	Token
	hash uint64
	// raw is the whole token: a hit compares every byte, so no collision of
	// hashes can ever pass (and comparing is cheaper than SHA-256).
	raw      []byte
	issuer   *trusted
	key      key
	kid      string
	epoch    uint64
	expires  int64 // Unix seconds, leeway included
	verified time.Time

	generation atomic.Uint64
	used       atomic.Bool
}

// usable reports whether e's verification still holds at now.
func (e *entry) usable(now time.Time, epoch uint64) bool {
	if now.Unix() >= e.expires || now.Sub(e.verified) >= life || e.epoch != epoch {
		return false
	}
	g := e.issuer.keys.generation()
	return g == e.generation.Load() || e.keyRemains(g)
}

// keyRemains looks the key up again after its issuer's set has changed.
func (e *entry) keyRemains(generation uint64) bool {
	k, ok := e.issuer.keys.find(e.kid)
	if !ok || !k.equal(e.key) {
		return false
	}
	e.generation.Store(generation)
	return true
}

const ways = 8

// cache holds verified tokens: sets of eight, read without a lock. A full set
// gives up an entry that was not used since the hand last passed (CLOCK).
type cache struct {
	seed maphash.Seed
	mask uint64
	sets []set
	lock [64]sync.Mutex // writers, by set
}

type set struct {
	tags  [ways]atomic.Uint32 // upper half of the hash: seldom is a wrong entry touched
	slots [ways]atomic.Pointer[entry]
	hand  int
}

// newCache rounds size up to a power of two.
func newCache(size int) *cache {
	sets := uint64(1)
	for sets*ways < uint64(size) {
		sets *= 2
	}
	return &cache{seed: maphash.MakeSeed(), mask: sets - 1, sets: make([]set, sets)}
}

func (c *cache) hash(token []byte) uint64 { return maphash.Bytes(c.seed, token) }

// find returns the entry of token, usable or not, and nil if there is none.
func (c *cache) find(token []byte, hash uint64) *entry {
	s := &c.sets[hash&c.mask]
	tag := uint32(hash >> 32)
	for i := range s.tags {
		if s.tags[i].Load() != tag {
			continue
		}
		e := s.slots[i].Load()
		if e == nil || e.hash != hash || !bytes.Equal(e.raw, token) {
			continue
		}
		if !e.used.Load() {
			e.used.Store(true)
		}
		return e
	}
	return nil
}

// add keeps e, in place of an older entry of the same token where there is one.
func (c *cache) add(e *entry, now time.Time) {
	i := e.hash & c.mask
	lock := &c.lock[i%uint64(len(c.lock))]
	lock.Lock()
	defer lock.Unlock()
	s := &c.sets[i]
	w := s.placeLocked(e, now)
	s.slots[w].Store(e)
	s.tags[w].Store(uint32(e.hash >> 32))
}

func (s *set) placeLocked(e *entry, now time.Time) int {
	free := -1
	for i := range s.slots {
		switch old := s.slots[i].Load(); {
		case old == nil || now.Unix() >= old.expires || now.Sub(old.verified) >= life:
			free = i
		case old.hash == e.hash && bytes.Equal(old.raw, e.raw):
			return i
		}
	}
	if free >= 0 {
		return free
	}
	for {
		i := s.hand
		s.hand = (s.hand + 1) % ways
		if !s.slots[i].Load().used.Swap(false) {
			return i
		}
	}
}
