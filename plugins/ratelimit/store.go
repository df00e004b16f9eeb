package ratelimit

import (
	"context"
	"time"
)

// Store holds the buckets that replicas share. Its verbs are atomic per bucket.
type Store interface {
	// Ask puts asks to their buckets and fills in their Grant or Err. An error
	// means that no answer can be trusted; asks may have been debited then.
	// It must return soon after ctx is done.
	Ask(ctx context.Context, asks []StoreAsk) error
	// Heartbeat notes that replica lives and returns how many do.
	Heartbeat(ctx context.Context, replica string) (int, error)
}

// StoreAsk is one ask on its way to a Store. The store counts the bucket's
// active replicas by itself: Ask.Active is ignored.
type StoreAsk struct {
	// Bucket names the bucket; Replica who asks.
	Bucket, Replica string
	Limit           Limit
	Ask             Ask
	// Life is how long a grant may be spent and its asker counts as active; 0
	// for an ask that is spent at once and wants all or nothing.
	Life time.Duration

	// Grant is the answer, where Err is nil.
	Grant Grant
	Err   error
}
