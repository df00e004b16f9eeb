package auth

import (
	"context"
	"crypto"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// keyUse is the only use of own keys whose signatures make a bearer token.
const keyUse = "token"

// patience bounds how long a request waits for a key that is being fetched.
const patience = time.Second

// waiters bounds how many requests of one issuer do so at the same time.
const waiters = 256

// KeySource is where the keys of the own authorization server are found
// without a network. All methods are called concurrently.
type KeySource interface {
	// PublicKey returns the key kid with its algorithm and use; it must not
	// block. The key is not to be changed afterwards.
	PublicKey(kid string) (key crypto.PublicKey, alg, use string, ok bool)
	// Refresh looks for new keys because kid is unknown. It may do nothing
	// when it looked a moment ago, and returns when ctx ends.
	Refresh(ctx context.Context, kid string)
	// Generation changes whenever the set of verifying keys changes.
	Generation() uint64
}

// key verifies the signatures of one algorithm, or, where alg is empty, of
// every algorithm that its issuer may use and its kind can.
type key struct {
	public crypto.PublicKey
	alg    string
	lookup jwt.Keyfunc
}

func (k key) equal(other key) bool {
	p, ok := k.public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.alg == other.alg && p.Equal(other.public)
}

// keys is the key set of one issuer.
type keys interface {
	// find and generation do not block.
	find(kid string) (key, bool)
	generation() uint64
	// missing asks for new keys because kid is unknown, and waits a moment
	// where this can help. It reports whether the issuer has keys at all.
	missing(ctx context.Context, kid string) (have bool)
}

// ownKeys adapts a KeySource.
type ownKeys struct {
	source KeySource
	gate   gate
}

func newOwnKeys(source KeySource, now func() time.Time) *ownKeys {
	return &ownKeys{source: source, gate: gate{now: now, every: 2 * time.Second}}
}

func (o *ownKeys) generation() uint64 { return o.source.Generation() }

func (o *ownKeys) find(kid string) (key, bool) {
	public, alg, use, ok := o.source.PublicKey(kid)
	if !ok || use != keyUse {
		return key{}, false
	}
	return key{public, alg, func(*jwt.Token) (any, error) { return public, nil }}, true
}

func (o *ownKeys) missing(ctx context.Context, kid string) bool {
	if _, _, _, ok := o.source.PublicKey(kid); ok {
		return true // a key of another use: looking again finds no other
	}
	o.gate.pass(ctx, func() {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		o.source.Refresh(ctx, kid)
	})
	return true
}

// gate lets one caller at a time look for new keys, and not more often than
// every; those who come meanwhile wait for it, up to a bound.
type gate struct {
	now   func() time.Time
	every time.Duration

	mu      sync.Mutex
	last    time.Time
	flight  chan struct{} // closed when the running look ends; nil: none runs
	waiting int
	refused uint64
}

// pass calls look, or waits for the call that runs, or returns at once.
func (g *gate) pass(ctx context.Context, look func()) {
	g.mu.Lock()
	switch now := g.now(); {
	case g.flight != nil && g.waiting < waiters:
		flight := g.flight
		g.waiting++
		g.mu.Unlock()
		wait(ctx, flight)
		g.mu.Lock()
		g.waiting--
	case g.flight == nil && (g.last.IsZero() || now.Sub(g.last) >= g.every):
		g.last, g.flight = now, make(chan struct{})
		g.mu.Unlock()
		defer func() {
			g.mu.Lock()
			close(g.flight)
			g.flight = nil
			g.mu.Unlock()
		}()
		look()
		return
	default:
		g.refused++
	}
	g.mu.Unlock()
}

// forgive lets the next look be made at once.
func (g *gate) forgive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.last = time.Time{}
}

// turned returns how often a caller was turned away.
func (g *gate) turned() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.refused
}

// wait returns when done is closed, ctx ends or patience is over.
func wait(ctx context.Context, done <-chan struct{}) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
	case <-ctx.Done():
	case <-timer.C:
	}
}
