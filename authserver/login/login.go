// Package login is the page where people sign in with a password.
//
// It owns the page and what a sign-in changes. It does not own whether a
// password is right (users), nor why the user was sent here (authorize).
//
//	mux.Handle("/oauth/login", pages.Handler(login.New(config).Serve, timeout, "GET", "POST"))
package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Observer counts sign-ins.
type Observer interface {
	// Login counts a sign-in: success, failure, throttled, busy.
	Login(result string)
}

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
	Users    *users.Registry
	Revoker  Revoker
	Audit    *audit.Log
	Observer Observer
}

// Endpoint is the login page. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// view is what the page shows.
type view struct {
	Client, Username  string
	CSRF, Interaction string
	Failed            bool
	Wait              int // seconds
}

// signedIn is what who is signed in already sees.
type signedIn struct{ User, CSRF string }

// Samples are the pages in all their states.
func Samples() []web.Page {
	return []web.Page{
		{Name: "login", Data: view{}},
		{Name: "login", Data: view{Client: "App", Username: "alice", CSRF: "c", Interaction: "i", Failed: true}},
		{Name: "login", Data: view{Wait: 30}},
		{Name: "signedin", Data: signedIn{"alice", "c"}},
	}
}

// Serve shows the page or takes the form.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodPost {
		return e.submit(w, r)
	}
	form, err := web.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	handle := form.Value("i")
	if handle == "" {
		return e.plain(w, r)
	}
	i, err := e.open(r, handle)
	if err != nil {
		return err
	}
	return e.show(w, r, http.StatusOK, i, view{Username: i.Hint, Interaction: handle})
}

// plain is the page for who comes on their own.
func (e *Endpoint) plain(w http.ResponseWriter, r *http.Request) error {
	s, err := e.Sessions.Current(r.Context(), r)
	if errors.Is(err, store.ErrNotFound) {
		return e.show(w, r, http.StatusOK, session.Interaction{}, view{})
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	u, err := e.Users.User(r.Context(), s.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return e.show(w, r, http.StatusOK, session.Interaction{}, view{})
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	return e.Pages.Show(w, r, web.Page{Name: "signedin", Data: signedIn{u.Name, e.Guard.Token(e.Sessions.Cookie(r))}})
}

func (e *Endpoint) open(r *http.Request, handle string) (session.Interaction, error) {
	i, err := e.Sessions.Open(e.Sessions.Browser(r), handle)
	if err != nil {
		return i, oauth.Refuse(oauth.InvalidRequest, "This sign-in began in another browser or took too long.")
	}
	return i, nil
}

func (e *Endpoint) show(w http.ResponseWriter, r *http.Request, status int, i session.Interaction, v view) error {
	v.Client = i.ClientName
	v.CSRF = e.Guard.Token(e.Sessions.EnsureBrowser(w, r))
	page := web.Page{Name: "login", Status: status, Data: v, Locales: i.Locales}
	if i.Redirect != "" {
		page.FormAction = web.FormAction(i.Redirect)
	}
	return e.Pages.Show(w, r, page)
}

func (e *Endpoint) submit(w http.ResponseWriter, r *http.Request) error {
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	if err := e.Guard.Check(r, form, e.Sessions.Browser(r)); err != nil {
		return err
	}
	var i session.Interaction
	handle := form.Value("i")
	if handle != "" {
		if i, err = e.open(r, handle); err != nil {
			return err
		}
	}
	name := strings.TrimSpace(form.Value("username"))
	u, err := e.Users.Login(r.Context(), name, form.Value("password"), e.Sessions.Device(r, name), web.ClientIP(r))
	if err != nil {
		return e.failed(w, r, i, view{Username: name, Interaction: handle}, u, err)
	}
	s, err := e.begin(w, r, u)
	if err != nil {
		return err
	}
	if err := e.Sessions.MarkDevice(w, r, name); err != nil {
		return oauth.Failed(err)
	}
	e.Observer.Login("success")
	if handle == "" {
		web.Redirect(w, e.Path+"/oauth/login")
		return nil
	}
	i.LoggedIn = s.ID
	if handle, err = e.Sessions.Seal(e.Sessions.Browser(r), i); err != nil {
		return oauth.Failed(err)
	}
	web.Redirect(w, e.Path+"/oauth/"+i.Back()+"?i="+handle)
	return nil
}

// begin starts the session. Another user's session on this browser ends.
func (e *Endpoint) begin(w http.ResponseWriter, r *http.Request, u store.User) (store.Session, error) {
	ctx := r.Context()
	previous, err := e.Sessions.Current(ctx, r)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return previous, oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	if previous.ID != "" && previous.Subject != u.Subject {
		if err := e.Revoker.EndSession(ctx, previous.ID); err != nil {
			return previous, oauth.Unavailable(fmt.Errorf("end the session before: %w", err))
		}
	}
	event := e.Audit.Stamp(e.event(r, audit.LoginSucceeded, audit.Success, u.Subject, "", ""))
	s, cookie, err := e.Sessions.Start(ctx, r, previous, u.Subject, session.Password, &event)
	if err != nil {
		return s, oauth.Unavailable(fmt.Errorf("start a session: %w", err))
	}
	e.Audit.Line(ctx, event)
	e.Sessions.Remember(w, cookie)
	return s, nil
}

// failed shows the page again. It says the same whether the user exists or not.
func (e *Endpoint) failed(w http.ResponseWriter, r *http.Request, i session.Interaction, v view, u store.User, err error) error {
	action, result, status := audit.LoginFailed, "failure", http.StatusUnprocessableEntity
	var throttled *users.ThrottledError
	switch {
	case errors.Is(err, users.ErrCredentials):
		v.Failed = true
	case errors.As(err, &throttled):
		action, result, status = audit.LoginThrottled, "throttled", http.StatusTooManyRequests
		v.Wait = int((throttled.Wait + time.Second - 1) / time.Second)
	case errors.Is(err, users.ErrBusy):
		e.Observer.Login("busy")
		return &oauth.Error{
			Status: http.StatusServiceUnavailable, Code: oauth.TemporarilyUnavailable, Retry: 2 * time.Second, Err: err,
		}
	default:
		return oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	e.Observer.Login(result)
	// The name that was typed is not recorded: people type passwords there.
	if err := e.Audit.Write(r.Context(), e.event(r, action, audit.Failure, u.Subject, "", result)); err != nil {
		return oauth.Unavailable(err)
	}
	if v.Wait > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(v.Wait))
	}
	return e.show(w, r, status, i, v)
}

func (e *Endpoint) event(r *http.Request, action, outcome, subject, sessionID, reason string) store.AuditEvent {
	actor := audit.Unknown
	if outcome == audit.Success {
		actor = audit.User(subject)
	}
	return store.AuditEvent{
		Action: action, Outcome: outcome, Actor: actor, Subject: subject, Session: sessionID,
		IP: web.ClientAddress(r), Reason: reason,
	}
}
