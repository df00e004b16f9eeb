package store

import (
	"context"
	"time"
)

// TOTP is a user's authenticator app. Sealed is its secret, encrypted by the
// caller; LastStep the last time step whose code was spent.
type TOTP struct {
	Subject  string
	Sealed   []byte
	LastStep int64
	Created  time.Time
}

// Passkey is a WebAuthn credential. Credential is its public part in the form
// of the caller; Count the authenticator's signature counter, 0 for those that
// have none.
type Passkey struct {
	ID         []byte
	Subject    string
	Name       string // by which its owner knows it
	Credential []byte
	Count      uint32
	Created    time.Time
	Used       time.Time
}

// Factors keeps what users sign in with besides passwords.
type Factors interface {
	// PutTOTP stores an authenticator app and its recovery codes, in place of
	// those before.
	PutTOTP(ctx context.Context, t TOTP, recovery []Digest, events ...AuditEvent) error
	TOTP(ctx context.Context, subject string) (TOTP, error) // ErrNotFound
	// SpendTOTP marks a time step, and all before it, as spent. One caller
	// succeeds; ErrUsed for later ones, ErrNotFound where there is no app.
	SpendTOTP(ctx context.Context, subject string, step int64) error
	// RemoveTOTP removes the app and the recovery codes; ErrNotFound.
	RemoveTOTP(ctx context.Context, subject string, events ...AuditEvent) error
	// PutRecoveryCodes replaces the recovery codes.
	PutRecoveryCodes(ctx context.Context, subject string, codes []Digest, events ...AuditEvent) error
	// RecoveryCodes counts those that are left.
	RecoveryCodes(ctx context.Context, subject string) (int, error)
	// SpendRecoveryCode removes a code; one caller succeeds, ErrNotFound for
	// any other.
	SpendRecoveryCode(ctx context.Context, subject string, code Digest, events ...AuditEvent) error

	AddPasskey(ctx context.Context, p Passkey, events ...AuditEvent) error // ErrExists by ID
	// Passkeys lists a subject's, oldest first.
	Passkeys(ctx context.Context, subject string) ([]Passkey, error)
	// UsePasskey stores a credential after it signed. ErrReuse when its counter
	// did not go forward (both 0: it has none): there may be a copy of it.
	// ErrNotFound.
	UsePasskey(ctx context.Context, p Passkey) error
	RemovePasskey(ctx context.Context, subject string, id []byte, events ...AuditEvent) error // ErrNotFound
	// RemoveFactors removes all of these, whether there are any or not.
	RemoveFactors(ctx context.Context, subject string, events ...AuditEvent) error
}

// Counter is a named counter that replicas share.
type Counter struct {
	Name  string
	Count int64
	// Open counts what began and has not ended.
	Open int64
	// At is when something happened last, or will have been paid for.
	At time.Time
	// Expires is when it may be forgotten.
	Expires time.Time
}

// Counters keeps counters.
type Counters interface {
	// Count hands plan the counters of these names, in their order and zero
	// where there is none, and stores what it changed in them, in one
	// transaction that excludes every other Count of one of the names over all
	// replicas. A counter without Expires is deleted. plan may be run more than
	// once, and must not use the store.
	Count(ctx context.Context, names []string, plan func([]Counter)) error
}
