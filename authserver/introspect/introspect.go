// Package introspect tells a client about a token (RFC 7662).
//
// It owns who may learn what: about the client's own tokens, about those whose
// audience the client is, and, for a client with the scope
// gatehouse:introspect, about those for any audience of this server. Every
// other token is just not active.
//
//	mux.Handle("/oauth/introspect", api.Handler(introspect.New(config).Serve, http.MethodPost))
package introspect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Store is the state that the endpoint needs.
type Store interface {
	Family(ctx context.Context, grant string) (store.Family, error)
}

// Config is what an Endpoint needs.
type Config struct {
	Issuer  string
	Clients *clients.Registry
	Users   *users.Registry
	Scopes  *scopes.Catalogue
	Tokens  *tokens.Issuer
	Store   Store
	Now     func() time.Time
}

// Endpoint is the introspection endpoint. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// answer is the response (RFC 7662, 2.2).
type answer struct {
	Active    bool     `json:"active"`
	Scope     string   `json:"scope,omitempty"`
	ClientID  string   `json:"client_id,omitempty"`
	TokenType string   `json:"token_type,omitempty"`
	Expires   int64    `json:"exp,omitempty"`
	Issued    int64    `json:"iat,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Audience  []string `json:"aud,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	ID        string   `json:"jti,omitempty"`
	Session   string   `json:"sid,omitempty"`
	ACR       string   `json:"acr,omitempty"`
	AuthTime  int64    `json:"auth_time,omitempty"`
	// Actor is who acts for the subject (RFC 8693, 4.1).
	Actor *tokens.Actor `json:"act,omitempty"`
	// Confirm lets a resource server check the binding itself (RFC 9449, 6.2;
	// RFC 8705, 3.2).
	Confirm *confirm `json:"cnf,omitempty"`
}

type confirm struct {
	Key         string `json:"jkt,omitempty"`
	Certificate string `json:"x5t#S256,omitempty"`
}

// Serve answers an introspection request.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	c, attempt, err := e.Clients.Authenticate(r, form)
	if err != nil {
		return err
	}
	if c.Public() {
		refusal := oauth.Refuse(oauth.InvalidClient, "introspection needs a client that proves who it is")
		refusal.Basic = attempt.Method == "client_secret_basic"
		return refusal
	}
	token := form.Value("token")
	if token == "" {
		return oauth.Refuse(oauth.InvalidRequest, "token is missing")
	}
	var a answer
	if refresh, ok := tokens.ParseRefresh(token); ok {
		a, err = e.refresh(r.Context(), c, refresh)
	} else {
		a, err = e.access(r.Context(), c, token)
	}
	if err != nil {
		return err
	}
	w.Header().Add("Vary", "Accept")
	if wantsSigned(r) {
		return e.writeSigned(w, c.ID, a)
	}
	web.WriteJSON(w, http.StatusOK, a)
	return nil
}

func (e *Endpoint) access(ctx context.Context, c *clients.Client, token string) (answer, error) {
	t, err := e.Tokens.ParseAccess(token)
	if err != nil || !e.mayKnow(c, t) {
		return answer{}, nil
	}
	live, err := e.Tokens.Live(ctx, t)
	if err != nil || !live {
		return answer{}, err
	}
	a := answer{
		Active: true, Scope: t.Scope, ClientID: t.ClientID, TokenType: "Bearer", Expires: t.Expires.Unix(),
		Issued: t.Issued.Unix(), Subject: t.Subject, Audience: t.Audience, Issuer: e.Issuer, ID: t.ID,
		Session: t.Session, ACR: t.ACR, Actor: t.Actor,
	}
	if t.DPoPKey != "" {
		a.TokenType = "DPoP"
	}
	if t.DPoPKey != "" || t.Certificate != "" {
		a.Confirm = &confirm{t.DPoPKey, t.Certificate}
	}
	if !t.AuthTime.IsZero() {
		a.AuthTime = t.AuthTime.Unix()
	}
	return a, nil
}

func (e *Endpoint) mayKnow(c *clients.Client, t tokens.Access) bool {
	if t.ClientID == c.ID || slices.Contains(t.Audience, c.ID) {
		return true
	}
	return c.MayAsk(scopes.Introspect) && slices.ContainsFunc(t.Audience, e.Scopes.Resource)
}

// refresh answers about a refresh token, to its own client only.
func (e *Endpoint) refresh(ctx context.Context, c *clients.Client, t tokens.Refresh) (answer, error) {
	if !e.Tokens.Genuine(t) {
		return answer{}, nil
	}
	f, err := e.Store.Family(ctx, t.Grant)
	if errors.Is(err, store.ErrNotFound) {
		return answer{}, nil
	}
	if err != nil {
		return answer{}, oauth.Unavailable(fmt.Errorf("look up the grant: %w", err))
	}
	now := e.Now()
	if f.ClientID != c.ID || f.Hash != t.Hash() || !f.Revoked.IsZero() || !now.Before(f.Expires) || !now.Before(f.IdleUntil) {
		return answer{}, nil
	}
	switch _, err := e.Users.User(ctx, f.Subject); {
	case errors.Is(err, store.ErrNotFound):
		return answer{}, nil
	case err != nil:
		return answer{}, oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	end := f.Expires
	if f.IdleUntil.Before(end) {
		end = f.IdleUntil
	}
	return answer{
		Active: true, Scope: strings.Join(f.Scopes, " "), ClientID: f.ClientID, Expires: end.Unix(),
		Subject: f.Subject, Issuer: e.Issuer, Session: f.Session,
	}, nil
}
