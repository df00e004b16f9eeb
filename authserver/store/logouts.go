package store

import (
	"context"
	"time"
)

// LogoutNotice says that a session ended which a client took part in.
type LogoutNotice struct {
	Session, ClientID, Subject string
	Created                    time.Time
	// Attempts counts how often it was handed out.
	Attempts int
}

// Logouts is the queue of what clients are still to be told. Whatever ends a
// session puts a notice in for every client that took part in it, in the same
// transaction: a session that ended is one that will be told of.
type Logouts interface {
	// ClaimLogouts hands out up to limit notices that are due, to this caller
	// alone: if they are neither finished nor deferred they are due again when
	// the lease is over.
	ClaimLogouts(ctx context.Context, now time.Time, lease time.Duration, limit int) ([]LogoutNotice, error)
	// FinishLogout removes a notice; it is no error if it is gone.
	FinishLogout(ctx context.Context, n LogoutNotice, events ...AuditEvent) error
	// DeferLogout sets when a notice is due again.
	DeferLogout(ctx context.Context, n LogoutNotice, due time.Time) error
}
