package auth

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/routes"
)

const (
	unknownEvery = 10 * time.Second // fetches for unknown keys, per issuer
	retryFirst   = time.Second
	retryMost    = time.Minute
	fresh        = time.Hour // without Cache-Control
	freshLeast   = 5 * time.Minute
	freshMost    = 24 * time.Hour
)

// remote holds the keys of an external issuer. Only run fetches; a request
// that meets an unknown key wakes it. The last good set stays while the
// issuer is away.
type remote struct {
	config routes.Issuer
	client *http.Client
	now    func() time.Time
	failed func(issuer string, err error)

	set  atomic.Pointer[keySet] // nil: none was ever had, or retired
	gen  atomic.Uint64
	gate gate
	wake chan struct{}

	mu       sync.Mutex
	round    chan struct{} // closed when the fetch that runs, or the next one, ends
	fetching bool
	retired  bool
	jwksURI  string
	status   IssuerStatus
}

// IssuerStatus is what is known about the keys of one external issuer.
type IssuerStatus struct {
	Issuer string
	Keys   int
	// Fetched is when the keys were last had; zero: never.
	Fetched time.Time
	// Fetches and Failures count attempts since the issuer was configured.
	Fetches, Failures uint64
	// UnknownKeys counts the tokens refused at once because a fetch for an
	// unknown key was not due.
	UnknownKeys uint64
	// Err is the error of the last attempt; nil when it succeeded.
	Err error
}

func newRemote(config routes.Issuer, client *http.Client, now func() time.Time, failed func(string, error)) *remote {
	return &remote{
		config: config, client: client, now: now, failed: failed,
		gate:  gate{now: now, every: unknownEvery},
		wake:  make(chan struct{}, 1),
		round: make(chan struct{}),
	}
}

func (r *remote) generation() uint64 { return r.gen.Load() }

func (r *remote) find(kid string) (key, bool) {
	set := r.set.Load()
	if set == nil {
		return key{}, false
	}
	k, ok := set.keys[kid]
	return k, ok
}

func (r *remote) missing(ctx context.Context, _ string) bool {
	r.gate.pass(ctx, func() {
		// Who waits for the first keys does not use up the look that a
		// rotation soon afterwards will need.
		if r.set.Load() == nil {
			defer func() {
				if r.set.Load() != nil {
					r.gate.forgive()
				}
			}()
		}
		r.mu.Lock()
		round := r.round
		if !r.fetching {
			select {
			case r.wake <- struct{}{}:
			default:
			}
		}
		r.mu.Unlock()
		wait(ctx, round)
	})
	return r.set.Load() != nil
}

// retire forgets the keys for good: the issuer is trusted no more, or under
// other terms. Verifications that stood on them end with the generation.
func (r *remote) retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = true
	r.set.Store(nil)
	r.gen.Add(1)
}

// run fetches until ctx ends: when the keys grow old, soon after a failure,
// and when it is woken.
func (r *remote) run(ctx context.Context) {
	retry := retryFirst
	rediscover := true
	for {
		ttl, err := r.fetch(ctx, rediscover)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			retry = retryFirst
		} else {
			if r.failed != nil {
				r.failed(r.config.Issuer, err)
			}
			ttl, retry = retry, min(2*retry, retryMost)
		}
		// Replicas and issuers must not move in step.
		timer := time.NewTimer(ttl - time.Duration(rand.Int64N(int64(ttl)/10)))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-r.wake:
			timer.Stop()
			rediscover = err != nil
		case <-timer.C:
			rediscover = true
		}
	}
}

// fetch gets the key set once and tells how long it is fresh.
func (r *remote) fetch(ctx context.Context, rediscover bool) (time.Duration, error) {
	r.mu.Lock()
	r.fetching = true
	select {
	case <-r.wake: // who woke before now is served by this fetch
	default:
	}
	uri := r.jwksURI
	r.mu.Unlock()

	var set *keySet
	var ttl time.Duration
	var err error
	if r.config.JWKSURI != "" {
		uri = r.config.JWKSURI
	} else if uri == "" || rediscover {
		uri, err = discover(ctx, r.client, r.config.Issuer)
	}
	if err == nil {
		set, ttl, err = fetchKeys(ctx, r.client, uri, r.config.Algorithms)
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() { // last, so that who waited finds the new keys
		r.fetching = false
		close(r.round)
		r.round = make(chan struct{})
	}()
	r.status.Fetches++
	r.status.Err = err
	if err != nil {
		r.status.Failures++
		return 0, err
	}
	if r.retired {
		return 0, errors.New("the issuer was removed")
	}
	r.jwksURI = uri
	r.status.Fetched = r.now()
	if old := r.set.Load(); old == nil || !old.equal(set) {
		r.set.Store(set)
		r.gen.Add(1)
	}
	return ttl, nil
}

func (r *remote) state() IssuerStatus {
	r.mu.Lock()
	s := r.status
	r.mu.Unlock()
	s.Issuer, s.UnknownKeys = r.config.Issuer, r.gate.turned()
	if set := r.set.Load(); set != nil {
		s.Keys = len(set.keys)
	}
	return s
}
