// Package account is the pages where people look after their own account:
// where they are signed in, which applications they allowed what, their
// password, authenticator app, recovery codes and passkeys.
//
// It owns the pages, and that what weakens or replaces a proof of identity asks
// for a recent sign-in. It does not own what those proofs are (users, factors),
// nor what a revocation reaches (revocation).
//
//	mux.Handle("/oauth/account", pages.Handler(account.New(config).Serve, timeout, "GET", "POST"))
package account

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/factors"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/revocation"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// recent is how old a sign-in may be for what changes how one signs in.
const recent = 10 * time.Minute

// Store is the state that the pages show.
type Store interface {
	Sessions(ctx context.Context, subject string, now time.Time) ([]store.Session, error)
	ConsentsOf(ctx context.Context, subject string) ([]store.Consent, error)
	Families(ctx context.Context, subject string, now time.Time) ([]store.Family, error)
}

// Config is what an Endpoint needs.
type Config struct {
	// Path is that of the issuer.
	Path     string
	Pages    *web.Pages
	Guard    *web.Guard
	Sessions *session.Manager
	Clients  *clients.Registry
	Users    *users.Registry
	Scopes   *scopes.Catalogue
	Factors  *factors.Factors
	Revoker  *revocation.Revoker
	Enrol    *enrol.Enrol
	Store    Store
	Audit    *audit.Log
	Now      func() time.Time
}

// Endpoint is the account pages. It is safe for concurrent use.
type Endpoint struct {
	Config
	pages   map[string]page
	actions map[string]action
}

// person is who is signed in.
type person struct {
	session store.Session
	user    store.User
}

// page shows one.
type page func(w http.ResponseWriter, r *http.Request, p person) error

// action does what a form asks for.
type action struct {
	do func(w http.ResponseWriter, r *http.Request, p person, form web.Form) error
	// recent: only soon after a sign-in.
	recent bool
}

// New returns the endpoint.
func New(c Config) *Endpoint {
	e := &Endpoint{Config: c}
	e.pages = map[string]page{
		"": e.overview, "/password": e.showPassword, "/app": e.recently("/app", e.newApp), "/qr": e.qr,
		"/passkey": e.recently("/passkey", e.newPasskey), "/email": e.recently("/email", e.showAddress),
	}
	e.actions = map[string]action{
		"end_session":    {do: e.endSession},
		"end_others":     {do: e.endOthers},
		"withdraw":       {do: e.withdraw},
		"password":       {do: e.password}, // asks for the current one
		"email":          {do: e.changeAddress, recent: true},
		"app":            {do: e.confirmApp, recent: true},
		"remove_app":     {do: e.removeApp, recent: true},
		"recovery":       {do: e.renewRecovery, recent: true},
		"passkey":        {do: e.addPasskey, recent: true},
		"remove_passkey": {do: e.removePasskey, recent: true},
	}
	return e
}

// Serve shows a page or does what a form of one asks for.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	p, err := e.person(r)
	if err != nil {
		return err
	}
	section := r.URL.Path[len(e.Path+"/oauth/account"):]
	show, ok := e.pages[section]
	if !ok {
		return &oauth.Error{Status: http.StatusNotFound, Code: oauth.InvalidRequest}
	}
	if r.Method == http.MethodGet {
		if p.session.ID == "" {
			return e.signIn(w, r, section, "")
		}
		return show(w, r, p)
	}
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	if err := e.Guard.Check(r, form, e.Sessions.Cookie(r)); err != nil {
		return err
	}
	a, ok := e.actions[form.Value("action")]
	switch {
	case !ok:
		return oauth.Refuse(oauth.InvalidRequest, "")
	case p.session.ID == "":
		return e.signIn(w, r, "", "")
	case a.recent && !e.recent(p):
		return e.signIn(w, r, "", p.user.Name)
	}
	return a.do(w, r, p, form)
}

