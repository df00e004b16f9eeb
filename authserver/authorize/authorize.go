// Package authorize is the authorization endpoint: it checks a request, sends
// the user to sign in and to consent where that is needed, and answers the
// client with a code.
//
// It owns the decision what is needed. It does not own the pages (login,
// consent), which come back to it with a sealed interaction, nor the code's
// redemption (grants).
//
//	mux.Handle("/oauth/authorize", pages.Handler(authorize.New(config).Serve, timeout, "GET", "POST"))
package authorize

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/sender"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Store is the state that the endpoint needs.
type Store interface {
	AddCode(ctx context.Context, c store.Code) error
	Consent(ctx context.Context, subject, clientID string) (store.Consent, error)
	store.PushedRequests
}

// Config is what an Endpoint needs.
type Config struct {
	Issuer string
	// Path is that of the issuer.
	Path     string
	Clients  *clients.Registry
	Users    *users.Registry
	Scopes   *scopes.Catalogue
	Sessions *session.Manager
	Tokens   *tokens.Issuer
	Store    Store
	Audit    *audit.Log
	Now      func() time.Time
	CodeTTL  time.Duration
	Sender   *sender.Checker
	// RequirePAR refuses requests that were not pushed, of every client.
	RequirePAR bool
}

// Endpoint is the authorization endpoint. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// Serve answers an authorization request, or the return from a page.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, done, err := e.read(r)
	if err != nil {
		return err
	}
	from := origin{done.Pushed, done.Signed}
	if done.Query == "" {
		outer := form
		if form, from, err = e.resolve(ctx, form); err != nil {
			return e.unresolved(ctx, w, outer, err)
		}
	}
	q, err := e.target(ctx, form)
	if err != nil {
		return err
	}
	q.from = from
	if err := e.check(q, from); err != nil {
		return e.refuse(w, q, err)
	}
	query := form.Encode()
	if len(query) > maxQuery {
		return oauth.Refuse(oauth.InvalidRequest, "The request is too long.")
	}
	if done.Denied {
		return e.refuse(w, q, oauth.Refuse(oauth.AccessDenied, "the user did not allow it"))
	}

	s, err := e.signedIn(ctx, r)
	if err != nil {
		return err
	}
	if e.mustLogin(q, s, done) {
		return e.toLogin(w, r, q, s, query, done)
	}
	if !oauth.ACRMeets(s.ACR, q.acrs) { // who has just signed in cannot do it as is asked for (RFC 9470, 5)
		return e.refuse(w, q, oauth.Refuse(oauth.UnmetAuthentication, "the user has no such way to sign in"))
	}
	needed, err := e.mustConsent(ctx, q, s, done)
	if err != nil {
		return err
	}
	if needed {
		return e.toConsent(w, r, q, s, query, done)
	}
	code, err := e.issue(ctx, r, q, s)
	if errors.Is(err, store.ErrExpired) { // the session ended while we looked at it
		return e.toLogin(w, r, q, store.Session{}, query, session.Interaction{})
	}
	if err != nil {
		return err
	}
	web.Redirect(w, e.answer(q, "code", code, ""))
	return nil
}

// read returns the request's parameters, and what the pages found out if the
// request comes back from one.
func (e *Endpoint) read(r *http.Request) (web.Form, session.Interaction, error) {
	var done session.Interaction
	query := r.URL.RawQuery
	if r.Method == http.MethodPost {
		// OpenID Connect Core, 3.1.2.1 wants POST too. Going on as a query
		// makes both the same from here on.
		form, err := web.ParseBody(r)
		if err != nil {
			return nil, done, err
		}
		query = form.Encode()
	}
	if len(query) > 2*maxQuery {
		return nil, done, oauth.Refuse(oauth.InvalidRequest, "The request is too long.")
	}
	form, err := web.ParseQuery(query)
	if err != nil {
		return nil, done, err
	}
	if handle := form.Value("i"); handle != "" && r.Method == http.MethodGet {
		if done, err = e.Sessions.Open(e.Sessions.Browser(r), handle); err != nil {
			return nil, done, session.ErrOver
		}
		form, err = web.ParseQuery(done.Query)
	}
	return form, done, err
}

// unresolved answers a request whose signed object is not good: the client
// learns it where the rest of the request tells a place of the client's.
func (e *Endpoint) unresolved(ctx context.Context, w http.ResponseWriter, outer web.Form, err error) error {
	var refusal *oauth.Error
	if !errors.As(err, &refusal) || refusal.Code != oauth.InvalidRequestObject && refusal.Code != oauth.RequestURINotSupported {
		return err
	}
	q, unknown := e.target(ctx, outer)
	if unknown != nil {
		return err
	}
	return e.refuse(w, q, err)
}

// refuse sends an error back to the client, whose redirect URI is known to be
// its own.
func (e *Endpoint) refuse(w http.ResponseWriter, q *request, err error) error {
	var refusal *oauth.Error
	if !errors.As(err, &refusal) || refusal.Status >= http.StatusInternalServerError {
		return err
	}
	web.Redirect(w, e.answer(q, "error", refusal.Code, refusal.Description))
	return nil
}

