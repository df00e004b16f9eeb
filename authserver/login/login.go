// Package login is the pages where people sign in: with a password and, where
// they have one, a second factor, or with a passkey.
//
// It owns the pages. It does not own what a sign-in checks and changes
// (signin), nor why the user was sent here (authorize).
//
//	mux.Handle("/oauth/login", pages.Handler(login.New(config).Serve, timeout, "GET", "POST"))
package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/gatehouse/gatehouse/authserver/factors"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/signin"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Config is what an Endpoint needs.
type Config struct {
	// Path is that of the issuer.
	Path     string
	Pages    *web.Pages
	Guard    *web.Guard
	Sessions *session.Manager
	Users    *users.Registry
	Factors  *factors.Factors
	SignIn   *signin.SignIn
	// Elsewhere are other ways to sign in.
	Elsewhere []Elsewhere
	// Reset and Signup offer a new password and an account to who has none.
	Reset, Signup bool
}

// Elsewhere is another provider, and what people call it.
type Elsewhere struct {
	Name  string `json:"name"`
	Title string `json:"title"`
}

// Endpoint is the login pages. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// view is what the first page shows.
type view struct {
	Client      string      `json:"client,omitempty"`
	Username    string      `json:"username,omitempty"`
	CSRF        string      `json:"-"`
	Interaction string      `json:"interaction,omitempty"`
	Failed      bool        `json:"-"`
	problem     string      // of web
	Wait        int         `json:"retry_after,omitempty"` // seconds
	Passkey     *passkey    `json:"passkey,omitempty"`
	Elsewhere   []Elsewhere `json:"providers,omitempty"`
	Reset       bool        `json:"can_reset_password,omitempty"`
	Signup      bool        `json:"can_sign_up,omitempty"`
}

// passkey is a ceremony as a page carries it.
type passkey struct {
	Options web.JSON `json:"options"`
	State   string   `json:"state"`
}

// signedIn is what who is signed in already sees.
type signedIn struct {
	User string `json:"user"`
	CSRF string `json:"-"`
}

// Samples are the pages in all their states.
func Samples() []web.Page {
	key := &passkey{"{}", "s"}
	return []web.Page{
		{Name: "login", Data: view{}},
		{Name: "login", Script: true, Data: view{Client: "App", Username: "alice", CSRF: "c", Interaction: "i", Failed: true, Passkey: key}},
		{Name: "login", Data: view{Wait: 30, Elsewhere: []Elsewhere{{"partner", "Partner"}}, Reset: true, Signup: true}},
		{Name: "signedin", Data: signedIn{"alice", "c"}},
		{Name: "factor", Data: view{Interaction: "i", Failed: true}},
		{Name: "factor", Script: true, Data: view{Client: "App", Interaction: "i", Wait: 30, Passkey: key}},
	}
}

// Serve shows the first page or takes its form.
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
		return i, session.ErrOver
	}
	return i, nil
}

// purpose is that of sealed ceremonies.
const purpose = "passkey sign-in"

// ceremony asks for a passkey where there can be one: of u, or of anybody where
// u is nil.
func (e *Endpoint) ceremony(ctx context.Context, browser string, u *store.User) (*passkey, error) {
	if !e.Factors.Passkeys() {
		return nil, nil
	}
	c, err := e.Factors.BeginSignIn(ctx, u)
	if err != nil {
		return nil, oauth.Unavailable(err)
	}
	state, err := e.Sessions.SealValue(purpose, browser, factors.CeremonyLife, c.State)
	if err != nil {
		return nil, oauth.Failed(err)
	}
	return &passkey{web.JSON(c.Options), state}, nil
}

