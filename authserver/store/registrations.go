package store

import (
	"context"
	"encoding/json"
	"time"
)

// InitialToken lets its holder register clients (RFC 7591, 3).
type InitialToken struct {
	ID   string
	Hash Digest
	Name string // for people
	// Scopes bound those of the clients, besides what the server allows; nil:
	// that alone.
	Scopes           []string
	Created, Expires time.Time
	// Uses is how many clients may still be registered.
	Uses int
}

// Registration is what belongs to a client that was registered by itself.
type Registration struct {
	// Hash is that of the registration access token (RFC 7592).
	Hash Digest
	// Metadata is a JSON object: what the client said about itself and nothing
	// here depends on.
	Metadata json.RawMessage
}

// Registrations keeps what dynamic registration needs.
type Registrations interface {
	AddInitialToken(ctx context.Context, t InitialToken, events ...AuditEvent) error
	// InitialToken returns one that can be used at now; ErrNotFound for any other.
	InitialToken(ctx context.Context, hash Digest, now time.Time) (InitialToken, error)
	InitialTokens(ctx context.Context) ([]InitialToken, error)
	RemoveInitialToken(ctx context.Context, id string, events ...AuditEvent) error // ErrNotFound
	// Register adds the client with its registration and, where initial is not
	// nil, spends one use of that token, all or nothing. No more clients are
	// ever registered than a token has uses: ErrNotFound when it has none left
	// at now.
	Register(ctx context.Context, c Client, r Registration, initial *Digest, now time.Time, events ...AuditEvent) error
	// Registration returns what belongs to a registered client; ErrNotFound.
	Registration(ctx context.Context, clientID string) (Registration, error)
	// ChangeRegistered replaces the client and its registration if presented is
	// still the digest of its registration access token; ErrMismatch if not:
	// of many who present one only one can go on. ErrNotFound.
	ChangeRegistered(ctx context.Context, c Client, presented Digest, r Registration, events ...AuditEvent) error
}
