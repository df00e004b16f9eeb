// Package signin is what a sign-in does, whoever shows the page for it: it
// checks what a person proves, begins the session and says where to go on.
//
// It owns the order of the steps, their records, and that a second factor is
// asked for where there is one. It does not own passwords and limits (users),
// codes and passkeys (factors), cookies (session), nor any page.
//
//	u, second, err := s.Password(r, name, password)
//	var refusal *signin.Refusal
//	if errors.As(err, &refusal) { … } // show the page again
package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/factors"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/session"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/unusual"
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

// Config is what a SignIn needs.
type Config struct {
	// Path is that of the issuer.
	Path     string
	Sessions *session.Manager
	Users    *users.Registry
	Factors  *factors.Factors
	Revoker  Revoker
	Audit    *audit.Log
	Observer Observer
	Unusual  *unusual.Watch
}

// SignIn is safe for concurrent use.
type SignIn struct{ Config }

// New returns what signs people in.
func New(c Config) *SignIn { return &SignIn{c} }

// Refusal says that what was proved is not right, or that there were too many
// attempts: then Wait is how long the next one has to wait. It never says
// whether the user exists. It was recorded already.
type Refusal struct{ Wait time.Duration }

func (*Refusal) Error() string { return "the sign-in was refused" }

// Seconds is Wait in whole seconds, rounded up.
func (r *Refusal) Seconds() int { return int((r.Wait + time.Second - 1) / time.Second) }

// Status is that of the answer.
func (r *Refusal) Status() int {
	if r.Wait > 0 {
		return http.StatusTooManyRequests
	}
	return http.StatusUnprocessableEntity
}

// Password checks the first step. second says that another has to follow. Errors
// are *Refusal or ready for an answer.
func (s *SignIn) Password(r *http.Request, name, password string) (u store.User, second bool, err error) {
	ctx := r.Context()
	u, err = s.Users.Login(ctx, name, password, s.Sessions.Device(r, name), web.ClientIP(r))
	if err != nil {
		return u, false, s.refused(r, u.Subject, err)
	}
	second, err = s.NeedsSecond(ctx, u.Subject)
	return u, second, err
}

// NeedsSecond reports whether a second step has to follow the first.
func (s *SignIn) NeedsSecond(ctx context.Context, subject string) (bool, error) {
	set, err := s.Factors.Of(ctx, subject)
	if err != nil {
		return false, oauth.Unavailable(fmt.Errorf("look up second factors: %w", err))
	}
	return set.App, nil
}

// Proof is what the second step brings: a code, or a passkey's answer with the
// state of its ceremony.
type Proof struct {
	Code          string
	State, Answer []byte
}

// Second checks the second step of who passed the first, and returns the acr
// that both make. Errors are like those of Password.
func (s *SignIn) Second(r *http.Request, subject string, p Proof) (store.User, string, error) {
	ctx := r.Context()
	u, err := s.Users.User(ctx, subject)
	if errors.Is(err, store.ErrNotFound) {
		return u, "", s.refused(r, subject, users.ErrCredentials)
	}
	if err != nil {
		return u, "", oauth.Unavailable(fmt.Errorf("look up the user: %w", err))
	}
	acr := oauth.ACROTP
	// Guesses of codes count by themselves: only who knows the password makes
	// any, so nobody else can slow the owner down.
	err = s.limited(ctx, "second\x00"+subject, web.ClientIP(r), func() error {
		if len(p.Answer) > 0 {
			acr = oauth.ACRSecondPasskey
			_, err := s.Factors.SignIn(ctx, s.Users.User, &u, p.State, p.Answer)
			return err
		}
		if factors.IsRecovery(p.Code) {
			return s.Audit.With(ctx, event(r, audit.RecoveryUsed, audit.Success, subject, "", ""), func(record store.AuditEvent) error {
				return s.Factors.Recover(ctx, subject, p.Code, record)
			})
		}
		return s.Factors.VerifyCode(ctx, subject, p.Code)
	})
	if err != nil {
		return u, "", s.refused(r, subject, err)
	}
	return u, acr, nil
}

// Passkey checks a sign-in by a passkey alone. Errors are like those of Password.
func (s *SignIn) Passkey(r *http.Request, state, answer []byte) (store.User, error) {
	ctx := r.Context()
	var u store.User
	err := s.limited(ctx, "passkey\x00"+s.Sessions.Browser(r), web.ClientIP(r), func() error {
		var err error
		u, err = s.Factors.SignIn(ctx, s.Users.User, nil, state, answer)
		return err
	})
	if err != nil {
		return u, s.refused(r, u.Subject, err)
	}
	return u, nil
}

