package auth

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// refusedLife is short: a key may arrive that makes the signature good.
const refusedLife = 5 * time.Second

// refused remembers tokens whose signature was bad, so that a client that
// repeats one costs a hash and not a verification. Nothing else is remembered:
// an unknown key may be known in a moment.
type refused struct {
	slots [2048]atomic.Pointer[refusal]
}

type refusal struct {
	sum [sha256.Size]byte
	at  time.Time
}

func (r *refused) slot(sum *[sha256.Size]byte) *atomic.Pointer[refusal] {
	return &r.slots[(int(sum[0])|int(sum[1])<<8)%len(r.slots)]
}

func (r *refused) has(sum *[sha256.Size]byte, now time.Time) bool {
	e := r.slot(sum).Load()
	return e != nil && e.sum == *sum && now.Sub(e.at) < refusedLife
}

func (r *refused) add(sum *[sha256.Size]byte, now time.Time) {
	r.slot(sum).Store(&refusal{*sum, now})
}

const (
	floodBurst = 60               // failed verifications of an address at once
	floodEvery = time.Second / 10 // and one more in this time
	floodSets  = 1024
	floodWays  = 4
)

// flood limits what forged tokens of one address may cost: each failed
// verification takes a token of its bucket, and an empty bucket refuses
// unverified tokens before their signature is looked at. The table is bounded;
// where it is full, the bucket that was touched longest ago is given up.
type flood struct {
	lock [64]sync.Mutex
	sets [floodSets][floodWays]bucket
}

// bucket is full at the time in full, and holds less the later full lies.
type bucket struct {
	addr netip.Addr
	full time.Time
}

// address is what one attacker is counted by: IPv6 hosts own a /64 at least.
func address(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// wait returns how long from must wait before another of its tokens is
// verified; 0: it need not.
func (f *flood) wait(from netip.Addr, now time.Time) time.Duration {
	from = address(from)
	i := floodIndex(from)
	f.lock[i%len(f.lock)].Lock()
	defer f.lock[i%len(f.lock)].Unlock()
	for w := range f.sets[i] {
		if b := &f.sets[i][w]; b.addr == from && b.full.After(now) {
			return max(0, b.full.Sub(now)-(floodBurst-1)*floodEvery)
		}
	}
	return 0
}

// fail counts a failed verification.
func (f *flood) fail(from netip.Addr, now time.Time) {
	from = address(from)
	i := floodIndex(from)
	f.lock[i%len(f.lock)].Lock()
	defer f.lock[i%len(f.lock)].Unlock()
	oldest := 0
	for w := range f.sets[i] {
		b := &f.sets[i][w]
		if b.addr == from {
			if b.full.Before(now) {
				b.full = now
			}
			// Tokens that were verified at the same time may overdraw; the
			// debt is bounded so that the address is not shut out for long.
			if b.full.Sub(now) < 2*floodBurst*floodEvery {
				b.full = b.full.Add(floodEvery)
			}
			return
		}
		if b.full.Before(f.sets[i][oldest].full) {
			oldest = w
		}
	}
	f.sets[i][oldest] = bucket{from, now.Add(floodEvery)}
}

func floodIndex(a netip.Addr) int {
	b := a.As16()
	h := uint32(2166136261)
	for _, c := range b {
		h = (h ^ uint32(c)) * 16777619
	}
	return int(h % floodSets)
}
