// Package revocation writes entries of the revocation log with the right
// bounds: which second they reach up to and how long they must be remembered.
//
// It owns those two rules. It does not own the log (store), nor how an entry
// reaches the edges (revfeed).
//
//	err := revoker.EndSession(ctx, session.ID)
package revocation

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

// Store is the state that a Revoker changes.
type Store interface {
	store.Revocations
	WithdrawConsent(ctx context.Context, subject, clientID string, now time.Time, events ...store.AuditEvent) (grants []string, err error)
}

// Revoker is safe for concurrent use.
type Revoker struct {
	store  Store
	tokens *tokens.Issuer
	gate   *tokens.Gate
	now    func() time.Time
}

// New returns a revoker.
func New(s Store, issuer *tokens.Issuer, gate *tokens.Gate, now func() time.Time) *Revoker {
	return &Revoker{s, issuer, gate, now}
}

// Revoke logs that everything of this level and id that was issued up to now
// is revoked. When it returns nil the entry is committed, and events with it.
func (r *Revoker) Revoke(ctx context.Context, level oauth.Level, id string, events ...store.AuditEvent) (oauth.Revocation, error) {
	now := r.now()
	entry := oauth.Revocation{Level: level, ID: id, Expires: r.tokens.Outlived(now)}
	switch level {
	case oauth.LevelIssuer, oauth.LevelClient, oauth.LevelSubject:
		entry.NotBefore = now.Truncate(time.Second)
		// Before the commit: between it and the note a token could be minted
		// that nobody would accept.
		r.gate.Note([]oauth.Revocation{entry})
	case oauth.LevelSession, oauth.LevelGrant, oauth.LevelToken:
	default:
		return entry, oauth.Refuse(oauth.InvalidRequest, "there is no such revocation level")
	}
	entry, err := r.store.Revoke(ctx, entry, now, events...)
	if err != nil {
		return entry, fmt.Errorf("revoke %s: %w", level, err)
	}
	return entry, nil
}

// EndSession ends a login session and what was granted in it.
func (r *Revoker) EndSession(ctx context.Context, id string, events ...store.AuditEvent) error {
	_, err := r.Revoke(ctx, oauth.LevelSession, id, events...)
	return err
}

// Withdraw takes back what a subject allowed a client: the consent, and every
// grant that came of it with its tokens.
func (r *Revoker) Withdraw(ctx context.Context, subject, clientID string, events ...store.AuditEvent) error {
	grants, err := r.store.WithdrawConsent(ctx, subject, clientID, r.now(), events...)
	if err != nil {
		return fmt.Errorf("withdraw a consent: %w", err)
	}
	for _, grant := range grants {
		if _, err := r.Revoke(ctx, oauth.LevelGrant, grant); err != nil {
			return err
		}
	}
	return nil
}
