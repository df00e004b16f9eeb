package revfeed

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// relayEvery is how often a relay looks at the log when nobody wakes it, and
// how soon it tries again what Redis refused.
const relayEvery = 200 * time.Millisecond

// RelayConfig is what a Relay needs.
type RelayConfig struct {
	Log   Log
	Redis *Redis
	// OnError is told of the first failure of a row of them; it may be nil.
	OnError func(error)
}

// Relay copies the log into the stream, in order. Every replica may run one:
// the numbers of the entries are the ids of the stream, which takes each once.
type Relay struct {
	log     Log
	stream  target
	errors  reporter
	bell    bell
	known   uint64 // the stream has, or needs, nothing up to here
	trusted bool   // known was true when last looked at
	relayed atomic.Uint64
}

// target is the stream as a relay writes it.
type target interface {
	// Top returns the last id that the stream ever had; 0 for a new one.
	Top(ctx context.Context) (uint64, error)
	// Add appends an entry; it fails when its number is not above Top.
	Add(ctx context.Context, r oauth.Revocation) error
	// Reset removes the stream.
	Reset(ctx context.Context) error
}

// NewRelay returns a relay that does nothing before Run.
func NewRelay(c RelayConfig) *Relay {
	return &Relay{log: c.Log, stream: c.Redis, errors: reporter{tell: c.OnError}, bell: newBell()}
}

// Wake makes the relay look at the log at once. It does not block.
func (r *Relay) Wake() { r.bell.ring() }

// Relayed is the number of the last entry that is known to be in the stream.
func (r *Relay) Relayed() uint64 { return r.relayed.Load() }

// Run relays until ctx ends, and returns ctx's error.
func (r *Relay) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := r.pass(ctx)
		if ctx.Err() == nil {
			r.errors.report(err)
		}
		r.bell.wait(ctx, relayEvery)
	}
	return ctx.Err()
}

// pass copies what the stream lacks. After any failure the next pass asks the
// stream where it stands, instead of trusting what was known of it.
func (r *Relay) pass(ctx context.Context) (err error) {
	defer func() { r.trusted = err == nil }()
	if !r.trusted {
		// Before the log is read: the log always runs ahead of the stream, so a
		// stream that is ahead nonetheless belongs to another history.
		if r.known, err = r.stream.Top(ctx); err != nil {
			return fmt.Errorf("revocation stream: %w", err)
		}
	}
	for {
		entries, head, err := readLog(ctx, r.log, r.known)
		if err != nil {
			return fmt.Errorf("revocation log: %w", err)
		}
		switch {
		case head < r.known:
			if err := r.stream.Reset(ctx); err != nil {
				return fmt.Errorf("reset revocation stream: %w", err)
			}
			r.known = 0
			continue
		case head-r.known > streamLength:
			r.known = head - streamLength // Redis would drop the rest at once
			continue
		}
		for _, e := range entries {
			if err := r.add(ctx, e); err != nil {
				return err
			}
		}
		if len(entries) < page {
			r.known = max(r.known, head)
			r.relayed.Store(r.known)
			return nil
		}
	}
}

// add appends e, or finds that another relay has.
func (r *Relay) add(ctx context.Context, e oauth.Revocation) error {
	if e.Seq <= r.known {
		return nil // another relay is ahead
	}
	refused := r.stream.Add(ctx, e)
	if refused == nil {
		r.known = e.Seq
		return nil
	}
	top, err := r.stream.Top(ctx)
	if err != nil || top < e.Seq {
		return fmt.Errorf("append to revocation stream: %w", refused)
	}
	r.known = top
	return nil
}
