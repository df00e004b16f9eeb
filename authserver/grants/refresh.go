package grants

import (
	"context"
	"errors"
	"fmt"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/unusual"
)

var errRefresh = oauth.Refuse(oauth.InvalidGrant, "the refresh token is not valid, has expired, was revoked, or is another client's")

// refresh spends a refresh token (RFC 6749, 6). Whatever else can be wrong
// with the request is found before the token is spent, so that a mistake does
// not cost the client its grant.
func (e *Endpoint) refresh(ctx context.Context, q *request) (*answer, error) {
	if q.form.Value("refresh_token") == "" {
		return nil, oauth.Refuse(oauth.InvalidRequest, "refresh_token is missing")
	}
	presented, ok := tokens.ParseRefresh(q.form.Value("refresh_token"))
	if !ok || !e.Tokens.Genuine(presented) {
		return nil, errRefresh
	}
	f, user, err := e.Store.FamilyAndUser(ctx, presented.Grant)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errRefresh
	case err != nil:
		return nil, oauth.Unavailable(fmt.Errorf("look up the grant: %w", err))
	case f.ClientID != q.client.ID:
		return nil, errRefresh
	}
	granted, audience, refusal := e.permitted(ctx, q, f, user)
	if refusal != nil && presented.Generation == f.Generation {
		return nil, refusal
	} // an older token is the store's to judge first, whatever else is wrong
	now, err := e.mintTime(ctx, f.ClientID, f.Subject)
	if err != nil {
		return nil, err
	}
	successor, next := e.Tokens.Refresh(presented.Grant, presented.Generation+1)
	reuse := e.Audit.Stamp(store.AuditEvent{
		Action: audit.RefreshReuse, Outcome: audit.Failure, Actor: audit.Client(q.client.ID), Client: q.client.ID,
		Subject: f.Subject, Grant: f.Grant, Session: f.Session, IP: q.ip,
	})
	f, replayed, err := e.Store.RotateRefresh(ctx, store.Rotation{
		Grant: presented.Grant, ClientID: q.client.ID, Presented: presented.Hash(), Next: next,
		Generation: presented.Generation, Now: now, IdleUntil: now.Add(e.RefreshIdle), Grace: e.Grace,
		TokenLife: e.Tokens.TTL(), OnReuse: []store.AuditEvent{reuse},
	})
	if err != nil {
		return nil, e.notRotated(ctx, q, f, reuse, err)
	}
	if err := e.Unusual.Refreshed(ctx, f, q.from, replayed); errors.Is(err, unusual.ErrEnded) {
		return nil, errRefresh
	} else if err != nil {
		return nil, oauth.Unavailable(fmt.Errorf("end an unusual grant: %w", err))
	}
	if refusal != nil {
		return nil, refusal
	}
	ans, err := e.mint(ctx, q, audit.TokenRefreshed, tokens.Access{
		Subject: f.Subject, ClientID: f.ClientID, Scope: join(granted), Audience: audience, Issued: now,
		Session: f.Session, Grant: f.Grant, ACR: f.ACR, AuthTime: f.AuthTime,
	})
	if err != nil {
		return nil, err
	}
	ans.RefreshToken = successor
	// Without the nonce, which belonged to the first answer (OIDC Core, 12.2).
	return ans, e.addID(ans, tokens.ID{
		Subject: f.Subject, ClientID: f.ClientID, ACR: f.ACR, Session: f.Session, Issued: now, AuthTime: f.AuthTime,
	})
}

// permitted returns the scopes and the audience of the new access token, which
// may be narrower than the family's, if the user is still there.
func (e *Endpoint) permitted(ctx context.Context, q *request, f store.Family, user store.User) (granted, audience []string, err error) {
	if _, err := e.Users.PresentRow(ctx, user); errors.Is(err, store.ErrNotFound) {
		return nil, nil, errRefresh
	} else if err != nil {
		return nil, nil, oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	if f.DPoPKey != "" && f.DPoPKey != q.key || f.Certificate != "" && f.Certificate != q.certificate {
		return nil, nil, errRefresh
	}
	if err := e.Limits.subject(f.Subject); err != nil {
		return nil, nil, err
	}
	still := e.Scopes.Still(f.Scopes, q.client.Scopes)
	granted = still
	if asked := q.form.Value("scope"); asked != "" {
		if granted, err = e.Scopes.Grant(asked, still); err != nil {
			return nil, nil, oauth.Refuse(oauth.InvalidScope, "a scope is beyond what was granted")
		}
	}
	audience, err = e.Scopes.Narrow(q.form.All("resource"), f.Resources, q.client.Resources)
	return granted, audience, err
}

// notRotated turns the store's answer into the client's. Reuse means that a
// token is in two hands.
func (e *Endpoint) notRotated(ctx context.Context, q *request, f store.Family, reuse store.AuditEvent, err error) error {
	switch {
	case errors.Is(err, store.ErrReuse):
		e.Observer.RefreshReuse()
		e.Audit.Line(ctx, reuse)
		if err := e.Unusual.Reused(ctx, f, q.from); err != nil && !errors.Is(err, unusual.ErrEnded) {
			return oauth.Unavailable(fmt.Errorf("end the session of a reused token: %w", err))
		}
		return errRefresh
	case errors.Is(err, store.ErrMismatch), errors.Is(err, store.ErrExpired),
		errors.Is(err, store.ErrUsed), errors.Is(err, store.ErrNotFound):
		return errRefresh
	}
	return oauth.Unavailable(fmt.Errorf("spend the refresh token: %w", err))
}
