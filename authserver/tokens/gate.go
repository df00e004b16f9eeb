package tokens

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Gate keeps tokens from being minted in the very second up to which tokens of
// their client, subject or issuer were revoked: they would be born dead. It
// holds what this process heard of; a token minted by a replica that has not
// heard yet is refused by the edge, which is the safe side.
type Gate struct {
	now   func() time.Time
	count atomic.Int32 // entries, so that the usual case takes no lock

	mu      sync.Mutex
	entries map[gateKey]int64 // Unix second of NotBefore
}

type gateKey struct {
	level oauth.Level
	id    string
}

// maxAhead bounds how long a clock that runs ahead elsewhere can hold us up.
const maxAhead = 5 * time.Second

// NewGate returns a gate that has heard of nothing.
func NewGate(now func() time.Time) *Gate {
	return &Gate{now: now, entries: map[gateKey]int64{}}
}

// Note takes in revocations; those that cannot matter any more are dropped.
func (g *Gate) Note(revocations []oauth.Revocation) {
	now := g.now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, second := range g.entries {
		if second < now.Unix() {
			delete(g.entries, k)
		}
	}
	for _, r := range revocations {
		if s := r.NotBefore.Unix(); !r.NotBefore.IsZero() && s >= now.Unix() && s <= now.Add(maxAhead).Unix() {
			k := gateKey{r.Level, r.ID}
			g.entries[k] = max(g.entries[k], s)
		}
	}
	g.count.Store(int32(len(g.entries)))
}

// Wait returns the time to mint with, which is after every revocation heard of
// for the issuer, the client and the subject. It returns early only with the
// context's error.
func (g *Gate) Wait(ctx context.Context, issuer, client, subject string) (time.Time, error) {
	for {
		now := g.now()
		if g.count.Load() == 0 {
			return now, nil
		}
		until := g.until(issuer, client, subject)
		if now.Unix() > until {
			return now, nil
		}
		timer := time.NewTimer(max(time.Unix(until+1, 0).Sub(now), time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return time.Time{}, ctx.Err()
		}
	}
}

func (g *Gate) until(issuer, client, subject string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return max(
		g.entries[gateKey{oauth.LevelIssuer, issuer}],
		g.entries[gateKey{oauth.LevelClient, client}],
		g.entries[gateKey{oauth.LevelSubject, subject}],
	)
}
