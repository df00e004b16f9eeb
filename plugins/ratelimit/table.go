package ratelimit

import "sync"

const (
	shardBits  = 6
	shardCount = 1 << shardBits
	// evictionProbes is how many buckets are looked at to find a good victim.
	evictionProbes = 16
)

// shard is a part of the buckets with its lock. The lock is never held while
// anything waits.
type shard struct {
	mu      sync.Mutex
	buckets map[uint64]*bucket // by hash; others of the same hash by next
	all     []*bucket
	hand    int
	counts  decisionCounters

	_ [64]byte // neighbours do not share a cache line
}

// bucket is what this process knows of one subject under one limit. Its shard's
// lock guards it. Times are nanoseconds of Plugin.elapsed, but for tat.
type bucket struct {
	hash    uint64
	next    *bucket
	place   int // in shard.all
	pol     *policy
	subject subject
	name    string // in the store; made when first needed
	seen    int64

	// The lease that is being spent, and the one that was fetched early. They
	// are kept apart because each has its own end.
	now, later lease
	// want is the size of the next lease.
	want int64
	// denyUntil ends the refusal that the store's last answer justifies.
	denyUntil int64
	// The store's last answer: free tokens, when it was sent for, and when the
	// bucket will be full.
	heard, free, resetAt int64

	// asking is set while an ask is under way; waiting is the number of tokens
	// that requests wait for, answered is closed with the answer if anyone waits.
	asking   bool
	waiting  int64
	answered *answer

	// tat is the state of the bucket where it is counted here, microseconds:
	// always without a store, as a share of it while the store is away (cut).
	tat int64
	cut bool
	// debt is what was admitted without the store and is not under way to it.
	debt int64
}

// lease is a number of tokens that were debited beforehand.
type lease struct {
	tokens, granted int64
	since, until    int64
}

// answer wakes the requests that wait for one ask.
type answer struct {
	done chan struct{}
	err  error // valid once done is closed
}

// find returns the subject's bucket, a new one if there is none. s is copied
// only then.
func (sh *shard) find(pol *policy, s *subject, hash uint64, now int64, limit int) *bucket {
	first := sh.buckets[hash]
	for b := first; b != nil; b = b.next {
		if b.subject == *s && b.pol.name == pol.name {
			b.seen, b.pol = now, pol
			return b
		}
	}
	if len(sh.all) >= limit {
		sh.evict(now)
		first = sh.buckets[hash]
	}
	b := &bucket{hash: hash, next: first, place: len(sh.all), pol: pol, subject: s.own(), seen: now}
	sh.buckets[hash] = b
	sh.all = append(sh.all, b)
	return b
}

// evict forgets an idle bucket, or of those it looks at the one used longest
// ago. A bucket whose ask is under way stays.
func (sh *shard) evict(now int64) {
	var victim *bucket
	for range min(evictionProbes, len(sh.all)) {
		sh.hand = (sh.hand + 1) % len(sh.all)
		b := sh.all[sh.hand]
		if b.asking {
			continue
		}
		if b.idle(now) {
			victim = b
			break
		}
		if victim == nil || b.seen < victim.seen {
			victim = b
		}
	}
	if victim != nil {
		sh.remove(victim)
	}
}

func (sh *shard) remove(b *bucket) {
	if first := sh.buckets[b.hash]; first != b {
		for first.next != b {
			first = first.next
		}
		first.next = b.next
	} else if b.next != nil {
		sh.buckets[b.hash] = b.next
	} else {
		delete(sh.buckets, b.hash)
	}
	last := sh.all[len(sh.all)-1]
	sh.all[b.place], last.place = last, b.place
	sh.all[len(sh.all)-1] = nil
	sh.all = sh.all[:len(sh.all)-1]
}

// idle reports whether forgetting b changes no decision.
func (b *bucket) idle(now int64) bool {
	return b.debt == 0 && b.denyUntil <= now && b.tat <= now/1000 &&
		b.now.until <= now && b.later.until <= now
}

// covers reports whether cost tokens of the lease may be spent now.
func (l *lease) covers(cost, now int64) bool { return l.tokens >= cost && now < l.until }

// spend takes cost tokens out of a live lease.
func (b *bucket) spend(cost, now int64) bool {
	if !b.now.covers(cost, now) {
		b.shrink()
		if b.later.granted == 0 {
			return false
		}
		b.now, b.later = b.later, lease{}
		b.now.since = now
		if !b.now.covers(cost, now) {
			b.shrink()
			return false
		}
	}
	b.now.tokens -= cost
	return true
}

// shrink makes the next lease smaller if most of this one expired.
func (b *bucket) shrink() {
	if b.now.tokens*2 > b.now.granted {
		b.want /= 2
		b.now = lease{}
	}
	b.now.tokens = 0
}

// grow makes the next lease larger if this one was used up in less than half
// of its life, which is when its successor is asked for.
func (b *bucket) grow(life, most, now int64) {
	if b.now.granted > 0 && now-b.now.since < life/2 {
		b.want *= 2
	}
	b.want = max(b.pol.cost, min(b.want, most))
}

// held is how many tokens are leased and may still be spent.
func (b *bucket) held(now int64) int64 {
	var n int64
	if now < b.now.until {
		n += b.now.tokens
	}
	if now < b.later.until {
		n += b.later.tokens
	}
	return n
}
