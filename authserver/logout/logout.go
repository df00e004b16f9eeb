// Package logout ends a browser's session, at the wish of the person or of an
// application (OpenID Connect RP-Initiated Logout 1.0).
//
// It owns when the person has to be asked and where the browser goes then. It
// does not own what else ends with a session: that is the store's revocation.
//
//	mux.Handle("/oauth/logout", pages.Handler(logout.New(config).Serve, timeout, "GET", "POST"))
package logout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Revoker ends sessions.
type Revoker interface {
	EndSession(ctx context.Context, id string, events ...store.AuditEvent) error
}

// Config is what an Endpoint needs.
type Config struct {
	// Path is that of the issuer.
	Path     string
	Pages    *web.Pages
	Guard    *web.Guard
	Sessions *session.Manager
	Clients  *clients.Registry
	Tokens   *tokens.Issuer
	Revoker  Revoker
	Audit    *audit.Log
}

// Endpoint is the end_session_endpoint. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// question is what the page shows before it signs out.
type question struct {
	CSRF     string `json:"-"`
	ClientID string `json:"client_id,omitempty"`
	Redirect string `json:"post_logout_redirect_uri,omitempty"`
	State    string `json:"state,omitempty"`
}

// Samples are the pages in all their states.
func Samples() []web.Page {
	return []web.Page{
		{Name: "logout", Data: question{"c", "app", "https://app.example.com/", "s"}},
		{Name: "signedout"},
	}
}

// request is a logout request whose parameters were checked.
type request struct {
	hint     tokens.Hint
	clientID string
	redirect string // registered, or ""
	state    string
}

// belongs reports whether the hint is of the session, or at least of its user:
// a refreshed ID token of an offline grant is of no session (RP-Initiated
// Logout, 2).
func (q request) belongs(s store.Session) bool {
	return q.hint.Subject == s.Subject && (q.hint.Session == s.ID || q.hint.Session == "")
}

// Serve ends the session at once when the application proves with an ID token
// that it is part of it, or when our own form asks; else it asks the person.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	form, err := e.parameters(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	s, err := e.Sessions.Current(ctx, r)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	if r.Method == http.MethodPost && s.ID == "" && e.Sessions.Cookie(r) == "" {
		// A form of another site comes without the cookie, which is
		// SameSite=Lax; the same as a navigation brings it.
		web.Redirect(w, e.Path+"/oauth/logout?"+form.Encode())
		return nil
	}
	q, err := e.check(ctx, form)
	if err != nil {
		return err
	}
	switch {
	case s.ID == "":
		return e.done(w, r, q)
	case r.Method == http.MethodPost && form.Has(web.FieldCSRF):
		if err := e.Guard.Check(r, form, e.Sessions.Cookie(r)); err != nil {
			return err
		}
	case !q.belongs(s):
		return e.ask(w, r, q)
	}
	if err := e.end(r, s, q); err != nil {
		return err
	}
	e.Sessions.Forget(w)
	return e.done(w, r, q)
}

func (e *Endpoint) parameters(r *http.Request) (web.Form, error) {
	if r.Method == http.MethodPost {
		return web.ParseBody(r)
	}
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err == nil && form.Repeated() != "" {
		err = oauth.Refuse(oauth.InvalidRequest, "")
	}
	return form, err
}

// check reads who asks and where the browser is to go. An address that is not
// registered is never followed: whoever sent it gets a page.
func (e *Endpoint) check(ctx context.Context, form web.Form) (request, error) {
	q := request{clientID: form.Value("client_id"), state: form.Value("state")}
	if raw := form.Value("id_token_hint"); raw != "" {
		hint, err := e.Tokens.ParseHint(raw)
		if err != nil || q.clientID != "" && q.clientID != hint.ClientID {
			return q, oauth.Refuse(oauth.InvalidRequest, "The ID token is not one of this server for this application.")
		}
		q.hint, q.clientID = hint, hint.ClientID
	}
	redirect := form.Value("post_logout_redirect_uri")
	if redirect == "" {
		return q, nil
	}
	refusal := oauth.Refuse(oauth.InvalidRequest, "The application or the address to return to is not registered.")
	if q.clientID == "" {
		return q, refusal
	}
	c, err := e.Clients.Client(ctx, q.clientID)
	if errors.Is(err, store.ErrNotFound) || err == nil && !c.PostLogoutRedirect(redirect) {
		return q, refusal
	}
	if err != nil {
		return q, oauth.Unavailable(fmt.Errorf("look up the client: %w", err))
	}
	q.redirect = redirect
	return q, nil
}

func (e *Endpoint) ask(w http.ResponseWriter, r *http.Request, q request) error {
	page := web.Page{Name: "logout", Data: question{
		e.Guard.Token(e.Sessions.Cookie(r)), q.clientID, q.redirect, q.state,
	}}
	again := url.Values{}
	for name, value := range map[string]string{"client_id": q.clientID, "post_logout_redirect_uri": q.redirect, "state": q.state} {
		if value != "" {
			again.Set(name, value)
		}
	}
	page.Query = again.Encode()
	if q.redirect != "" {
		page.FormAction = web.FormAction(q.redirect)
	}
	return e.Pages.Show(w, r, page)
}

func (e *Endpoint) end(r *http.Request, s store.Session, q request) error {
	event := store.AuditEvent{
		Action: audit.Logout, Outcome: audit.Success, Actor: audit.User(s.Subject), Client: q.hint.ClientID,
		Subject: s.Subject, Session: s.ID, IP: web.ClientAddress(r),
	}
	if err := e.Audit.With(r.Context(), event, func(event store.AuditEvent) error {
		return e.Revoker.EndSession(r.Context(), s.ID, event)
	}); err != nil {
		return oauth.Unavailable(fmt.Errorf("end the session: %w", err))
	}
	return nil
}

func (e *Endpoint) done(w http.ResponseWriter, r *http.Request, q request) error {
	if q.redirect == "" {
		return e.Pages.Show(w, r, web.Page{Name: "signedout"})
	}
	target := q.redirect
	if q.state != "" {
		separator := "?"
		if strings.Contains(target, "?") {
			separator = "&"
		}
		target += separator + "state=" + url.QueryEscape(q.state)
	}
	web.Redirect(w, target)
	return nil
}
