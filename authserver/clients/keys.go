package clients

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gatehouse/gatehouse/authserver/fetch"
	"github.com/gatehouse/gatehouse/authserver/jose"
)

const (
	// keysFresh is how long a fetched key set is taken as it is; keysLast how
	// long it serves while it cannot be fetched again.
	keysFresh = 5 * time.Minute
	keysLast  = time.Hour
	// keysAgain bounds how often an unknown key id, or a failure, makes us look.
	keysAgain = 10 * time.Second
	// maxSets bounds the sets that are remembered.
	maxSets = 1024
)

// ErrKeys says that the client's keys cannot be had now.
var ErrKeys = errors.New("the client's keys cannot be had")

// keySets remembers the sets that clients publish.
type keySets struct {
	fetch *fetch.Fetcher
	now   func() time.Time

	flight singleflight.Group
	mu     sync.Mutex
	sets   map[string]*fetchedSet
}

type fetchedSet struct {
	keys    []jose.Key
	fetched time.Time // zero: never
	tried   time.Time
	err     error
}

// Verify checks the signature of a token under the client's own keys. A key id
// that the client's published set did not have a moment ago makes us look
// again. Errors that are not about the token hold ErrKeys.
func (r *Registry) Verify(ctx context.Context, c *Client, t *jose.Token) error {
	keys, err := r.keys(ctx, c, t.KeyID)
	if err != nil {
		return err
	}
	err = errors.New("no key of the client fits")
	for _, k := range keys {
		if t.KeyID != "" && k.ID != t.KeyID || !k.Fits(t.Algorithm) {
			continue
		}
		if err = t.Verify(k); err == nil {
			return nil
		}
	}
	return err
}

// keys returns the client's keys; kid is one that should be among them.
func (r *Registry) keys(ctx context.Context, c *Client, kid string) ([]jose.Key, error) {
	switch {
	case len(c.JWKS) > 0:
		return jose.ParseSet(c.JWKS)
	case c.JWKSURI != "":
		return r.published.find(ctx, c.JWKSURI, kid)
	}
	return nil, errors.New("the client has no keys")
}

func (s *keySets) find(ctx context.Context, uri, kid string) ([]jose.Key, error) {
	now := s.now()
	set := s.known(uri)
	has := kid == "" || slices.ContainsFunc(set.keys, func(k jose.Key) bool { return k.ID == kid })
	age := now.Sub(set.fetched)
	if set.fetched.IsZero() || age > keysFresh || !has {
		if set.tried.IsZero() || now.Sub(set.tried) >= keysAgain {
			set = s.look(ctx, uri, now)
			age = now.Sub(set.fetched)
		}
	}
	if set.fetched.IsZero() || age > keysLast {
		return nil, errors.Join(ErrKeys, set.err)
	}
	return set.keys, nil
}

func (s *keySets) known(uri string) fetchedSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set := s.sets[uri]; set != nil {
		return *set
	}
	return fetchedSet{}
}

// look fetches the set once for all who wait for it, so it does not end with
// the first of them.
func (s *keySets) look(ctx context.Context, uri string, now time.Time) fetchedSet {
	v, _, _ := s.flight.Do(uri, func() (any, error) {
		body, _, err := s.fetch.Get(context.WithoutCancel(ctx), uri)
		var keys []jose.Key
		if err == nil {
			if keys, err = jose.ParseSet(body); err != nil {
				err = fmt.Errorf("keys at %s: %w", uri, err)
			}
		}
		return s.keep(uri, keys, err, now), nil
	})
	return v.(fetchedSet)
}

func (s *keySets) keep(uri string, keys []jose.Key, err error, now time.Time) fetchedSet {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := s.sets[uri]
	if set == nil {
		if len(s.sets) >= maxSets {
			s.dropLocked()
		}
		set = &fetchedSet{}
		s.sets[uri] = set
	}
	set.tried, set.err = now, err
	if err == nil {
		set.keys, set.fetched = keys, now
	}
	return *set
}

// dropLocked gives up the set that was looked for longest ago.
func (s *keySets) dropLocked() {
	var oldest string
	for uri, set := range s.sets {
		if oldest == "" || set.tried.Before(s.sets[oldest].tried) {
			oldest = uri
		}
	}
	delete(s.sets, oldest)
}
