// Package enrol is what people do by a link that they were mailed: get a new
// password, confirm an address, register.
//
// It owns what is asked for, what a link proves and what its holder changes by
// it, with limits and records. It does not own how a letter travels (mail) nor
// any page. A request does the same for every name and address: who is meant is
// looked up when the letter is written, so neither answer nor time tell who has
// an account.
//
//	err := e.RequestReset(r, login)         // throttled: *users.ThrottledError
//	u, err := e.Reset(ctx, secret)          // ErrLink: show that the link is dead
//	err = e.SetPassword(r, secret, password)
package enrol

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/mail"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Errors that pages have a text for.
var (
	// ErrLink says that a link was used, is too old, or never was one.
	ErrLink = errors.New("the link is not good any more")
	// ErrAddress says that a text is no e-mail address, ErrDomain that addresses
	// there cannot be registered.
	ErrAddress = errors.New("not an e-mail address")
	ErrDomain  = errors.New("addresses of this domain cannot be registered")
	// ErrKept says that what is to be changed is not kept here.
	ErrKept = errors.New("this is kept elsewhere")
	// ErrOff says that the server cannot send mail, or is told not to do this.
	ErrOff = errors.New("this is switched off")
)

// Policy is what the configuration allows.
type Policy struct {
	// VerificationTTL and ResetTTL are how long links are good.
	VerificationTTL, ResetTTL time.Duration
	// Reset lets people get a new password by mail, Register lets them make
	// themselves an account, where Domains is not empty with addresses there.
	Reset, Register bool
	Domains         []string
}

// Store is the state that this is about.
type Store interface {
	store.Tickets
	Sessions(ctx context.Context, subject string, now time.Time) ([]store.Session, error)
	Tally(ctx context.Context, key string, now time.Time, window time.Duration) (n int, err error)
}

// Revoker ends what a user has.
type Revoker interface {
	Revoke(ctx context.Context, level oauth.Level, id string, events ...store.AuditEvent) (oauth.Revocation, error)
}

// Config is what an Enrol needs.
type Config struct {
	// Issuer is what links begin with.
	Issuer string
	Policy Policy
	// Post takes letters; nil: there is no mail, and nothing of this can be done.
	Post    *mail.Post
	Pages   *web.Pages
	Users   *users.Registry
	Store   Store
	Revoker Revoker
	// Throttle is one of its own: what is asked for here delays no sign-in.
	Throttle *users.Throttle
	Audit    *audit.Log
	Now      func() time.Time
}

// Enrol is safe for concurrent use.
type Enrol struct{ Config }

// New returns what people are enrolled with.
func New(c Config) *Enrol { return &Enrol{c} }

// CanMail, CanReset and CanRegister tell what pages may offer.
func (e *Enrol) CanMail() bool     { return e.Post != nil }
func (e *Enrol) CanReset() bool    { return e.Post != nil && e.Policy.Reset }
func (e *Enrol) CanRegister() bool { return e.Post != nil && e.Policy.Register }

// Kinds of tickets, and of letters.
const (
	kindReset   = "reset"
	kindEmail   = "email"
	kindSignup  = "signup"
	kindChanged = "password_changed"
	kindMoved   = "email_changed"
)

