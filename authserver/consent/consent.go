// Package consent is the page where people allow an application what it asks
// for, or do not.
//
// It owns the page and what is remembered of the answer. It does not own when
// the question has to be asked (authorize).
//
//	mux.Handle("/oauth/consent", pages.Handler(consent.New(config).Serve, timeout, "GET", "POST"))
package consent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Store remembers answers.
type Store interface {
	PutConsent(ctx context.Context, c store.Consent, events ...store.AuditEvent) error
}

// Config is what an Endpoint needs.
type Config struct {
	// Path is that of the issuer.
	Path     string
	Pages    *web.Pages
	Guard    *web.Guard
	Sessions *session.Manager
	Users    *users.Registry
	Scopes   *scopes.Catalogue
	Store    Store
	Audit    *audit.Log
	Now      func() time.Time
}

// Endpoint is the consent page. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// view is what the page shows.
type view struct {
	Client      string             `json:"client"`
	User        string             `json:"user"`
	Host        string             `json:"redirect_host,omitempty"`
	CSRF        string             `json:"-"`
	Interaction string             `json:"interaction"`
	Scopes      []scopes.Described `json:"scopes"`
}

// Samples are the page in all its states.
func Samples() []web.Page {
	return []web.Page{
		{Name: "consent", Data: view{Client: "App", User: "alice", Host: "app.example.com", CSRF: "c", Interaction: "i",
			Scopes: []scopes.Described{{Name: "openid"}, {Name: "read:orders", Description: "Read your orders"}}}},
		{Name: "consent", Data: view{}},
	}
}

// Serve shows the page or takes the answer.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return e.submit(w, r)
	}
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	handle := form.Value("i")
	i, s, err := e.open(r, handle)
	if err != nil {
		return err
	}
	u, err := e.Users.User(r.Context(), s.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return session.ErrOver
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	return e.Pages.Show(w, r, web.Page{
		Name: "consent", Locales: i.Locales, FormAction: web.FormAction(i.Redirect), Query: "i=" + handle,
		Data: view{i.ClientName, u.Name, host(i.Redirect), e.Guard.Token(e.Sessions.Cookie(r)), handle, e.Scopes.Describe(i.Scopes)},
	})
}

// open returns the interaction and the session that it was made for.
func (e *Endpoint) open(r *http.Request, handle string) (session.Interaction, store.Session, error) {
	i, err := e.Sessions.Open(e.Sessions.Browser(r), handle)
	if err != nil {
		return i, store.Session{}, session.ErrOver
	}
	s, err := e.Sessions.Current(r.Context(), r)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return i, s, oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	if err != nil || i.Session == "" || i.Session != s.ID {
		return i, s, session.ErrOver
	}
	return i, s, nil
}

func (e *Endpoint) submit(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	if err := e.Guard.Check(r, form, e.Sessions.Cookie(r)); err != nil {
		return err
	}
	i, s, err := e.open(r, form.Value("i"))
	if err != nil {
		return err
	}
	event := store.AuditEvent{
		Action: audit.ConsentGranted, Outcome: audit.Success, Actor: audit.User(s.Subject), Client: i.ClientID,
		Subject: s.Subject, Session: s.ID, IP: web.ClientAddress(r),
	}
	decision := form.Value("decision")
	if decision != "allow" && decision != "deny" {
		return oauth.Refuse(oauth.InvalidRequest, "")
	}
	if err := e.Sessions.Spend(r.Context(), i); err != nil {
		return err
	}
	if decision == "allow" {
		given := store.Consent{Subject: s.Subject, ClientID: i.ClientID, Scopes: i.Scopes, Granted: e.Now()}
		err = e.Audit.With(r.Context(), event, func(event store.AuditEvent) error {
			return e.Store.PutConsent(r.Context(), given, event)
		})
		i.Consented = s.ID
	} else {
		event.Action = audit.ConsentDenied
		err = e.Audit.Write(r.Context(), event)
		i.Denied = true
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("remember the decision: %w", err))
	}
	handle, err := e.Sessions.Seal(e.Sessions.Browser(r), i)
	if err != nil {
		return oauth.Failed(err)
	}
	web.Redirect(w, e.Path+"/oauth/authorize?i="+handle)
	return nil
}

// host is the web host that a redirect URI leads to, "" for an app's scheme.
func host(redirect string) string {
	u, err := url.Parse(redirect)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	return u.Host
}
