// Package revfeed carries revocations from the store's log to every edge.
//
// The log is the truth. A Relay copies it into a Redis stream, which makes
// edges hear of an entry within milliseconds; a Follower reads that stream and
// reads the log besides, every second, so that nothing that Redis loses,
// delays or makes up is missed for longer. It does not own the log (store) nor
// what an edge refuses (plugins/auth).
//
//	relay := revfeed.NewRelay(revfeed.RelayConfig{Log: store, Redis: redis})
//	follower := revfeed.NewFollower(revfeed.FollowerConfig{Log: store, Redis: redis, Apply: denied.Apply})
//	store.OnRevoke(func() { relay.Wake(); follower.Wake() })
//	go relay.Run(ctx)
//	go follower.Run(ctx)
//	<-follower.Ready()
package revfeed

import (
	"context"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Log is the ordered revocation log, as store.Revocations has it.
type Log interface {
	RevokedSince(ctx context.Context, after uint64, limit int) (entries []oauth.Revocation, head uint64, err error)
}

const (
	// logTimeout bounds a read of the log.
	logTimeout = 2 * time.Second
	// page is how many entries are read at once.
	page = 1000
)

func readLog(ctx context.Context, log Log, after uint64) ([]oauth.Revocation, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	return log.RevokedSince(ctx, after, page)
}

// bell wakes one goroutine; rings that come while it is awake are one.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}

// wait returns on a ring, after d, or when ctx ends.
func (b bell) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-b:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// reporter tells of the first error of a row of them.
type reporter struct {
	tell   func(error)
	failed bool
}

func (r *reporter) report(err error) {
	if err != nil && !r.failed && r.tell != nil {
		r.tell(err)
	}
	r.failed = err != nil
}
