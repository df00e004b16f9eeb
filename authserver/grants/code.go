package grants

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

// maxAttempts is how many wrong redemptions a code survives. One would let
// anybody who saw the code spoil it; without a bound it could be tried for ever.
const maxAttempts = 3

var errCode = oauth.Refuse(oauth.InvalidGrant, "the code is not valid, was used, or belongs to another request")

// code redeems an authorization code (RFC 6749, 4.1.3; RFC 7636, 4.6). What
// the code is bound to is checked before the code is touched: only a
// redemption that is right in everything can spend it or, if it was spent
// before, revoke what came of it.
func (e *Endpoint) code(ctx context.Context, q *request) (*answer, error) {
	verifier := q.form.Value("code_verifier")
	switch {
	case q.form.Value("code") == "":
		return nil, oauth.Refuse(oauth.InvalidRequest, "code is missing")
	case verifier == "":
		return nil, oauth.Refuse(oauth.InvalidGrant, "code_verifier is missing: PKCE is required")
	}
	hash, ok := tokens.CodeHash(q.form.Value("code"))
	if !ok {
		return nil, errCode
	}
	c, err := e.Store.Code(ctx, hash)
	if errors.Is(err, store.ErrNotFound) {
		return nil, errCode
	}
	if err != nil {
		return nil, oauth.Unavailable(fmt.Errorf("look up the code: %w", err))
	}
	if c.Attempts >= maxAttempts {
		return nil, errCode
	}
	if !bound(c, q, verifier) {
		if _, err := e.Store.FailCode(ctx, hash); err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, oauth.Unavailable(fmt.Errorf("count a wrong redemption: %w", err))
		}
		return nil, errCode
	}
	if !c.Used.IsZero() {
		return nil, e.replayed(ctx, q, c)
	}
	return e.redeem(ctx, q, c)
}

// bound reports whether the request is the one that the code was made for. A
// redirect URI may be left out, since PKCE binds the request already (OAuth
// 2.1 removed the parameter), but one that is there must be right.
func bound(c store.Code, q *request, verifier string) bool {
	if c.ClientID != q.client.ID || c.Challenge == "" || !validVerifier(verifier) {
		return false
	}
	if uri := q.form.Value("redirect_uri"); uri != "" && uri != c.RedirectURI {
		return false
	}
	if c.DPoPKey != "" && c.DPoPKey != q.key { // RFC 9449, 10
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	return subtle.ConstantTimeCompare([]byte(challenge), []byte(c.Challenge)) == 1
}

// validVerifier checks the syntax of RFC 7636, 4.1.
func validVerifier(v string) bool {
	if len(v) < 43 || len(v) > 128 {
		return false
	}
	for i := range len(v) {
		switch c := v[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
		default:
			return false
		}
	}
	return true
}

// replayed revokes what the first redemption gave (RFC 9700, 4.5.3).
func (e *Endpoint) replayed(ctx context.Context, q *request, c store.Code) error {
	now := e.Now()
	event := store.AuditEvent{
		Action: audit.CodeReplayed, Outcome: audit.Failure, Actor: audit.Client(q.client.ID), Client: q.client.ID,
		Subject: c.Subject, Grant: c.Grant, Session: c.Session, IP: q.ip,
	}
	if err := e.Audit.With(ctx, event, func(event store.AuditEvent) error {
		return e.Store.RevokeGrant(ctx, c.Grant, now, e.Tokens.Outlived(now), event)
	}); err != nil {
		return oauth.Unavailable(fmt.Errorf("revoke the grant of a replayed code: %w", err))
	}
	return errCode
}

func (e *Endpoint) redeem(ctx context.Context, q *request, c store.Code) (*answer, error) {
	if _, err := e.Users.User(ctx, c.Subject); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return nil, errCode
		}
		return nil, oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	audience, err := e.Scopes.Narrow(q.form.All("resource"), c.Resources, q.client.Resources)
	if err != nil {
		return nil, err
	}
	if err := e.Limits.subject(c.Subject); err != nil {
		return nil, err
	}
	now, err := e.mintTime(ctx, c.ClientID, c.Subject)
	if err != nil {
		return nil, err
	}
	var family *store.Family
	var refreshToken string
	if q.client.MayUse(clients.GrantRefresh) {
		family = &store.Family{
			Grant: c.Grant, ClientID: c.ClientID, Subject: c.Subject, Session: grantSession(c.Scopes, c.Session),
			Scopes: c.Scopes, Resources: c.Resources, ACR: c.ACR, Nonce: c.Nonce, AuthTime: c.AuthTime,
			Created: now, Rotated: now, Expires: now.Add(e.RefreshTTL), IdleUntil: now.Add(e.RefreshIdle), Generation: 1,
		}
		q.hold(family)
		refreshToken, family.Hash = e.Tokens.Refresh(c.Grant, 1)
	}
	switch err := e.Store.ConsumeCode(ctx, c.Hash, now, family); {
	case errors.Is(err, store.ErrUsed):
		return nil, e.replayed(ctx, q, c)
	case errors.Is(err, store.ErrExpired), errors.Is(err, store.ErrNotFound):
		return nil, errCode
	case err != nil:
		return nil, oauth.Unavailable(fmt.Errorf("redeem the code: %w", err))
	}
	ans, err := e.mint(ctx, q, audit.TokenIssued, tokens.Access{
		Subject: c.Subject, ClientID: c.ClientID, Scope: join(c.Scopes), Audience: audience, Issued: now,
		Session: grantSession(c.Scopes, c.Session), Grant: c.Grant, ACR: c.ACR, AuthTime: c.AuthTime,
	})
	if err != nil {
		return nil, err
	}
	ans.RefreshToken = refreshToken
	return ans, e.addID(ans, tokens.ID{
		Subject: c.Subject, ClientID: c.ClientID, Nonce: c.Nonce, ACR: c.ACR, Session: c.Session,
		Issued: now, AuthTime: c.AuthTime,
	})
}

// grantSession is the session that the grant ends with; offline access is what
// outlives it (OpenID Connect Core, 11).
func grantSession(granted []string, session string) string {
	if slices.Contains(granted, scopes.OfflineAccess) {
		return ""
	}
	return session
}