// limited runs f under the limits of guessing.
func (s *SignIn) limited(ctx context.Context, account string, ip netip.Addr, f func() error) error {
	attempt, err := s.Users.Throttle().Begin(ctx, account, ip)
	if err != nil {
		return err
	}
	switch err = f(); {
	case err == nil:
		return attempt.Succeeded(ctx)
	case errors.Is(err, factors.ErrWrong):
		if failed := attempt.Failed(ctx); failed != nil {
			return failed
		}
	default:
		_ = attempt.Abandon(context.WithoutCancel(ctx)) // else it ends by itself
	}
	return err
}

// refused records a refusal and returns it, or the answer to what else went wrong.
func (s *SignIn) refused(r *http.Request, subject string, err error) error {
	action, result, refusal := audit.LoginFailed, "failure", &Refusal{}
	var throttled *users.ThrottledError
	switch {
	case errors.Is(err, users.ErrCredentials), errors.Is(err, factors.ErrWrong):
	case errors.As(err, &throttled):
		action, result, refusal.Wait = audit.LoginThrottled, "throttled", throttled.Wait
	case errors.Is(err, users.ErrBusy):
		s.Observer.Login("busy")
		return &oauth.Error{
			Status: http.StatusServiceUnavailable, Code: oauth.TemporarilyUnavailable, Retry: 2 * time.Second, Err: err,
		}
	default:
		return oauth.Unavailable(fmt.Errorf("check a sign-in: %w", err))
	}
	s.Observer.Login(result)
	s.Unusual.UserFailed(r.Context(), subject, web.ClientIP(r))
	// The name that was typed is not recorded: people type passwords there.
	if err := s.Audit.Write(r.Context(), event(r, action, audit.Failure, subject, "", result)); err != nil {
		return oauth.Unavailable(err)
	}
	return refusal
}

// Finish begins the session of who proved everything, and returns where the
// browser goes on. handle is that of the interaction, "" where there is none.
// Another user's session on this browser ends.
func (s *SignIn) Finish(w http.ResponseWriter, r *http.Request, i session.Interaction, handle string, u store.User, acr string) (target string, err error) {
	if err := s.Sessions.Spend(r.Context(), i); err != nil {
		return "", err
	}
	err = s.Unusual.SignedIn(r.Context(), u.Subject, web.ClientIP(r), oauth.ACRMeets(acr, []string{oauth.ACROTP}))
	if errors.Is(err, unusual.ErrEnded) {
		return "", &oauth.Error{Status: http.StatusForbidden, Code: oauth.AccessDenied,
			Description: "This account was never used from this country. Sign in with a second step or a passkey, or ask who runs this service."}
	}
	if err != nil {
		return "", oauth.Unavailable(err)
	}
	began, err := s.begin(w, r, u, acr)
	if err != nil {
		return "", err
	}
	if err := s.Sessions.MarkDevice(w, r, u.Name); err != nil {
		return "", oauth.Failed(err)
	}
	s.Observer.Login("success")
	switch {
	case i.Next != "":
		return s.Path + i.Next, nil
	case handle == "" || i.Query == "" && i.Return == "":
		return s.Path + "/oauth/account", nil
	}
	i.LoggedIn, i.Half = began.ID, ""
	if handle, err = s.Sessions.Seal(s.Sessions.Browser(r), i); err != nil {
		return "", oauth.Failed(err)
	}
	return s.Path + "/oauth/" + i.Back() + "?i=" + handle, nil
}

func (s *SignIn) begin(w http.ResponseWriter, r *http.Request, u store.User, acr string) (store.Session, error) {
	ctx := r.Context()
	previous, err := s.Sessions.Current(ctx, r)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return previous, oauth.Unavailable(fmt.Errorf("look up the session: %w", err))
	}
	if previous.ID != "" && previous.Subject != u.Subject {
		if err := s.Revoker.EndSession(ctx, previous.ID); err != nil {
			return previous, oauth.Unavailable(fmt.Errorf("end the session before: %w", err))
		}
	}
	record := s.Audit.Stamp(event(r, audit.LoginSucceeded, audit.Success, u.Subject, "", acr))
	began, cookie, err := s.Sessions.Start(ctx, r, previous, u.Subject, acr, &record)
	if err != nil {
		return began, oauth.Unavailable(fmt.Errorf("start a session: %w", err))
	}
	s.Audit.Line(ctx, record)
	s.Sessions.Remember(w, cookie)
	return began, nil
}

func event(r *http.Request, action, outcome, subject, sessionID, reason string) store.AuditEvent {
	actor := audit.Unknown
	if outcome == audit.Success {
		actor = audit.User(subject)
	}
	return store.AuditEvent{
		Action: action, Outcome: outcome, Actor: actor, Subject: subject, Session: sessionID,
		IP: web.ClientAddress(r), Reason: reason,
	}
}
