// Package visitor is the pages for people who are not signed in: for who forgot
// a password, wants an account, or comes by a link in a mail.
//
// It owns the pages, and that a link does nothing until its page is sent. It
// does not own what a link is good for, nor who is mailed one (enrol).
//
//	mux.Handle("/oauth/reset", pages.Handler(visitor.New(config).Forgot, timeout, "GET", "POST"))
package visitor

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Config is what an Endpoint needs.
type Config struct {
	Pages    *web.Pages
	Guard    *web.Guard
	Sessions *session.Manager
	Enrol    *enrol.Enrol
}

// Endpoint is the pages. It is safe for concurrent use.
type Endpoint struct{ Config }

// New returns the endpoint.
func New(c Config) *Endpoint { return &Endpoint{c} }

// forgotView is what the page forgot shows, signupView the page signup.
type forgotView struct {
	CSRF  string `json:"-"`
	Login string `json:"login,omitempty"`
	Wait  int    `json:"retry_after,omitempty"` // seconds
}

type signupView struct {
	CSRF    string `json:"-"`
	Address string `json:"address,omitempty"`
	Problem string `json:"-"`
	Wait    int    `json:"retry_after,omitempty"`
}

// ticketView is what the pages show that a link leads to.
type ticketView struct {
	CSRF        string `json:"-"`
	Ticket      string `json:"ticket"`
	User        string `json:"user,omitempty"`
	Address     string `json:"address,omitempty"`
	DisplayName string `json:"display_name,omitempty"`
	Problem     string `json:"-"`
}

// kindView is what the pages sent, finished and deadlink show.
type kindView struct {
	Kind string `json:"about"`
}

// What the pages are about, and what can be wrong with their forms.
const (
	reset, signup, email = "reset", "signup", "email"

	problemAddress, problemDomain, problemLength, problemRepeat, problemExists = "address", "domain", "length", "repeat", "exists"
)

// problems are the words of web for them.
var problems = map[string]string{
	problemAddress: web.ProblemEmail, problemDomain: web.ProblemEmailDomain, problemLength: web.ProblemPasswordLength,
	problemRepeat: web.ProblemPasswordRepeat, problemExists: web.ProblemAccountExists,
}

// Samples are the pages in all their states.
func Samples() []web.Page {
	pages := []web.Page{
		{Name: "forgot", Data: forgotView{}},
		{Name: "forgot", Data: forgotView{Login: "alice", Wait: 3}},
		{Name: "signup", Data: signupView{Wait: 3}},
		{Name: "confirm", Data: ticketView{CSRF: "c", Ticket: "t", User: "alice", Address: "alice@example.com"}},
	}
	for _, problem := range []string{"", problemAddress, problemDomain} {
		pages = append(pages, web.Page{Name: "signup", Data: signupView{CSRF: "c", Address: "alice@example.com", Problem: problem}})
	}
	for _, problem := range []string{"", problemLength, problemRepeat} {
		pages = append(pages, web.Page{Name: "newpassword", Data: ticketView{CSRF: "c", Ticket: "t", User: "alice", Problem: problem}})
	}
	for _, problem := range []string{"", problemLength, problemRepeat, problemExists} {
		pages = append(pages, web.Page{Name: "newaccount", Data: ticketView{CSRF: "c", Ticket: "t", Address: "alice@example.com", DisplayName: "Alice", Problem: problem}})
	}
	for _, kind := range []string{reset, signup, email} {
		pages = append(pages, web.Page{Name: "finished", Data: kindView{kind}}, web.Page{Name: "deadlink", Data: kindView{kind}})
	}
	return append(pages, web.Page{Name: "sent", Data: kindView{reset}}, web.Page{Name: "sent", Data: kindView{signup}})
}