// request is what waits to become a letter.
type request struct {
	Kind string `json:"kind"`
	// Login is what was typed; Subject who is meant, where that is known.
	Login   string `json:"login,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Session is the one that has to be alive still.
	Session  string `json:"session,omitempty"`
	Address  string `json:"address,omitempty"`
	Language string `json:"language,omitempty"`
}

// maxLogin bounds what is kept of what was typed; names and addresses are shorter.
const maxLogin = 256

// patience is how long the letter of a request may be on its way, where no
// link says how long it is of use.
const patience = 24 * time.Hour

// RequestReset asks for a link by which a user of this name or address can set
// a password. Errors: ErrOff, *users.ThrottledError, or ready for an answer.
func (e *Enrol) RequestReset(r *http.Request, login string) error {
	if !e.CanReset() {
		return ErrOff
	}
	if login = strings.TrimSpace(login); len(login) > maxLogin {
		login = "" // nobody's
	}
	return e.asked(r, audit.ResetRequested, request{Kind: kindReset, Login: login}, e.Policy.ResetTTL)
}

// RequestSignup asks for a link by which the reader of an address can make an
// account. Errors are like those of RequestReset, and ErrAddress, ErrDomain.
func (e *Enrol) RequestSignup(r *http.Request, typed string) error {
	if !e.CanRegister() {
		return ErrOff
	}
	address, ok := Address(typed)
	if !ok {
		return ErrAddress
	}
	_, domain, _ := strings.Cut(address, "@")
	if len(e.Policy.Domains) > 0 && !slices.Contains(e.Policy.Domains, domain) {
		return ErrDomain
	}
	return e.asked(r, audit.SignupRequested, request{Kind: kindSignup, Login: address}, patience)
}

// asked takes a request of somebody unknown.
func (e *Enrol) asked(r *http.Request, action string, q request, life time.Duration) error {
	event := store.AuditEvent{Action: action, Outcome: audit.Success, Actor: audit.Unknown, IP: web.ClientAddress(r)}
	err := e.limited(r, q.Kind+"\x00"+strings.ToLower(q.Login))
	if err == nil {
		q.Language = e.Pages.Language(r, "")
		err = busy(e.Post.Queue(r.Context(), q, life))
	}
	if err != nil {
		event.Outcome = audit.Failure
	}
	e.Audit.Queue(r.Context(), event)
	return err
}

// limited counts a request: for what was typed, for the address, and for all.
func (e *Enrol) limited(r *http.Request, account string) error {
	attempt, err := e.Throttle.Begin(r.Context(), account, web.ClientIP(r))
	if err == nil {
		err = attempt.Failed(r.Context())
	}
	return busy(err)
}

// busy makes what went wrong ready for an answer.
func busy(err error) error {
	var throttled *users.ThrottledError
	switch {
	case err == nil || errors.As(err, &throttled):
		return err
	case errors.Is(err, users.ErrBusy), errors.Is(err, store.ErrFull):
		return &oauth.Error{Status: http.StatusServiceUnavailable, Code: oauth.TemporarilyUnavailable, Retry: 10 * time.Second, Err: err}
	}
	return oauth.Unavailable(err)
}

// RequestEmail asks for a link that makes an address the one of a signed-in
// user. Errors are like those of RequestSignup, and ErrKept.
func (e *Enrol) RequestEmail(r *http.Request, s store.Session, u store.User, typed string) error {
	if !e.CanMail() {
		return ErrOff
	}
	address, ok := Address(typed)
	if !ok {
		return ErrAddress
	}
	own, err := e.OwnEmail(r.Context(), u)
	if err != nil {
		return err
	}
	if !own {
		return ErrKept
	}
	if err := e.limited(r, kindEmail+"\x00"+u.Subject); err != nil {
		return err
	}
	q := request{Kind: kindEmail, Subject: u.Subject, Session: s.ID, Address: address, Language: e.Pages.Language(r, "")}
	if err := e.Post.Queue(r.Context(), q, patience); err != nil {
		return busy(err)
	}
	return unavailable(e.Audit.Write(r.Context(), store.AuditEvent{
		Action: audit.EmailRequested, Outcome: audit.Success, Actor: audit.User(u.Subject), Subject: u.Subject,
		Session: s.ID, IP: web.ClientAddress(r),
	}))
}

// OwnEmail reports whether a user's address is kept here and can be changed.
func (e *Enrol) OwnEmail(ctx context.Context, u store.User) (bool, error) {
	if u.Declared {
		return false, nil
	}
	k, err := e.Users.Keepers(ctx, u.Subject)
	return k.Email == "" && err == nil, unavailable(err)
}

// SendReset mails a user a link for a new password because an operator wants
// it. Errors: ErrOff, ErrKept, ErrAddress where there is none; or the store's.
func (e *Enrol) SendReset(ctx context.Context, u store.User) error {
	if !e.CanMail() {
		return ErrOff
	}
	k, err := e.Users.Keepers(ctx, u.Subject)
	switch {
	case err != nil:
		return err
	case u.Declared || k.Password != "":
		return ErrKept
	case u.Email == "":
		return ErrAddress
	}
	return e.Post.Queue(ctx, request{Kind: kindReset, Subject: u.Subject}, e.Policy.ResetTTL)
}

// PasswordChanged makes links that were mailed before worth nothing, and tells
// the user. It is for everybody who changes a password; language is that of the
// letter, "" where it is not known. An error means that links may still be good.
func (e *Enrol) PasswordChanged(ctx context.Context, u store.User, language string) error {
	if err := e.Store.RemoveTickets(ctx, u.Subject); err != nil {
		return err
	}
	e.tell(ctx, request{Kind: kindChanged, Subject: u.Subject, Address: u.Email, Language: language})
	return nil
}

// tell queues a letter about something that is done already. If it cannot be
// queued that is counted, and what is done stays done.
func (e *Enrol) tell(ctx context.Context, q request) {
	if e.Post != nil && q.Address != "" {
		_ = e.Post.Queue(ctx, q, patience)
	}
}

func unavailable(err error) error {
	if err == nil {
		return nil
	}
	return oauth.Unavailable(err)
}

// newTicket stores a ticket for what t says and returns its secret.
func (e *Enrol) newTicket(ctx context.Context, t store.Ticket, life time.Duration) (string, error) {
	var raw [32]byte
	rand.Read(raw[:]) // never fails
	secret := base64.RawURLEncoding.EncodeToString(raw[:])
	t.Hash, t.Expires = digest(secret), e.Now().Add(life)
	if err := e.Store.AddTicket(ctx, t); err != nil {
		return "", fmt.Errorf("store a ticket: %w", err)
	}
	return secret, nil
}

func digest(secret string) store.Digest { return sha256.Sum256([]byte(secret)) }
