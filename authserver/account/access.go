package account

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// endSession ends one of the person's own sessions.
func (e *Endpoint) endSession(w http.ResponseWriter, r *http.Request, p person, form web.Form) error {
	id := form.Value("id")
	err := e.endSessions(r, p, func(s store.Session) bool { return s.ID == id })
	if err != nil {
		return err
	}
	if id == p.session.ID {
		e.Sessions.Forget(w)
		web.Redirect(w, e.Path+"/oauth/login")
		return nil
	}
	return e.done(w, "session")
}

// endOthers ends every session but this one.
func (e *Endpoint) endOthers(w http.ResponseWriter, r *http.Request, p person, _ web.Form) error {
	if err := e.endSessions(r, p, func(s store.Session) bool { return s.ID != p.session.ID }); err != nil {
		return err
	}
	return e.done(w, "sessions")
}

func (e *Endpoint) endSessions(r *http.Request, p person, which func(store.Session) bool) error {
	live, err := e.Store.Sessions(r.Context(), p.user.Subject, e.Now())
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("look up sessions: %w", err))
	}
	for _, s := range live {
		if !which(s) {
			continue
		}
		event := e.event(r, p, audit.SessionEnded)
		event.Session = s.ID
		err := e.Audit.With(r.Context(), event, func(event store.AuditEvent) error {
			return e.Revoker.EndSession(r.Context(), s.ID, event)
		})
		if err != nil {
			return oauth.Unavailable(err)
		}
	}
	return nil
}

// withdraw takes back what the person allowed an application.
func (e *Endpoint) withdraw(w http.ResponseWriter, r *http.Request, p person, form web.Form) error {
	client := form.Value("client")
	event := e.event(r, p, audit.ConsentRemoved)
	event.Client = client
	err := e.Audit.With(r.Context(), event, func(event store.AuditEvent) error {
		return e.Revoker.Withdraw(r.Context(), p.user.Subject, client, event)
	})
	if err != nil {
		return oauth.Unavailable(err)
	}
	return e.done(w, "withdrawn")
}

func (e *Endpoint) showPassword(w http.ResponseWriter, r *http.Request, p person) error {
	return e.passwordPage(w, r, p, http.StatusOK, passwordView{})
}

func (e *Endpoint) passwordPage(w http.ResponseWriter, r *http.Request, p person, status int, v passwordView) error {
	if p.user.Declared {
		return oauth.Refuse(oauth.InvalidRequest, "The password of this account is kept elsewhere.")
	}
	v.CSRF, v.User = e.Guard.Token(e.Sessions.Cookie(r)), p.user.Name
	page := web.Page{Name: "password", Status: status, Data: v, Problem: passwordProblems[v.Problem]}
	if v.Wait > 0 {
		page.Problem = web.ProblemThrottled
	}
	return e.Pages.Show(w, r, page)
}

// password changes the password of who knows the current one. Everything that
// the old one gave ends, on other browsers and in applications; this browser
// gets a new session.
func (e *Endpoint) password(w http.ResponseWriter, r *http.Request, p person, form web.Form) error {
	if p.user.Declared {
		return e.passwordPage(w, r, p, http.StatusOK, passwordView{})
	}
	again := func(status int, v passwordView) error { return e.passwordPage(w, r, p, status, v) }
	fresh := form.Value("new")
	if fresh != form.Value("repeat") {
		return again(http.StatusUnprocessableEntity, passwordView{Problem: "repeat"})
	}
	if !users.GoodPassword(fresh) {
		return again(http.StatusUnprocessableEntity, passwordView{Problem: "length"})
	}
	ctx := r.Context()
	_, err := e.Users.Login(ctx, p.user.Name, form.Value("current"), e.Sessions.Device(r, p.user.Name), web.ClientIP(r))
	var throttled *users.ThrottledError
	switch {
	case errors.Is(err, users.ErrCredentials):
		event := e.event(r, p, audit.LoginFailed)
		event.Outcome, event.Reason = audit.Failure, "failure"
		if err := e.Audit.Write(ctx, event); err != nil {
			return oauth.Unavailable(err)
		}
		return again(http.StatusUnprocessableEntity, passwordView{Problem: "current"})
	case errors.As(err, &throttled):
		seconds := int((throttled.Wait + time.Second - 1) / time.Second)
		w.Header().Set("Retry-After", fmt.Sprint(seconds))
		return again(http.StatusTooManyRequests, passwordView{Wait: seconds})
	case err != nil:
		return oauth.Unavailable(fmt.Errorf("check the current password: %w", err))
	}
	err = e.Audit.With(ctx, e.event(r, p, audit.PasswordChanged), func(event store.AuditEvent) error {
		return e.Users.ChangePassword(ctx, p.user, fresh, event)
	})
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("change the password: %w", err))
	}
	if _, err := e.Revoker.Revoke(ctx, oauth.LevelSubject, p.user.Subject); err != nil {
		return oauth.Unavailable(err)
	}
	if err := e.Enrol.PasswordChanged(ctx, p.user, e.Pages.Language(r, "")); err != nil {
		return oauth.Unavailable(err)
	}
	event := e.Audit.Stamp(e.event(r, p, audit.LoginSucceeded))
	event.Reason = p.session.ACR
	_, cookie, err := e.Sessions.Start(ctx, r, store.Session{}, p.user.Subject, p.session.ACR, &event)
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("start a session: %w", err))
	}
	e.Audit.Line(ctx, event)
	e.Sessions.Remember(w, cookie)
	return e.done(w, "password")
}
