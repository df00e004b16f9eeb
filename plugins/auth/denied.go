package auth

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
)

// sweepEvery and sweepLate: an entry stays until no token that it concerns is
// accepted any more, leeway and a difference of clocks included.
const (
	sweepEvery = time.Minute
	sweepLate  = 2 * time.Minute
)

// Denied is the edge's view of the revocation log: which tokens of the own
// issuer are dead although they have not expired. It is exact: an entry denies
// what it names and nothing else, and stays until it concerns no token. Reads
// take no lock and run beside Apply.
type Denied struct {
	issuer string
	seed   maphash.Seed
	table  atomic.Pointer[table]

	mu   sync.Mutex // writers
	head atomic.Uint64
}

// level is the index of an oauth.Level in a table's counts.
type level uint8

const (
	byIssuer level = iota
	byClient
	bySubject
	bySession
	byGrant
	byToken
	levels
)

var levelOf = map[oauth.Level]level{
	oauth.LevelIssuer: byIssuer, oauth.LevelClient: byClient, oauth.LevelSubject: bySubject,
	oauth.LevelSession: bySession, oauth.LevelGrant: byGrant, oauth.LevelToken: byToken,
}

// denial is immutable; a later one of the same name takes its slot.
type denial struct {
	hash  uint64
	level level
	id    string
	// until is the last second of issue that is denied; all is for every one.
	until   int64
	expires time.Time
}

const all = int64(^uint64(0) >> 1)

// table is open addressing with linear probing, at most half full. Slots only
// fill; a sweep or growth makes a new table.
type table struct {
	slots []atomic.Pointer[denial]
	// filter has a bit set for each entry, of at least sixteen times as many:
	// most questions end there, in an eighth of the memory of the slots.
	filter []atomic.Uint64
	counts [levels]atomic.Int64
}

// NewDenied makes an empty set for the tokens of issuer.
func NewDenied(issuer string) *Denied {
	d := &Denied{issuer: issuer, seed: maphash.MakeSeed()}
	d.table.Store(newTable(64))
	return d
}

// newTable makes one of size slots, a power of two from 8 on.
func newTable(size int) *table {
	return &table{slots: make([]atomic.Pointer[denial], size), filter: make([]atomic.Uint64, size/8)}
}

// bit is the place of a hash in the filter; slots go by other bits of it.
func (t *table) bit(hash uint64) (word *atomic.Uint64, bit uint64) {
	return &t.filter[hash>>32&uint64(len(t.filter)-1)], 1 << (hash >> 26 & 63)
}

func (t *table) len() int {
	n := 0
	for i := range t.counts {
		n += int(t.counts[i].Load())
	}
	return n
}

// Denies reports whether an entry concerns p. Tokens of other issuers are not
// the log's concern.
func (d *Denied) Denies(p *plugins.Principal) bool {
	if p.Issuer != d.issuer {
		return false
	}
	t, issued := d.table.Load(), p.Issued.Unix()
	return d.has(t, byToken, p.TokenID, issued) ||
		d.has(t, byGrant, p.Grant, issued) ||
		d.has(t, bySession, p.Session, issued) ||
		d.has(t, bySubject, p.Subject, issued) ||
		d.has(t, byClient, p.ClientID, issued) ||
		d.has(t, byIssuer, p.Issuer, issued)
}

func (d *Denied) has(t *table, l level, id string, issued int64) bool {
	if id == "" || t.counts[l].Load() == 0 {
		return false
	}
	hash := d.hash(l, id)
	if word, bit := t.bit(hash); word.Load()&bit == 0 {
		return false
	}
	e := t.find(hash, l, id).Load()
	return e != nil && issued <= e.until
}

func (d *Denied) hash(l level, id string) uint64 {
	return maphash.String(d.seed, id) ^ uint64(l+1)*0x9e3779b97f4a7c15
}

// find returns the slot of the entry, or the empty one where it belongs.
func (t *table) find(hash uint64, l level, id string) *atomic.Pointer[denial] {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if e := s.Load(); e == nil || e.hash == hash && e.level == l && e.id == id {
			return s
		}
	}
}

// Apply adds entries of the log, in any order and repeatedly. When it returns
// no later Denies misses them. Levels that this version does not know are
// skipped; the caller sees them in the log.
func (d *Denied) Apply(entries []oauth.Revocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range entries {
		r := &entries[i]
		if r.Seq > d.head.Load() {
			d.head.Store(r.Seq)
		}
		l, ok := levelOf[r.Level]
		if !ok || r.ID == "" {
			continue
		}
		e := &denial{hash: d.hash(l, r.ID), level: l, id: r.ID, until: all, expires: r.Expires}
		if !r.NotBefore.IsZero() {
			e.until = r.NotBefore.Unix()
		}
		t := d.table.Load()
		if 2*(t.len()+1) > len(t.slots) {
			t = t.grown()
			d.table.Store(t)
		}
		t.put(e)
	}
}

// put adds e, or joins it with the entry of the same name: the stronger wins.
func (t *table) put(e *denial) {
	s := t.find(e.hash, e.level, e.id)
	old := s.Load()
	if old == nil {
		word, bit := t.bit(e.hash)
		word.Or(bit)
		s.Store(e)
		t.counts[e.level].Add(1)
		return
	}
	e.until = max(e.until, old.until)
	if e.expires.Before(old.expires) {
		e.expires = old.expires
	}
	s.Store(e)
}

func (t *table) grown() *table {
	next := newTable(2 * len(t.slots))
	for i := range t.slots {
		if e := t.slots[i].Load(); e != nil {
			next.put(e)
		}
	}
	return next
}

// Sweep drops entries that concern no living token at now, and returns how
// many.
func (d *Denied) Sweep(now time.Time) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.table.Load()
	var keep []*denial
	for i := range t.slots {
		if e := t.slots[i].Load(); e != nil && now.Before(e.expires.Add(sweepLate)) {
			keep = append(keep, e)
		}
	}
	dropped := t.len() - len(keep)
	if dropped == 0 {
		return 0
	}
	size := 64
	for size < 4*len(keep) {
		size *= 2
	}
	next := newTable(size)
	for _, e := range keep {
		next.put(e)
	}
	d.table.Store(next)
	return dropped
}

// Run sweeps every minute until ctx ends.
func (d *Denied) Run(ctx context.Context, now func() time.Time) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.Sweep(now())
		}
	}
}

// Len is the number of entries held.
func (d *Denied) Len() int { return d.table.Load().len() }

// Head is the highest sequence number applied.
func (d *Denied) Head() uint64 { return d.head.Load() }
