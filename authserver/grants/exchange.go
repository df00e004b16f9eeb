package grants

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

// Token types of RFC 8693, 3. Tokens of this server are both.
const (
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT         = "urn:ietf:params:oauth:token-type:jwt"
)

// maxActors bounds a chain of delegations, and with it the token's size.
const maxActors = 4

// exchange gives a client a token for what stands behind another token of this
// server (RFC 8693): with the same subject, for another audience, never with
// more scopes, and never for longer. Nothing is allowed that the client's
// policy does not name. What ends the grant or session of the token presented
// ends the new one too.
func (e *Endpoint) exchange(ctx context.Context, q *request) (*answer, error) {
	policy := q.client.Exchange
	if policy == nil || q.client.Public() {
		return nil, oauth.Refuse(oauth.UnauthorizedClient, "token exchange is not allowed to the client")
	}
	f := q.form
	for _, name := range []string{"subject_token_type", "requested_token_type", "actor_token_type"} {
		if v := f.Value(name); v != "" && v != typeAccessToken && v != typeJWT {
			return nil, oauth.Refuse(oauth.InvalidRequest, name+" is not one that exists here: only access tokens do")
		}
	}
	subject, err := e.presented(ctx, f.Value("subject_token"), f.Value("subject_token_type"), "subject_token")
	if err != nil {
		return nil, err
	}
	if from := policy.SubjectTokensFrom; !slices.Contains(from, subject.ClientID) && !slices.Contains(from, "*") {
		return nil, oauth.Refuse(oauth.InvalidRequest, "the client may not exchange tokens of that client")
	}
	actor, err := e.actor(ctx, q, subject)
	if err != nil {
		return nil, err
	}
	granted, err := e.exchangeScopes(q, subject)
	if err != nil {
		return nil, err
	}
	audience, err := e.exchangeAudience(q, subject)
	if err != nil {
		return nil, err
	}
	// The time comes before the look for revocations, so that one in between
	// catches the new token.
	now, err := e.mintTime(ctx, q.client.ID, subject.Subject)
	if err != nil {
		return nil, err
	}
	if live, err := e.Tokens.Live(ctx, subject); err != nil {
		return nil, err
	} else if !live || !now.Before(subject.Expires) {
		return nil, errPresented("subject_token")
	}
	ans, err := e.mint(ctx, q, audit.TokenExchanged, tokens.Access{
		Subject: subject.Subject, ClientID: q.client.ID, Scope: join(granted), Audience: audience, Issued: now,
		Session: subject.Session, Grant: subject.Grant, ACR: subject.ACR, AuthTime: subject.AuthTime,
		Actor: actor, NotAfter: subject.Expires,
	})
	if err != nil {
		return nil, err
	}
	ans.IssuedTokenType = typeAccessToken
	return ans, nil
}

func errPresented(name string) error {
	return oauth.Refuse(oauth.InvalidRequest, name+" is not a live access token of this server")
}

// presented reads a token that came as a parameter, and looks whether who it
// is about is still there.
func (e *Endpoint) presented(ctx context.Context, token, kind, name string) (tokens.Access, error) {
	if token == "" || kind == "" {
		return tokens.Access{}, oauth.Refuse(oauth.InvalidRequest, name+" or its type is missing")
	}
	t, err := e.Tokens.ParseAccess(token)
	if err != nil {
		return t, errPresented(name)
	}
	live, err := e.Tokens.Live(ctx, t)
	if err != nil {
		return t, err
	}
	if !live {
		return t, errPresented(name)
	}
	if _, err = e.Clients.Client(ctx, t.ClientID); err == nil && !strings.HasPrefix(t.Subject, clientSubject) {
		_, err = e.Users.User(ctx, t.Subject)
	}
	if errors.Is(err, store.ErrNotFound) {
		return t, errPresented(name)
	}
	if err != nil {
		return t, oauth.Unavailable(fmt.Errorf("look up who %s is about: %w", name, err))
	}
	return t, nil
}

// actor is who acts for the subject from now on (RFC 8693, 4.1): with
// delegation the client, or whoever its actor token is about; without, nobody
// new, and who acted before stays visible.
func (e *Endpoint) actor(ctx context.Context, q *request, subject tokens.Access) (*tokens.Actor, error) {
	token, kind := q.form.Value("actor_token"), q.form.Value("actor_token_type")
	if !q.client.Exchange.Delegation {
		if token != "" || kind != "" {
			return nil, oauth.Refuse(oauth.InvalidRequest, "the client may not delegate: actor_token is not allowed")
		}
		return subject.Actor, nil
	}
	actor := &tokens.Actor{Subject: clientSubject + q.client.ID, Actor: subject.Actor}
	if token != "" || kind != "" {
		t, err := e.presented(ctx, token, kind, "actor_token")
		if err != nil {
			return nil, err
		}
		if t.ClientID != q.client.ID {
			return nil, oauth.Refuse(oauth.InvalidRequest, "actor_token was not issued to the client")
		}
		actor.Subject = t.Subject
	}
	if actor.Depth() > maxActors {
		return nil, oauth.Refuse(oauth.InvalidRequest, "the chain of delegations is too long")
	}
	return actor, nil
}

// exchangeScopes are those of the token presented that the client and its
// policy may have, or fewer. What opens this server itself is never passed on,
// and there is no refresh token that offline_access could be about.
func (e *Endpoint) exchangeScopes(q *request, subject tokens.Access) ([]string, error) {
	allowed := scopes.Personal(q.client.Scopes)
	allowed = slices.DeleteFunc(allowed, func(s string) bool {
		return s == scopes.OfflineAccess || q.client.Exchange.Scopes != nil && !slices.Contains(q.client.Exchange.Scopes, s)
	})
	left := e.Scopes.Still(strings.Fields(subject.Scope), allowed)
	asked := q.form.Value("scope")
	if asked == "" {
		return left, nil
	}
	granted, err := e.Scopes.Grant(asked, left)
	if err != nil {
		return nil, oauth.Refuse(oauth.InvalidScope, "a scope is beyond the token presented, or not allowed to the client")
	}
	return granted, nil
}

// exchangeAudience is what resource and audience name. Both are names of
// resource servers here. Without either it is the token's own audience, as far
// as the policy allows it.
func (e *Endpoint) exchangeAudience(q *request, subject tokens.Access) ([]string, error) {
	asked := append(q.form.All("resource"), q.form.All("audience")...)
	policy := q.client.Exchange.Audiences
	if len(policy) == 0 {
		policy = subject.Audience
	}
	if len(asked) == 0 {
		for _, a := range subject.Audience {
			if slices.Contains(policy, a) {
				asked = append(asked, a)
			}
		}
	}
	if len(asked) == 0 {
		return nil, oauth.Refuse(oauth.InvalidTarget, "name the audience: the token's own is not allowed to the client")
	}
	return e.Scopes.Narrow(asked, policy, q.client.Resources)
}
