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
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
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

// View is the revocation log as this process follows it.
type View interface {
	// Revoked reports whether an entry revokes the token. While the view is not
	// current it may lack entries that the store holds.
	Revoked(t *tokens.Access) (revoked, current bool)
}

// Config is what an Endpoint needs.
type Config struct {
	Issuer  string
	Clients *clients.Registry
	Users   *users.Registry
	Scopes  *scopes.Catalogue
	Tokens  *tokens.Issuer
	Store   Store
	// View spares the store questions about access tokens; nil: it is asked
	// about each.
	View View
	Now  func() time.Time
}

// Endpoint is the introspection endpoint. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// answer is the response.
type answer struct {
	Active                            bool
	Scope, ClientID, TokenType        string
	Expires, Issued                   int64
	Subject, Issuer, ID, Session, ACR string
	Audience                          []string
	AuthTime                          int64
	Actor                             *tokens.Actor
	DPoPKey, Certificate              string
}

// MarshalJSON is the response of RFC 7662, 2.2: `act` is of RFC 8693, 4.1, and
// `cnf` lets a resource server check the binding itself (RFC 9449, 6.2; RFC
// 8705, 3.2).
func (a answer) MarshalJSON() ([]byte, error) {
	if !a.Active {
		return []byte(`{"active":false}`), nil
	}
	b := append(make([]byte, 0, 512), `{"active":true`...)
	b = oauth.AppendMember(b, `,"scope":`, a.Scope)
	b = oauth.AppendMember(b, `,"client_id":`, a.ClientID)
	b = oauth.AppendMember(b, `,"token_type":`, a.TokenType)
	b = appendTime(b, `,"exp":`, a.Expires)
	b = appendTime(b, `,"iat":`, a.Issued)
	b = oauth.AppendMember(b, `,"sub":`, a.Subject)
	for i, audience := range a.Audience {
		if i == 0 {
			b = append(b, `,"aud":[`...)
		} else {
			b = append(b, ',')
		}
		b = oauth.AppendString(b, audience)
	}
	if len(a.Audience) > 0 {
		b = append(b, ']')
	}
	b = oauth.AppendMember(b, `,"iss":`, a.Issuer)
	b = oauth.AppendMember(b, `,"jti":`, a.ID)
	b = oauth.AppendMember(b, `,"sid":`, a.Session)
	b = oauth.AppendMember(b, `,"acr":`, a.ACR)
	b = appendTime(b, `,"auth_time":`, a.AuthTime)
	if a.Actor != nil {
		actor, err := json.Marshal(a.Actor)
		if err != nil {
			return nil, err
		}
		b = append(append(b, `,"act":`...), actor...)
	}
	return append(tokens.AppendConfirmation(b, a.DPoPKey, a.Certificate), '}'), nil
}

func appendTime(b []byte, name string, seconds int64) []byte {
	if seconds == 0 {
		return b
	}
	return strconv.AppendInt(append(b, name...), seconds, 10)
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
	body, err := a.MarshalJSON()
	if err != nil {
		return oauth.Failed(err)
	}
	web.WriteBody(w, http.StatusOK, body)
	return nil
}

func (e *Endpoint) access(ctx context.Context, c *clients.Client, token string) (answer, error) {
	t, err := e.Tokens.ParseAccess(token)
	if err != nil || !e.mayKnow(c, t) {
		return answer{}, nil
	}
	if live, err := e.live(ctx, &t); err != nil || !live {
		return answer{}, err
	}
	a := answer{
		Active: true, Scope: t.Scope, ClientID: t.ClientID, TokenType: "Bearer", Expires: t.Expires.Unix(),
		Issued: t.Issued.Unix(), Subject: t.Subject, Audience: t.Audience, Issuer: e.Issuer, ID: t.ID,
		Session: t.Session, ACR: t.ACR, Actor: t.Actor, DPoPKey: t.DPoPKey, Certificate: t.Certificate,
	}
	if t.DPoPKey != "" {
		a.TokenType = "DPoP"
	}
	if !t.AuthTime.IsZero() {
		a.AuthTime = t.AuthTime.Unix()
	}
	return a, nil
}

// live reports whether nothing that the token depends on was revoked: from
// memory where that is as good as the store.
func (e *Endpoint) live(ctx context.Context, t *tokens.Access) (bool, error) {
	if e.View != nil {
		if revoked, current := e.View.Revoked(t); revoked || current {
			return !revoked, nil
		}
	}
	return e.Tokens.Live(ctx, *t)
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