// Forgot is the page for who forgot a password.
func (e *Endpoint) Forgot(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		if !e.Enrol.CanReset() {
			return gone(enrol.ErrOff)
		}
		return e.showForgot(w, r, http.StatusOK, forgotView{})
	}
	form, err := e.form(r)
	if err != nil {
		return err
	}
	login := form.Value("login")
	err = e.Enrol.RequestReset(r, login)
	if wait := seconds(w, err); wait > 0 {
		return e.showForgot(w, r, http.StatusTooManyRequests, forgotView{Login: login, Wait: wait})
	}
	if err != nil {
		return gone(err)
	}
	return e.Pages.Show(w, r, web.Page{Name: "sent", Data: kindView{reset}})
}

func (e *Endpoint) showForgot(w http.ResponseWriter, r *http.Request, status int, v forgotView) error {
	v.CSRF = e.csrf(w, r)
	return e.Pages.Show(w, r, web.Page{Name: "forgot", Status: status, Data: v, Problem: throttled(v.Wait, "")})
}

// Signup is the page for who wants an account.
func (e *Endpoint) Signup(w http.ResponseWriter, r *http.Request) error {
	if r.Method == http.MethodGet {
		if !e.Enrol.CanRegister() {
			return gone(enrol.ErrOff)
		}
		return e.showSignup(w, r, http.StatusOK, signupView{})
	}
	form, err := e.form(r)
	if err != nil {
		return err
	}
	v := signupView{Address: form.Value("address")}
	err = e.Enrol.RequestSignup(r, v.Address)
	v.Wait = seconds(w, err)
	switch {
	case v.Wait > 0:
		return e.showSignup(w, r, http.StatusTooManyRequests, v)
	case errors.Is(err, enrol.ErrAddress):
		v.Problem = problemAddress
	case errors.Is(err, enrol.ErrDomain):
		v.Problem = problemDomain
	case err != nil:
		return gone(err)
	default:
		return e.Pages.Show(w, r, web.Page{Name: "sent", Data: kindView{signup}})
	}
	return e.showSignup(w, r, http.StatusUnprocessableEntity, v)
}

func (e *Endpoint) showSignup(w http.ResponseWriter, r *http.Request, status int, v signupView) error {
	v.CSRF = e.csrf(w, r)
	return e.Pages.Show(w, r, web.Page{Name: "signup", Status: status, Data: v, Problem: throttled(v.Wait, problems[v.Problem])})
}

// Password is where the link to a new password leads.
func (e *Endpoint) Password(w http.ResponseWriter, r *http.Request) error {
	form, err := e.read(r)
	if err != nil {
		return err
	}
	v := ticketView{Ticket: form.Value("ticket")}
	u, err := e.Enrol.Reset(r.Context(), v.Ticket)
	if err != nil {
		return e.dead(w, r, reset, err)
	}
	v.User = u.Name
	if r.Method == http.MethodGet {
		return e.showTicket(w, r, "newpassword", v)
	}
	if v.Problem = passwordProblem(form); v.Problem != "" {
		return e.showTicket(w, r, "newpassword", v)
	}
	if err := e.Enrol.SetPassword(r, v.Ticket, form.Value("new")); err != nil {
		return e.dead(w, r, reset, err)
	}
	return e.Pages.Show(w, r, web.Page{Name: "finished", Data: kindView{reset}})
}

// Account is where the link to a new account leads.
func (e *Endpoint) Account(w http.ResponseWriter, r *http.Request) error {
	form, err := e.read(r)
	if err != nil {
		return err
	}
	v := ticketView{Ticket: form.Value("ticket"), DisplayName: form.Value("display_name")}
	if v.Address, err = e.Enrol.Signup(r.Context(), v.Ticket); err != nil {
		return e.dead(w, r, signup, err)
	}
	if r.Method == http.MethodGet {
		return e.showTicket(w, r, "newaccount", v)
	}
	if v.Problem = passwordProblem(form); v.Problem != "" {
		return e.showTicket(w, r, "newaccount", v)
	}
	err = e.Enrol.Register(r, v.Ticket, v.DisplayName, form.Value("new"))
	if errors.Is(err, store.ErrExists) {
		v.Problem = problemExists
		return e.showTicket(w, r, "newaccount", v)
	}
	if err != nil {
		return e.dead(w, r, signup, err)
	}
	return e.Pages.Show(w, r, web.Page{Name: "finished", Data: kindView{signup}})
}

