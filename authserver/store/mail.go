package store

import (
	"context"
	"time"
)

// Ticket is a promise sent by e-mail: whoever brings its secret back reads that
// address.
type Ticket struct {
	Hash    Digest
	Kind    string // what it is for
	Subject string // empty: nobody yet
	Email   string
	Expires time.Time
}

// Tickets keeps tickets until they are spent or expire. The verbs that spend one
// do what it is for in the same transaction: of all who bring it one succeeds,
// and for any other it is ErrNotFound. A user for whom one is spent has no
// others any more, of whatever kind.
type Tickets interface {
	AddTicket(ctx context.Context, t Ticket) error
	// Ticket returns a live ticket of a kind without spending it; ErrNotFound.
	Ticket(ctx context.Context, hash Digest, kind string, now time.Time) (Ticket, error)
	// RemoveTickets makes all of a subject's worth nothing.
	RemoveTickets(ctx context.Context, subject string) error
	// ResetPassword gives the ticket's user a password hash. The address that
	// the ticket was sent to is verified by it, if it still is the user's.
	ResetPassword(ctx context.Context, hash Digest, kind, password string, now time.Time, events ...AuditEvent) error
	// ConfirmEmail gives the ticket's user the ticket's address, verified.
	ConfirmEmail(ctx context.Context, hash Digest, kind string, now time.Time, events ...AuditEvent) error
	// RegisterUser adds a user. ErrExists, with the ticket as good as before,
	// when the name is taken.
	RegisterUser(ctx context.Context, hash Digest, kind string, u User, now time.Time, events ...AuditEvent) error
}

// Mail is a letter that waits to be written and sent.
type Mail struct {
	ID string
	// Sealed says what it is, encrypted by the caller.
	Sealed []byte
	// Expires is when nobody wants it any more.
	Created, Expires time.Time
	// Attempts counts how often it was handed out.
	Attempts int
}

// Outbox is the queue of mails.
type Outbox interface {
	// AddMail queues a mail, due at once. ErrFull when limit of them wait
	// already; those that add at the same moment may go beyond it together.
	AddMail(ctx context.Context, m Mail, limit int) error
	// ClaimMails hands out up to limit mails that are due, to this caller alone:
	// those that are neither finished nor deferred are due again when the lease
	// is over.
	ClaimMails(ctx context.Context, now time.Time, lease time.Duration, limit int) ([]Mail, error)
	// FinishMail removes a mail; it is no error if it is gone.
	FinishMail(ctx context.Context, id string, events ...AuditEvent) error
	// DeferMail sets when a mail is due again.
	DeferMail(ctx context.Context, id string, due time.Time) error
}
