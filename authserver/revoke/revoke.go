// Package revoke lets a client give a token back (RFC 7009).
//
// It owns what the kinds of token mean here: a refresh token is its whole
// grant, an access token itself alone. Whether anything was revoked is never
// told.
//
//	mux.Handle("/oauth/revoke", api.Handler(revoke.New(config).Serve, http.MethodPost))
package revoke

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Store is the state that the endpoint needs.
type Store interface {
	Family(ctx context.Context, grant string) (store.Family, error)
	RevokeGrant(ctx context.Context, grant string, now, expires time.Time, events ...store.AuditEvent) error
}

// Revoker logs revocations.
type Revoker interface {
	Revoke(ctx context.Context, level oauth.Level, id string, events ...store.AuditEvent) (oauth.Revocation, error)
}

// Config is what an Endpoint needs.
type Config struct {
	Clients *clients.Registry
	Tokens  *tokens.Issuer
	Store   Store
	Revoker Revoker
	Audit   *audit.Log
	Now     func() time.Time
}

// Endpoint is the revocation endpoint. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// Serve answers a revocation request. 200 means that the token is worth
// nothing any more, or that it was nothing of this client's.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	c, _, err := e.Clients.Authenticate(r, form)
	if err != nil {
		return err
	}
	token := form.Value("token")
	if token == "" {
		return oauth.Refuse(oauth.InvalidRequest, "token is missing")
	}
	event := store.AuditEvent{
		Action: audit.TokenRevoked, Outcome: audit.Success, Actor: audit.Client(c.ID), Client: c.ID,
		IP: web.ClientAddress(r),
	}
	if refresh, ok := tokens.ParseRefresh(token); ok {
		err = e.refresh(r.Context(), c, refresh, event)
	} else {
		err = e.access(r.Context(), c, token, event)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (e *Endpoint) refresh(ctx context.Context, c *clients.Client, t tokens.Refresh, event store.AuditEvent) error {
	if !e.Tokens.Genuine(t) {
		return nil
	}
	f, err := e.Store.Family(ctx, t.Grant)
	if errors.Is(err, store.ErrNotFound) || err == nil && f.ClientID != c.ID {
		return nil
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the grant: %w", err))
	}
	now := e.Now()
	event.Subject, event.Grant, event.Session = f.Subject, f.Grant, f.Session
	if err := e.Audit.With(ctx, event, func(event store.AuditEvent) error {
		return e.Store.RevokeGrant(ctx, f.Grant, now, e.Tokens.Outlived(now), event)
	}); err != nil {
		return oauth.Unavailable(fmt.Errorf("revoke the grant: %w", err))
	}
	return nil
}

func (e *Endpoint) access(ctx context.Context, c *clients.Client, token string, event store.AuditEvent) error {
	t, err := e.Tokens.ParseAccess(token)
	if err != nil || t.ClientID != c.ID {
		return nil
	}
	event.Subject, event.Grant, event.Session = t.Subject, t.Grant, t.Session
	if err := e.Audit.With(ctx, event, func(event store.AuditEvent) error {
		_, err := e.Revoker.Revoke(ctx, oauth.LevelToken, t.ID, event)
		return err
	}); err != nil {
		return oauth.Unavailable(err)
	}
	return nil
}