func (e *Endpoint) show(w http.ResponseWriter, r *http.Request, status int, i session.Interaction, v view) error {
	browser := e.Sessions.EnsureBrowser(w, r)
	var err error
	if v.Passkey, err = e.ceremony(r.Context(), browser, nil); err != nil {
		return err
	}
	v.Client, v.CSRF, v.Elsewhere = i.ClientName, e.Guard.Token(browser), e.Config.Elsewhere
	v.Reset, v.Signup = e.Config.Reset, e.Config.Signup
	return e.render(w, r, "login", status, i, v)
}

func (e *Endpoint) render(w http.ResponseWriter, r *http.Request, name string, status int, i session.Interaction, v view) error {
	page := web.Page{Name: name, Status: status, Data: v, Problem: v.problem, Script: v.Passkey != nil, Locales: i.Locales}
	if v.Interaction != "" {
		page.Query = "i=" + v.Interaction
	}
	if i.Redirect != "" {
		page.FormAction = web.FormAction(i.Redirect)
	}
	return e.Pages.Show(w, r, page)
}

// form reads a form of ours, and the interaction that it belongs to.
func (e *Endpoint) form(r *http.Request) (web.Form, session.Interaction, error) {
	var i session.Interaction
	form, err := web.ParseBody(r)
	if err != nil {
		return nil, i, err
	}
	if err := e.Guard.Check(r, form, e.Sessions.Browser(r)); err != nil {
		return nil, i, err
	}
	if handle := form.Value("i"); handle != "" {
		i, err = e.open(r, handle)
	}
	return form, i, err
}

func (e *Endpoint) submit(w http.ResponseWriter, r *http.Request) error {
	form, i, err := e.form(r)
	if err != nil {
		return err
	}
	handle := form.Value("i")
	if answer := form.Value("passkey"); answer != "" {
		return e.byPasskey(w, r, i, handle, form.Value("state"), answer)
	}
	name := form.Value("username")
	u, second, err := e.SignIn.Password(r, name, form.Value("password"))
	if err != nil {
		return e.again(w, r, i, view{Username: name, Interaction: handle, problem: web.ProblemCredentials}, err, e.show)
	}
	if !second {
		return e.finish(w, r, i, handle, u, oauth.ACRPassword)
	}
	i.Half = u.Subject
	if handle, err = e.Sessions.Seal(e.Sessions.Browser(r), i); err != nil {
		return oauth.Failed(err)
	}
	web.Redirect(w, e.Path+"/oauth/factor?i="+handle)
	return nil
}

func (e *Endpoint) byPasskey(w http.ResponseWriter, r *http.Request, i session.Interaction, handle, sealed, answer string) error {
	var state []byte
	if err := e.Sessions.OpenValue(purpose, e.Sessions.Browser(r), sealed, &state); err != nil {
		return e.again(w, r, i, view{Interaction: handle, problem: web.ProblemPasskey}, &signin.Refusal{}, e.show)
	}
	u, err := e.SignIn.Passkey(r, state, []byte(answer))
	if err != nil {
		return e.again(w, r, i, view{Interaction: handle, problem: web.ProblemPasskey}, err, e.show)
	}
	return e.finish(w, r, i, handle, u, oauth.ACRPasskey)
}

func (e *Endpoint) finish(w http.ResponseWriter, r *http.Request, i session.Interaction, handle string, u store.User, acr string) error {
	target, err := e.SignIn.Finish(w, r, i, handle, u, acr)
	if err != nil {
		return err
	}
	web.Redirect(w, target)
	return nil
}

type shower func(w http.ResponseWriter, r *http.Request, status int, i session.Interaction, v view) error

// again shows a page again after a refusal; v says which problem it is where
// there were not too many.
func (e *Endpoint) again(w http.ResponseWriter, r *http.Request, i session.Interaction, v view, err error, show shower) error {
	var refusal *signin.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	if v.Wait = refusal.Seconds(); v.Wait > 0 {
		v.problem = web.ProblemThrottled
		w.Header().Set("Retry-After", fmt.Sprint(v.Wait))
	} else {
		v.Failed = true
	}
	return show(w, r, refusal.Status(), i, v)
}