// person returns who is signed in on the browser, the zero one where nobody is.
func (e *Endpoint) person(r *http.Request) (person, error) {
	s, err := e.Sessions.Current(r.Context(), r)
	if errors.Is(err, store.ErrNotFound) {
		return person{}, nil
	}
	if err != nil {
		return person{}, oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	u, err := e.Users.User(r.Context(), s.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return person{}, nil
	}
	if err != nil {
		return person{}, oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	return person{s, u}, nil
}

func (e *Endpoint) recent(p person) bool { return e.Now().Sub(p.session.AuthTime) <= recent }

// recently lets a page be seen soon after a sign-in only.
func (e *Endpoint) recently(section string, show page) page {
	return func(w http.ResponseWriter, r *http.Request, p person) error {
		if !e.recent(p) {
			return e.signIn(w, r, section, p.user.Name)
		}
		return show(w, r, p)
	}
}

// signIn sends the browser to sign in and then to a section.
func (e *Endpoint) signIn(w http.ResponseWriter, r *http.Request, section, hint string) error {
	handle, err := e.Sessions.Seal(e.Sessions.EnsureBrowser(w, r), session.Interaction{Next: "/oauth/account" + section, Hint: hint})
	if err != nil {
		return oauth.Failed(err)
	}
	web.Redirect(w, e.Path+"/oauth/login?i="+handle)
	return nil
}

// done sends the browser to the overview, which says what was done.
func (e *Endpoint) done(w http.ResponseWriter, what string) error {
	web.Redirect(w, e.Path+"/oauth/account?done="+what)
	return nil
}

// results are what the overview can say.
var results = [...]string{"session", "sessions", "withdrawn", "password", "app", "noapp", "passkey", "nopasskey", "mailed"}

// event is what a person did to the account.
func (e *Endpoint) event(r *http.Request, p person, action string) store.AuditEvent {
	return store.AuditEvent{
		Action: action, Outcome: audit.Success, Actor: audit.User(p.user.Subject), Subject: p.user.Subject,
		Session: p.session.ID, IP: web.ClientAddress(r),
	}
}

// overview shows everything.
func (e *Endpoint) overview(w http.ResponseWriter, r *http.Request, p person) error {
	v := view{
		User: p.user.Name, Email: p.user.Email, Verified: p.user.EmailVerified, Declared: p.user.Declared,
		CSRF: e.Guard.Token(e.Sessions.Cookie(r)), CanPasskey: e.Factors.Passkeys(),
	}
	if form, err := web.ParseQuery(r.URL.RawQuery); err == nil && slices.Contains(results[:], form.Value("done")) {
		v.Done = form.Value("done")
	}
	ctx := r.Context()
	if e.Enrol.CanMail() {
		var err error
		if v.CanEmail, err = e.Enrol.OwnEmail(ctx, p.user); err != nil {
			return err
		}
	}
	unavailable := func(err error) error { return oauth.Unavailable(fmt.Errorf("look up an account: %w", err)) }
	live, err := e.Store.Sessions(ctx, p.user.Subject, e.Now())
	if err != nil {
		return unavailable(err)
	}
	for _, s := range live {
		v.Sessions = append(v.Sessions, sessionView{s.ID, agent(s.Agent), stamp(s.AuthTime), s.ID == p.session.ID})
	}
	if v.Apps, err = e.apps(ctx, p.user.Subject); err != nil {
		return unavailable(err)
	}
	set, err := e.Factors.Of(ctx, p.user.Subject)
	if err != nil {
		return unavailable(err)
	}
	v.App, v.Recovery = set.App, set.Recovery
	for _, k := range set.Passkeys {
		v.Passkeys = append(v.Passkeys, passkeyView{base64.RawURLEncoding.EncodeToString(k.ID), k.Name, stamp(k.Created), stamp(k.Used)})
	}
	return e.Pages.Show(w, r, web.Page{Name: "account", Data: v})
}

// apps are the applications that the person allowed something, and those that
// hold a grant without a remembered consent.
func (e *Endpoint) apps(ctx context.Context, subject string) ([]appView, error) {
	given, err := e.Store.ConsentsOf(ctx, subject)
	if err != nil {
		return nil, err
	}
	live, err := e.Store.Families(ctx, subject, e.Now())
	if err != nil {
		return nil, err
	}
	for _, f := range live {
		if !slices.ContainsFunc(given, func(c store.Consent) bool { return c.ClientID == f.ClientID }) {
			given = append(given, store.Consent{ClientID: f.ClientID, Scopes: f.Scopes, Granted: f.Created})
		}
	}
	var list []appView
	for _, c := range given {
		a := appView{ID: c.ClientID, Name: c.ClientID, Scopes: e.Scopes.Describe(c.Scopes), Since: stamp(c.Granted)}
		client, err := e.Clients.Client(ctx, c.ClientID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		if err == nil {
			a.Name = client.Title()
		}
		list = append(list, a)
	}
	return list, nil
}
