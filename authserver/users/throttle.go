package users

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// Throttle slows guessing down, per account and per address. It delays and
// never locks: whoever fails on purpose under another's name costs that
// person at most maxAccountWait.
type Throttle interface {
	// Wait returns how long an attempt has to wait before it is judged.
	Wait(account string, ip netip.Addr) time.Duration
	// Failed counts a wrong password.
	Failed(account string, ip netip.Addr)
	// Succeeded forgets the account's failures.
	Succeeded(account string, ip netip.Addr)
}

const (
	freeFailures   = 5 // per account, before delays start
	maxAccountWait = 30 * time.Second
	ipBurst        = 20 // failures of one address at once …
	ipInterval     = 3 * time.Second
	globalBurst    = 300 // failures of all addresses at once …
	globalInterval = 20 * time.Millisecond
	forgetAccount  = 15 * time.Minute
	maxTracked     = 1 << 16 // accounts and addresses each
)

// MemoryThrottle counts in this process. It is safe for concurrent use.
type MemoryThrottle struct {
	now  func() time.Time
	seed maphash.Seed

	mu       sync.Mutex
	accounts map[uint64]account
	// ips hold GCRA's theoretical arrival times.
	ips    map[netip.Prefix]time.Time
	global time.Time
}

type account struct {
	failures int
	last     time.Time
}

// NewMemoryThrottle returns a throttle that has seen nothing.
func NewMemoryThrottle(now func() time.Time) *MemoryThrottle {
	return &MemoryThrottle{
		now: now, seed: maphash.MakeSeed(),
		accounts: map[uint64]account{}, ips: map[netip.Prefix]time.Time{},
	}
}

// Wait implements Throttle.
func (t *MemoryThrottle) Wait(name string, ip netip.Addr) time.Duration {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := t.accounts[t.key(name)].wait(now)
	wait = max(wait, bucketWait(t.ips[network(ip)], now, ipBurst, ipInterval))
	return max(wait, bucketWait(t.global, now, globalBurst, globalInterval))
}

// Failed implements Throttle.
func (t *MemoryThrottle) Failed(name string, ip netip.Addr) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forgetLocked(now)
	k := t.key(name)
	a := t.accounts[k]
	if now.Sub(a.last) > forgetAccount {
		a.failures = 0
	}
	a.failures, a.last = a.failures+1, now
	t.accounts[k] = a
	n := network(ip)
	t.ips[n] = later(t.ips[n], now).Add(ipInterval)
	t.global = later(t.global, now).Add(globalInterval)
}

// Succeeded implements Throttle. The address keeps its count: one right
// password must not pay for guesses at other accounts.
func (t *MemoryThrottle) Succeeded(name string, _ netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.accounts, t.key(name))
}

// key hashes names, so that long ones cost no memory. An attacker cannot find
// collisions of a seed that it does not know.
func (t *MemoryThrottle) key(name string) uint64 { return maphash.String(t.seed, name) }

// forgetLocked bounds the tables: what no longer delays goes first, and if
// that is not enough, all goes, and the global bound remains.
func (t *MemoryThrottle) forgetLocked(now time.Time) {
	if len(t.accounts) >= maxTracked {
		for k, a := range t.accounts {
			if a.wait(now) == 0 {
				delete(t.accounts, k)
			}
		}
		if len(t.accounts) >= maxTracked {
			clear(t.accounts)
		}
	}
	if len(t.ips) >= maxTracked {
		for k, tat := range t.ips {
			if !tat.After(now) {
				delete(t.ips, k)
			}
		}
		if len(t.ips) >= maxTracked {
			clear(t.ips)
		}
	}
}

// wait doubles from one second on with every failure after the free ones.
func (a account) wait(now time.Time) time.Duration {
	over := a.failures - freeFailures
	if over < 0 || now.Sub(a.last) > forgetAccount {
		return 0
	}
	delay := maxAccountWait
	if over < 5 {
		delay = time.Second << over
	}
	return max(0, a.last.Add(delay).Sub(now))
}

func bucketWait(tat, now time.Time, burst int, interval time.Duration) time.Duration {
	if !tat.After(now) { // also never: the difference would not fit
		return 0
	}
	return max(0, tat.Sub(now)-time.Duration(burst-1)*interval)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// network is what one person holds: a /64 of IPv6 is one.
func network(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil { // no address: all of them together
		return netip.Prefix{}
	}
	return p
}
