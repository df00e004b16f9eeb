package users

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/netip"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const (
	freeFailures   = 5 // per account, before delays start
	maxAccountWait = 30 * time.Second
	maxOpen        = 20               // attempts of one account at once
	openLife       = 30 * time.Second // an attempt that did not end until then never will
	ipBurst        = 20               // failures of one address at once …
	ipInterval     = 3 * time.Second
	globalBurst    = 300 // failures of all addresses at once …
	globalInterval = 20 * time.Millisecond
	forgetAccount  = 15 * time.Minute
	// maxCounting bounds how many attempts of this process wait for the rows
	// that all of them share, so that a storm does not wait in the database.
	maxCounting = 4
)

// Throttle slows guessing down, per account, per address and for all together.
// It counts in the store, so for all replicas. It delays and never locks:
// whoever fails on purpose under another's name costs that person at most
// maxAccountWait, and nothing on a browser that is known.
type Throttle struct {
	store store.Counters
	key   []byte
	now   func() time.Time
	slots chan struct{}
}

// NewThrottle returns a throttle. key, shared by replicas, keeps what people
// type as a name out of the store.
func NewThrottle(s store.Counters, key []byte, now func() time.Time) *Throttle {
	return &Throttle{store: s, key: key, now: now, slots: make(chan struct{}, maxCounting)}
}

// Attempt is one that was let through. Exactly one of its methods must follow.
type Attempt struct {
	t     *Throttle
	names []string // account, address, all
}

// Begin lets an attempt through, or returns *ThrottledError. It counts the
// attempt as open: guesses that come at once do not slip through together.
func (t *Throttle) Begin(ctx context.Context, account string, ip netip.Addr) (*Attempt, error) {
	a := &Attempt{t, []string{t.name("account", account), t.name("address", network(ip).String()), t.name("all", "")}}
	var wait time.Duration
	err := a.count(ctx, func(now time.Time, c []store.Counter) {
		settle(&c[0], now)
		wait = accountWait(c[0], now)
		wait = max(wait, bucketWait(c[1].At, now, ipBurst, ipInterval))
		wait = max(wait, bucketWait(c[2].At, now, globalBurst, globalInterval))
		if wait == 0 {
			c[0].Open++
			c[0].Expires = now.Add(forgetAccount)
		}
	})
	if err != nil {
		return nil, err
	}
	if wait > 0 {
		return nil, &ThrottledError{Wait: wait}
	}
	return a, nil
}

// Failed counts a wrong password or code.
func (a *Attempt) Failed(ctx context.Context) error {
	return a.count(ctx, func(now time.Time, c []store.Counter) {
		settle(&c[0], now)
		c[0].Open, c[0].Count, c[0].At, c[0].Expires = max(0, c[0].Open-1), c[0].Count+1, now, now.Add(forgetAccount)
		c[1].At = later(c[1].At, now).Add(ipInterval)
		c[2].At = later(c[2].At, now).Add(globalInterval)
		c[1].Expires, c[2].Expires = c[1].At.Add(time.Minute), c[2].At.Add(time.Minute)
	})
}

// Succeeded forgets the account's failures. The address keeps its count: one
// right password must not pay for guesses at other accounts.
func (a *Attempt) Succeeded(ctx context.Context) error {
	return a.end(ctx, func(c *store.Counter) { c.Count, c.At = 0, time.Time{} })
}

// Abandon takes back an attempt that was not judged.
func (a *Attempt) Abandon(ctx context.Context) error { return a.end(ctx, func(*store.Counter) {}) }

func (a *Attempt) end(ctx context.Context, change func(*store.Counter)) error {
	one := &Attempt{a.t, a.names[:1]}
	return one.count(ctx, func(now time.Time, c []store.Counter) {
		settle(&c[0], now)
		c[0].Open = max(0, c[0].Open-1)
		change(&c[0])
		if c[0].Open == 0 && c[0].Count == 0 {
			c[0].Expires = time.Time{}
		}
	})
}

func (a *Attempt) count(ctx context.Context, plan func(now time.Time, c []store.Counter)) error {
	select {
	case a.t.slots <- struct{}{}:
		defer func() { <-a.t.slots }()
	case <-ctx.Done():
		return ErrBusy
	}
	if err := a.t.store.Count(ctx, a.names, func(c []store.Counter) { plan(a.t.now(), c) }); err != nil {
		return fmt.Errorf("count a sign-in: %w", err)
	}
	return nil
}

// name is a counter's: a long name costs no memory, and nobody learns from the
// store what was typed.
func (t *Throttle) name(kind, what string) string {
	mac := hmac.New(sha256.New, t.key)
	mac.Write([]byte(kind + "\x00" + what))
	return kind + ":" + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

// settle forgets what is too old to count.
func settle(c *store.Counter, now time.Time) {
	if !c.Expires.After(now) {
		*c = store.Counter{Name: c.Name}
	}
	if began := c.Expires.Add(-forgetAccount); now.Sub(began) > openLife {
		c.Open = 0
	}
}

// accountWait doubles from one second on with every failure after the free
// ones, and lets one attempt through at a time then.
func accountWait(c store.Counter, now time.Time) time.Duration {
	over := c.Count - freeFailures
	if over < 0 {
		if c.Open >= maxOpen {
			return time.Second
		}
		return 0
	}
	delay := maxAccountWait
	if over < 5 {
		delay = time.Second << over
	}
	wait := max(0, c.At.Add(delay).Sub(now))
	if wait == 0 && c.Open > 0 {
		wait = time.Second
	}
	return wait
}

// bucketWait is GCRA: tat is when all that happened will have been paid for.
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
