package grants

import (
	"context"
	"errors"
	"fmt"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

var errDevice = oauth.Refuse(oauth.InvalidGrant, "the device code is not valid, was used, or belongs to another client")

// device answers a poll with a device code (RFC 8628, 3.4).
func (e *Endpoint) device(ctx context.Context, q *request) (*answer, error) {
	if q.form.Value("device_code") == "" {
		return nil, oauth.Refuse(oauth.InvalidRequest, "device_code is missing")
	}
	hash, ok := tokens.DeviceCodeHash(q.form.Value("device_code"))
	if !ok {
		return nil, errDevice
	}
	now := e.Now()
	d, soon, err := e.Store.PollDevice(ctx, hash, q.client.ID, now)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, errDevice
	case err != nil:
		return nil, oauth.Unavailable(fmt.Errorf("poll the device code: %w", err))
	case !d.Used.IsZero():
		return nil, errDevice
	case !now.Before(d.Expires):
		return nil, oauth.Refuse(oauth.ExpiredToken, "the device code has expired: start again")
	case d.Denied:
		return nil, oauth.Refuse(oauth.AccessDenied, "the user did not allow it")
	case d.Decided.IsZero() && soon:
		return nil, oauth.Refuse(oauth.SlowDown, "wait five seconds longer between two requests from now on")
	case d.Decided.IsZero():
		return nil, oauth.Refuse(oauth.AuthorizationPending, "the user has not decided yet")
	}
	return e.redeemDevice(ctx, q, d)
}

func (e *Endpoint) redeemDevice(ctx context.Context, q *request, d store.Device) (*answer, error) {
	if _, err := e.Users.User(ctx, d.Subject); errors.Is(err, store.ErrNotFound) {
		return nil, errDevice
	} else if err != nil {
		return nil, oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	audience, err := e.Scopes.Narrow(q.form.All("resource"), d.Resources, q.client.Resources)
	if err != nil {
		return nil, err
	}
	if err := e.Limits.subject(d.Subject); err != nil {
		return nil, err
	}
	now, err := e.mintTime(ctx, d.ClientID, d.Subject)
	if err != nil {
		return nil, err
	}
	session := grantSession(d.Scopes, d.Session)
	var family *store.Family
	var refreshToken string
	if q.client.MayUse(clients.GrantRefresh) {
		family = &store.Family{
			Grant: d.Grant, ClientID: d.ClientID, Subject: d.Subject, Session: session,
			Scopes: d.Scopes, Resources: d.Resources, ACR: d.ACR, AuthTime: d.AuthTime,
			Created: now, Rotated: now, Expires: now.Add(e.RefreshTTL), IdleUntil: now.Add(e.RefreshIdle), Generation: 1,
		}
		q.hold(family)
		refreshToken, family.Hash = e.Tokens.Refresh(d.Grant, 1)
	}
	switch err := e.Store.ConsumeDevice(ctx, d.Hash, now, family); {
	case errors.Is(err, store.ErrUsed), errors.Is(err, store.ErrExpired), errors.Is(err, store.ErrNotFound):
		return nil, errDevice
	case err != nil:
		return nil, oauth.Unavailable(fmt.Errorf("redeem the device code: %w", err))
	}
	ans, err := e.mint(ctx, q, audit.TokenIssued, tokens.Access{
		Subject: d.Subject, ClientID: d.ClientID, Scope: join(d.Scopes), Audience: audience, Issued: now,
		Session: session, Grant: d.Grant, ACR: d.ACR, AuthTime: d.AuthTime,
	})
	if err != nil {
		return nil, err
	}
	ans.RefreshToken = refreshToken
	return ans, e.addID(ans, tokens.ID{
		Subject: d.Subject, ClientID: d.ClientID, ACR: d.ACR, Session: d.Session, Issued: now, AuthTime: d.AuthTime,
	})
}
