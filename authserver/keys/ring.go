// Package keys holds the authorization server's signing keys and the secret
// that refresh tokens are derived from.
//
// It owns the keys' life (next, active, retired, gone), which all replicas
// share through the store, their encryption at rest, the signing of JWTs and
// the JWKS document. It does not own claims, verification of tokens (it only
// finds public keys), nor the key encryption keys' storage.
//
//	ring, err := keys.Open(ctx, store, keys.Config{Keks: keks})
//	go ring.Run(ctx)
//	token, err := ring.Sign(keys.UseToken, "at+jwt", claims)
//
// To replace a key encryption key, first add the new one behind the old one
// in every replica, then put it in front, then drop the old one: the first
// replica that has it in front seals everything again.
package keys

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Config of a Ring.
type Config struct {
	// Keks encrypt private keys at rest, newest first; at least one.
	Keks []Kek
	// Algorithm of new keys: ES256 (default), EdDSA or RS256.
	Algorithm string
	// Rotation is how long a key signs; default 30 days.
	Rotation time.Duration
	// JWKSMaxAge is how long others may cache the JWKS; default 5 min. A new key
	// is published for twice as long before it signs.
	JWKSMaxAge time.Duration
	// TokenLife is the longest life of a token; default 60 min. A key verifies
	// for a minute more after it has signed for the last time.
	TokenLife time.Duration
	// Poll is how often the store is read; default 10 s.
	Poll time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
	// OnError is told when Run or Refresh cannot read or rotate the keys; the
	// ring goes on with those that it has. It may be nil.
	OnError func(error)
	// OnChange is told of every change that the ring made of its own accord,
	// when it is stored and in the audit log. It may be nil.
	OnChange func(store.AuditEvent)
}

// Ring is the set of keys as this replica knows it. Its methods may be called
// from many goroutines; those without a context do not block.
type Ring struct {
	store   store.Keys
	keks    keyring
	policy  policy
	poll    time.Duration
	now     func() time.Time
	onError func(error)
	changed func(store.AuditEvent)
	refresh secret

	view    atomic.Pointer[view]
	loading chan struct{} // holds one element while somebody loads; guards loaded
	loaded  time.Time     // when the last load began
}

// refreshEvery bounds how often unknown key ids make the ring read the store.
const refreshEvery = time.Second

// Open reads the keys, or makes them if there are none; all replicas that
// start together end up with the same ones. It fails when a key is sealed
// under a key encryption key that is not configured, and names it.
func Open(ctx context.Context, s store.Keys, c Config) (*Ring, error) {
	r, err := newRing(s, c)
	if err != nil {
		return nil, fmt.Errorf("key ring: %w", err)
	}
	if err := r.follow(ctx); err != nil {
		return nil, fmt.Errorf("key ring: %w", err)
	}
	if r.refresh, err = openSecret(ctx, s, r.keks); err != nil {
		return nil, fmt.Errorf("key ring: %w", err)
	}
	return r, nil
}

