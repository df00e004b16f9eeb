package store

import (
	"context"
	"time"
)

// Device is a device authorization request (RFC 8628) and what became of it.
type Device struct {
	Hash     Digest // of the device code
	UserHash Digest // of the user code
	ClientID string
	Scopes   []string
	// Resources are those asked for.
	Resources []string
	Expires   time.Time
	// Interval is the least time between two polls; it grows with each poll
	// that came too soon.
	Interval time.Duration
	Polled   time.Time
	// Decided is when the user answered; Denied that the answer was no. The
	// rest is zero until then.
	Decided  time.Time
	Denied   bool
	Subject  string
	Session  string
	Grant    string
	ACR      string
	AuthTime time.Time
	// Used is when the device code was redeemed, or what it would have given
	// was revoked.
	Used time.Time
}

// Devices keeps device authorization requests.
type Devices interface {
	// AddDevice stores a request that nobody has answered; ErrExists when its
	// user code is taken.
	AddDevice(ctx context.Context, d Device) error
	// DeviceByUserCode returns a request that waits for its answer at now;
	// ErrNotFound for every other one.
	DeviceByUserCode(ctx context.Context, hash Digest, now time.Time) (Device, error)
	// DecideDevice stores the user's answer, at d.Decided, to the request of
	// d.UserHash: who said yes and with what it goes on, or d.Denied. Exactly
	// one answer is ever taken: ErrNotFound for every later one and where there
	// is nothing to answer; ErrExpired when the session was ended meanwhile.
	DecideDevice(ctx context.Context, d Device, events ...AuditEvent) error
	// PollDevice records that the client asks for the outcome, and returns it
	// as it stands. soon tells that it asked before the interval was over, give
	// or take half a second; the interval is five seconds longer then.
	// ErrNotFound for a code that is unknown or another client's.
	PollDevice(ctx context.Context, hash Digest, client string, now time.Time) (d Device, soon bool, err error)
	// ConsumeDevice marks the request used. Exactly one caller ever succeeds:
	// ErrUsed for every later one; ErrExpired; ErrNotFound for one that is not
	// there or that nobody allowed. When refresh is not nil, its family is
	// opened in the same transaction.
	ConsumeDevice(ctx context.Context, hash Digest, now time.Time, refresh *Family) error
}
