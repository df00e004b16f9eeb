package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/dpop"
)

// ProofStore remembers proofs for all replicas.
type ProofStore interface {
	// Once records key for life and reports whether it was new. It returns when
	// ctx ends.
	Once(ctx context.Context, key string, life time.Duration) (fresh bool, err error)
}

const (
	// proofPatience is how long a request waits for the store.
	proofPatience = 22 * time.Millisecond
	// proofPause is how long the store is left alone after it failed.
	proofPause = 250 * time.Millisecond
	// proofsMost bounds the proofs that are remembered here, some 50 MB.
	proofsMost = 1 << 20
	// proofsTurn is how long a generation of them collects: longer than a proof
	// can be replayed.
	proofsTurn = 2 * dpop.Window
)

var (
	errSpent = errors.New("the proof was used before")
	errFull  = errors.New("too many proofs are remembered")
)

// Proofs lets each DPoP proof count once (RFC 9449, 11.1): in this process for
// certain, and over all replicas while the store answers. While it does not, a
// proof could be used once at each replica, for as long as its time is good.
type Proofs struct {
	store  ProofStore
	failed atomic.Uint64

	mu       sync.Mutex
	current  map[[16]byte]struct{}
	previous map[[16]byte]struct{}
	turned   time.Time
	paused   time.Time // until when the store is left alone
}

// NewProofs returns an empty memory. store may be nil: there is one process.
func NewProofs(store ProofStore) *Proofs {
	return &Proofs{store: store, current: map[[16]byte]struct{}{}}
}

// Failed counts the proofs that the store was not asked about, because it was
// away.
func (p *Proofs) Failed() uint64 { return p.failed.Load() }

// Spend records the proof id, which cannot be replayed from expires on. It
// returns errSpent or errFull.
func (p *Proofs) Spend(id string, expires, now time.Time) error {
	sum := sha256.Sum256([]byte(id))
	ask, err := p.here([16]byte(sum[:16]), now)
	if err != nil || !ask {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), proofPatience)
	defer cancel()
	fresh, err := p.store.Once(ctx, "dpop:"+id, max(expires.Sub(now), time.Second))
	if err != nil {
		p.failed.Add(1)
		p.mu.Lock()
		p.paused = now.Add(proofPause)
		p.mu.Unlock()
		return nil
	}
	if !fresh {
		return errSpent
	}
	return nil
}

// here records the proof in this process, and tells whether the store is to be
// asked too.
func (p *Proofs) here(key [16]byte, now time.Time) (ask bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.turned) >= proofsTurn {
		p.previous, p.current = p.current, map[[16]byte]struct{}{}
		if now.Sub(p.turned) >= 2*proofsTurn {
			p.previous = nil
		}
		p.turned = now
	}
	if _, spent := p.current[key]; spent {
		return false, errSpent
	}
	if _, spent := p.previous[key]; spent {
		return false, errSpent
	}
	if len(p.current)+len(p.previous) >= proofsMost {
		return false, errFull
	}
	p.current[key] = struct{}{}
	if p.store == nil {
		return false, nil
	}
	if now.Before(p.paused) {
		p.failed.Add(1)
		return false, nil
	}
	return true, nil
}