func newRing(s store.Keys, c Config) (*Ring, error) {
	if len(c.Keks) == 0 {
		return nil, errors.New("no key encryption key")
	}
	for _, k := range c.Keks {
		if k.k == nil {
			return nil, errors.New("an empty key encryption key")
		}
	}
	if c.Algorithm == "" {
		c.Algorithm = ES256
	}
	if _, known := methods[c.Algorithm]; !known {
		return nil, fmt.Errorf("unknown algorithm %q (want ES256, EdDSA or RS256)", c.Algorithm)
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{{&c.Rotation, 30 * 24 * time.Hour}, {&c.JWKSMaxAge, 5 * time.Minute}, {&c.TokenLife, time.Hour}, {&c.Poll, 10 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	publish := 2 * max(c.JWKSMaxAge, c.Poll)
	if c.Rotation < 2*publish {
		return nil, fmt.Errorf("keys rotate every %v, want at least %v: a new one is published for %v before it signs", c.Rotation, 2*publish, publish)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.OnChange == nil {
		c.OnChange = func(store.AuditEvent) {}
	}
	if c.OnError == nil {
		c.OnError = func(error) {}
	}
	return &Ring{
		store: s, keks: c.Keks, poll: c.Poll, now: c.Now, onError: c.OnError, changed: c.OnChange, loading: make(chan struct{}, 1),
		policy: policy{algorithm: c.Algorithm, rotation: c.Rotation, publish: publish,
			// Another replica may sign with a retired key until it reads the store.
			overlap: c.TokenLife + time.Minute + c.Poll},
	}, nil
}

// Run follows the store and rotates keys that are due, until ctx ends; it
// returns ctx's error.
func (r *Ring) Run(ctx context.Context) error {
	ticker := time.NewTicker(r.poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := r.locked(ctx, func() error { return r.follow(ctx) }); err != nil && ctx.Err() == nil {
			r.onError(err)
		}
	}
}

// RotateNow begins a rotation of the keys of every use: successors are
// published at once and sign when everybody has had the time to see them. It
// is store.ErrExists while all of them have successors already. events are
// stored with the change.
func (r *Ring) RotateNow(ctx context.Context, events ...store.AuditEvent) error {
	return r.locked(ctx, func() error {
		changed, err := r.load(ctx, func(p *planner) error { p.force = true; return nil }, events)
		if err == nil && !changed {
			return fmt.Errorf("rotation of keys: %w", store.ErrExists)
		}
		return err
	})
}

// Retire takes a key out of use at once and for good, because others may have
// it: nothing that it signed is valid any more. Where it was the active key its
// successor signs immediately, which those who cache the key set see late.
// It is store.ErrNotFound for an unknown key. events are stored with the change.
func (r *Ring) Retire(ctx context.Context, kid string, events ...store.AuditEvent) error {
	return r.locked(ctx, func() error {
		_, err := r.load(ctx, func(p *planner) error {
			for i, k := range p.have {
				if k.ID == kid {
					p.have = slices.Delete(slices.Clone(p.have), i, i+1)
					p.changed = true
					return nil
				}
			}
			return fmt.Errorf("key: %w", store.ErrNotFound)
		}, events)
		return err
	})
}

// planner is the input of plan that a caller of load may change.
type planner struct {
	have           []store.Key
	force, changed bool
}

// follow reads the keys and makes the changes that are due.
func (r *Ring) follow(ctx context.Context) error {
	event := store.AuditEvent{Time: r.now(), Action: audit.KeysRotated, Outcome: audit.Success, Actor: audit.System}
	changed, err := r.load(ctx, func(*planner) error { return nil }, []store.AuditEvent{event})
	if changed && err == nil {
		r.changed(event)
	}
	return err
}

// Refresh reads the store because kid is unknown: once for many callers, and
// once a second at most. It returns when that is done or ctx ends.
func (r *Ring) Refresh(ctx context.Context, kid string) {
	select {
	case r.loading <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-r.loading }()
	if _, known := r.view.Load().verifiers[kid]; known {
		return
	}
	if since := r.now().Sub(r.loaded); since >= 0 && since < refreshEvery {
		return
	}
	if err := r.follow(ctx); err != nil && ctx.Err() == nil {
		r.onError(err)
	}
}

// locked runs f while nobody else loads.
func (r *Ring) locked(ctx context.Context, f func() error) error {
	select {
	case r.loading <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.loading }()
	return f()
}

// load reads the keys, changes them in the store if that is due or adjust asks
// for it, and shows them. One at a time. It reports whether this replica made
// the change that events tell of.
func (r *Ring) load(ctx context.Context, adjust func(*planner) error, events []store.AuditEvent) (changed bool, err error) {
	now := r.now()
	r.loaded = now
	rows, err := r.store.Keys(ctx)
	if err != nil {
		return false, fmt.Errorf("read keys: %w", err)
	}
	// Keys are made before the transaction that excludes the other replicas,
	// and are used in it if they are still wanted there.
	newKey := r.keyMaker()
	changes := func(have []store.Key) ([]store.Key, error) {
		resealed, again, err := r.reseal(have)
		if err != nil {
			return nil, err
		}
		p := planner{have: resealed}
		if err := adjust(&p); err != nil {
			return nil, err
		}
		want, due, err := plan(p.have, now, r.policy, p.force, newKey())
		changed = err == nil && (due || again || p.changed)
		if !changed {
			return nil, err
		}
		return want, nil
	}
	want, err := changes(rows)
	if err != nil {
		return false, err
	}
	if want != nil {
		if rows, err = r.store.RotateKeys(ctx, changes, events...); err != nil {
			return false, fmt.Errorf("rotate keys: %w", err)
		}
	}
	next, err := r.newView(rows, now)
	if err != nil {
		return changed, err
	}
	r.view.Store(next)
	return changed, nil
}

// keyMaker returns a function that returns functions for plan, each of which
// hands out the same keys in the same order.
func (r *Ring) keyMaker() func() func(use string) (store.Key, error) {
	made := map[string][]store.Key{}
	return func() func(use string) (store.Key, error) {
		given := map[string]int{}
		return func(use string) (store.Key, error) {
			i := given[use]
			given[use]++
			if i == len(made[use]) {
				k, err := r.newKey(use)
				if err != nil {
					return store.Key{}, fmt.Errorf("make a key: %w", err)
				}
				made[use] = append(made[use], k)
			}
			return made[use][i], nil
		}
	}
}

// PublicKey returns the key kid with its algorithm and use. Next and retired
// keys are found too: another replica may sign with them.
func (r *Ring) PublicKey(kid string) (key crypto.PublicKey, alg, use string, ok bool) {
	v, ok := r.view.Load().verifiers[kid]
	return v.public, v.algorithm, v.use, ok
}

// JWKS returns the JSON Web Key Set of all verifying keys, and its ETag with
// quotes. body must not be changed.
func (r *Ring) JWKS() (body []byte, etag string) {
	v := r.view.Load()
	return v.jwks, v.etag
}

// Generation changes whenever the set of verifying keys changes.
func (r *Ring) Generation() uint64 { return r.view.Load().generation }

// Algorithm is the one of new keys; those in use may still have another.
func (r *Ring) Algorithm() string { return r.policy.algorithm }
