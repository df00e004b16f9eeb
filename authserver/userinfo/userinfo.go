// Package userinfo tells an application about its user (OpenID Connect Core,
// 5.3).
//
// It owns which scope shows what. Names and addresses are here and in no
// access token.
//
//	mux.Handle("/oauth/userinfo", api.Handler(userinfo.New(config).Serve, http.MethodGet, http.MethodPost))
package userinfo

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/sender"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Config is what an Endpoint needs.
type Config struct {
	Issuer string
	Users  *users.Registry
	Scopes *scopes.Catalogue
	Tokens *tokens.Issuer
	Sender *sender.Checker
}

// Endpoint is the userinfo endpoint. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

type answer struct {
	Subject  string `json:"sub"`
	Name     string `json:"name,omitempty"`
	Username string `json:"preferred_username,omitempty"`
	Email    string `json:"email,omitempty"`
	Verified *bool  `json:"email_verified,omitempty"`
}

// Serve answers the holder of an access token with the scope openid.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	fields := r.Header["Authorization"]
	if len(fields) == 0 { // RFC 6750, 3.1: nothing more for who tried nothing
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+e.Issuer+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		return nil
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	isDPoP := strings.EqualFold(scheme, "DPoP")
	if len(fields) > 1 || !isDPoP && !strings.EqualFold(scheme, "Bearer") {
		return oauth.Refuse(oauth.InvalidRequest, "one access token is needed, as Bearer or DPoP")
	}
	token = strings.TrimLeft(token, " ")
	invalid := oauth.Refuse(oauth.InvalidToken, "the access token is not valid")
	t, err := e.Tokens.ParseAccess(token)
	if err != nil || !slices.ContainsFunc(t.Audience, e.Scopes.Resource) {
		return invalid
	}
	if err := e.Sender.Holds(w, r, e.Issuer+"/oauth/userinfo", isDPoP, token, t); err != nil {
		return err
	}
	live, err := e.Tokens.Live(r.Context(), t)
	if err != nil {
		return err
	}
	if !live {
		return invalid
	}
	if !tokens.HasScope(t.Scope, scopes.OpenID) {
		return oauth.Refuse(oauth.InsufficientScope, "the scope openid is needed")
	}
	u, err := e.Users.User(r.Context(), t.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return invalid
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	a := answer{Subject: u.Subject}
	if tokens.HasScope(t.Scope, scopes.Profile) {
		a.Name, a.Username = u.DisplayName, u.Name
	}
	if tokens.HasScope(t.Scope, scopes.Email) {
		a.Email = u.Email
		if u.Email != "" {
			a.Verified = &u.EmailVerified
		}
	}
	web.WriteJSON(w, http.StatusOK, a)
	return nil
}