// Email is where the link leads that confirms an address.
func (e *Endpoint) Email(w http.ResponseWriter, r *http.Request) error {
	form, err := e.read(r)
	if err != nil {
		return err
	}
	v := ticketView{Ticket: form.Value("ticket")}
	u, address, err := e.Enrol.Email(r.Context(), v.Ticket)
	if err == nil && r.Method == http.MethodGet {
		v.User, v.Address = u.Name, address
		return e.showTicket(w, r, "confirm", v)
	}
	if err == nil {
		err = e.Enrol.ConfirmEmail(r, v.Ticket)
	}
	if err != nil {
		return e.dead(w, r, email, err)
	}
	return e.Pages.Show(w, r, web.Page{Name: "finished", Data: kindView{email}})
}

func (e *Endpoint) showTicket(w http.ResponseWriter, r *http.Request, name string, v ticketView) error {
	v.CSRF = e.csrf(w, r)
	status := http.StatusOK
	if v.Problem != "" {
		status = http.StatusUnprocessableEntity
	}
	query := url.Values{"ticket": {v.Ticket}}.Encode()
	return e.Pages.Show(w, r, web.Page{Name: name, Status: status, Data: v, Query: query, Problem: problems[v.Problem]})
}

// dead shows that a link is not good, or returns what else went wrong.
func (e *Endpoint) dead(w http.ResponseWriter, r *http.Request, kind string, err error) error {
	if !errors.Is(err, enrol.ErrLink) {
		return err
	}
	return e.Pages.Show(w, r, web.Page{Name: "deadlink", Status: http.StatusGone, Data: kindView{kind}})
}

// read returns the form of a page that a link leads to, or the link's query.
func (e *Endpoint) read(r *http.Request) (web.Form, error) {
	if r.Method == http.MethodGet {
		return web.ParseQuery(r.URL.RawQuery)
	}
	return e.form(r)
}

// form reads a form of ours.
func (e *Endpoint) form(r *http.Request) (web.Form, error) {
	form, err := web.ParseBody(r)
	if err != nil {
		return nil, err
	}
	return form, e.Guard.Check(r, form, e.Sessions.Browser(r))
}

func (e *Endpoint) csrf(w http.ResponseWriter, r *http.Request) string {
	return e.Guard.Token(e.Sessions.EnsureBrowser(w, r))
}

// throttled is the problem of who has to wait, else another one.
func throttled(wait int, problem string) string {
	if wait > 0 {
		return web.ProblemThrottled
	}
	return problem
}

// passwordProblem is what is wrong with a new password, "" for nothing.
func passwordProblem(form web.Form) string {
	switch password := form.Value("new"); {
	case password != form.Value("repeat"):
		return problemRepeat
	case !users.GoodPassword(password):
		return problemLength
	}
	return ""
}

// gone makes a page that is switched off one that is not there.
func gone(err error) error {
	if errors.Is(err, enrol.ErrOff) {
		return &oauth.Error{Status: http.StatusNotFound, Code: oauth.InvalidRequest}
	}
	return err
}

// seconds is how long the next attempt has to wait, rounded up, and says so in
// the answer; 0 where it has not.
func seconds(w http.ResponseWriter, err error) int {
	var throttled *users.ThrottledError
	if !errors.As(err, &throttled) {
		return 0
	}
	wait := int((throttled.Wait + time.Second - 1) / time.Second)
	w.Header().Set("Retry-After", fmt.Sprint(wait))
	return wait
}