// signedIn returns the browser's session, the zero one where there is none or
// its user is no more.
func (e *Endpoint) signedIn(ctx context.Context, r *http.Request) (store.Session, error) {
	s, err := e.Sessions.Current(ctx, r)
	if err == nil {
		_, err = e.Users.Present(ctx, s.Subject)
	}
	if errors.Is(err, store.ErrNotFound) {
		return store.Session{}, nil
	}
	if err != nil {
		return s, oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	return s, nil
}

// mustLogin decides whether the user has to sign in for this request.
func (e *Endpoint) mustLogin(q *request, s store.Session, done session.Interaction) bool {
	switch {
	case s.ID == "":
		return true
	case q.hint != "" && q.hint != s.Subject:
		return true
	case done.LoggedIn == s.ID:
		return false
	case q.prompts("login"), q.prompts("select_account"), !oauth.ACRMeets(s.ACR, q.acrs):
		return true
	}
	return q.maxAge >= 0 && e.Now().Sub(s.AuthTime) > time.Duration(q.maxAge)*time.Second
}

func (e *Endpoint) toLogin(w http.ResponseWriter, r *http.Request, q *request, s store.Session, query string, done session.Interaction) error {
	if q.prompts("none") {
		return e.refuse(w, q, oauth.Refuse(oauth.LoginRequired, "the user is not signed in, or not as is asked for"))
	}
	if s.ID != "" && done.LoggedIn == s.ID { // signed in just now, as somebody else than the hint says
		return e.refuse(w, q, oauth.Refuse(oauth.LoginRequired, "the user signed in as somebody else"))
	}
	return e.to(w, r, "login", session.Interaction{
		Query: query, Pushed: q.from.pushed, Signed: q.from.signed,
		ClientID: q.client.ID, ClientName: q.client.Title(), Redirect: q.redirect,
		Hint: q.form.Value("login_hint"), Locales: q.form.Value("ui_locales"),
	})
}

// mustConsent decides whether the user has to be asked. What was allowed once
// is remembered, but not for public clients, whose id anybody can use, and not
// for native ones (RFC 8252, 8.6).
func (e *Endpoint) mustConsent(ctx context.Context, q *request, s store.Session, done session.Interaction) (bool, error) {
	switch {
	case done.Consented == s.ID:
		return false, nil
	case q.prompts("consent"), q.client.Public():
		return true, nil
	case q.client.SkipConsent:
		return false, nil
	}
	c, err := e.Store.Consent(ctx, s.Subject, q.client.ID)
	if errors.Is(err, store.ErrNotFound) {
		return true, nil
	}
	if err != nil {
		return true, oauth.Unavailable(fmt.Errorf("look up the consent: %w", err))
	}
	for _, scope := range q.scopes {
		if !slices.Contains(c.Scopes, scope) {
			return true, nil
		}
	}
	return false, nil
}

func (e *Endpoint) toConsent(w http.ResponseWriter, r *http.Request, q *request, s store.Session, query string, done session.Interaction) error {
	if q.prompts("none") {
		return e.refuse(w, q, oauth.Refuse(oauth.ConsentRequired, "the user has to allow this first"))
	}
	return e.to(w, r, "consent", session.Interaction{
		Query: query, Pushed: q.from.pushed, Signed: q.from.signed,
		ClientID: q.client.ID, ClientName: q.client.Title(), Redirect: q.redirect,
		Scopes: q.scopes, Session: s.ID, LoggedIn: done.LoggedIn, Locales: q.form.Value("ui_locales"),
	})
}

// to sends the browser to a page.
func (e *Endpoint) to(w http.ResponseWriter, r *http.Request, page string, i session.Interaction) error {
	handle, err := e.Sessions.Seal(e.Sessions.EnsureBrowser(w, r), i)
	if err != nil {
		return oauth.Failed(err)
	}
	web.Redirect(w, e.Path+"/oauth/"+page+"?i="+handle)
	return nil
}

// issue stores a code bound to everything that the request said.
func (e *Endpoint) issue(ctx context.Context, r *http.Request, q *request, s store.Session) (string, error) {
	code, hash := tokens.NewCode()
	grant := tokens.NewGrant()
	err := e.Store.AddCode(ctx, store.Code{
		Hash: hash, ClientID: q.client.ID, RedirectURI: q.redirect, Challenge: q.challenge, Nonce: q.nonce,
		Scopes: q.scopes, Resources: q.resources, Subject: s.Subject, Session: s.ID, Grant: grant,
		ACR: s.ACR, AuthTime: s.AuthTime, Expires: e.Now().Add(e.CodeTTL),
		DPoPKey: q.key,
	})
	if errors.Is(err, store.ErrExpired) {
		return "", err
	}
	if err != nil {
		return "", oauth.Unavailable(fmt.Errorf("store the code: %w", err))
	}
	e.Audit.Queue(ctx, store.AuditEvent{
		Action: audit.CodeIssued, Outcome: audit.Success, Actor: audit.User(s.Subject), Client: q.client.ID,
		Subject: s.Subject, Grant: grant, Session: s.ID, IP: web.ClientAddress(r),
	})
	return code, nil
}
