package enrol

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// ticket returns what a link is for without using it; ErrLink.
func (e *Enrol) ticket(ctx context.Context, kind, secret string) (store.Ticket, error) {
	t, err := e.Store.Ticket(ctx, digest(secret), kind, e.Now())
	return t, dead(err)
}

// dead makes the store's answer about a ticket ready for an answer.
func dead(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, store.ErrNotFound):
		return ErrLink
	case errors.Is(err, users.ErrBusy):
		return busy(err)
	}
	return oauth.Unavailable(fmt.Errorf("use a mailed link: %w", err))
}

// holder returns a ticket with the enabled user that it is for.
func (e *Enrol) holder(ctx context.Context, kind, secret string) (store.Ticket, store.User, error) {
	t, err := e.ticket(ctx, kind, secret)
	if err != nil {
		return t, store.User{}, err
	}
	u, err := e.Users.User(ctx, t.Subject)
	if err == nil && u.Declared {
		err = store.ErrNotFound
	}
	return t, u, dead(err)
}

// Reset returns the user who may set a password by a link. It does not use the
// link up: machines that look into mail open links. Errors: ErrLink, or ready for
// an answer, as with all that follow.
func (e *Enrol) Reset(ctx context.Context, secret string) (store.User, error) {
	_, u, err := e.holder(ctx, kindReset, secret)
	return u, err
}

// SetPassword gives the user of a link a new password and ends everything that
// the old one gave. It signs nobody in: who has a second factor still needs it.
// users.ErrPassword, with the link as good as before.
func (e *Enrol) SetPassword(r *http.Request, secret, password string) error {
	ctx := r.Context()
	if !users.GoodPassword(password) {
		return users.ErrPassword
	}
	t, u, err := e.holder(ctx, kindReset, secret)
	if err != nil {
		return err
	}
	hash, err := e.Users.Hash(ctx, password)
	if err != nil {
		return dead(err)
	}
	err = e.Audit.With(ctx, e.event(r, audit.PasswordReset, u.Subject), func(event store.AuditEvent) error {
		return e.Store.ResetPassword(ctx, t.Hash, kindReset, hash, e.Now(), event)
	})
	if err != nil {
		return dead(err)
	}
	if _, err := e.Revoker.Revoke(ctx, oauth.LevelSubject, u.Subject); err != nil {
		return oauth.Unavailable(err)
	}
	e.tell(ctx, request{Kind: kindChanged, Subject: u.Subject, Address: u.Email, Language: e.Pages.Language(r, "")})
	return nil
}

// Email returns the user and the address that a link confirms for it.
func (e *Enrol) Email(ctx context.Context, secret string) (u store.User, address string, err error) {
	t, u, err := e.holder(ctx, kindEmail, secret)
	return u, t.Email, err
}

// ConfirmEmail makes the address of a link the user's, and tells the one before.
func (e *Enrol) ConfirmEmail(r *http.Request, secret string) error {
	ctx := r.Context()
	t, u, err := e.holder(ctx, kindEmail, secret)
	if err != nil {
		return err
	}
	err = e.Audit.With(ctx, e.event(r, audit.EmailConfirmed, u.Subject), func(event store.AuditEvent) error {
		return e.Store.ConfirmEmail(ctx, t.Hash, kindEmail, e.Now(), event)
	})
	if err != nil {
		return dead(err)
	}
	if !strings.EqualFold(u.Email, t.Email) {
		e.tell(ctx, request{Kind: kindMoved, Subject: u.Subject, Address: u.Email, Language: e.Pages.Language(r, "")})
	}
	return nil
}

// Signup returns the address with which an account may be made by a link.
func (e *Enrol) Signup(ctx context.Context, secret string) (address string, err error) {
	if !e.CanRegister() { // it may have been switched off since
		return "", ErrLink
	}
	t, err := e.ticket(ctx, kindSignup, secret)
	return t.Email, err
}

// maxDisplayName bounds the name that people give themselves.
const maxDisplayName = 128

// Register makes the account of a link. Its login name is the address, which
// only its reader learns to be free. users.ErrPassword, with the link as good as
// before; store.ErrExists when there is an account by now.
func (e *Enrol) Register(r *http.Request, secret, displayName, password string) error {
	ctx := r.Context()
	if !users.GoodPassword(password) {
		return users.ErrPassword
	}
	address, err := e.Signup(ctx, secret)
	if err != nil {
		return err
	}
	name := strings.ToLower(address)
	if taken, err := e.Users.Taken(ctx, name); err != nil || taken {
		return orExists(err)
	}
	u, err := e.Users.New(ctx, store.User{
		Name: name, Email: address, EmailVerified: true, DisplayName: printable(displayName),
	}, password)
	if err == nil {
		err = e.Audit.With(ctx, e.event(r, audit.UserRegistered, u.Subject), func(event store.AuditEvent) error {
			return e.Store.RegisterUser(ctx, digest(secret), kindSignup, u, e.Now(), event)
		})
	}
	if errors.Is(err, store.ErrExists) {
		return store.ErrExists
	}
	return dead(err)
}

func orExists(err error) error {
	if err == nil {
		return store.ErrExists
	}
	return dead(err)
}

// printable is a typed name without what does not show, bounded.
func printable(name string) string {
	name = strings.TrimSpace(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, name))
	if runes := []rune(name); len(runes) > maxDisplayName {
		name = string(runes[:maxDisplayName])
	}
	return name
}

func (e *Enrol) event(r *http.Request, action, subject string) store.AuditEvent {
	return store.AuditEvent{
		Action: action, Outcome: audit.Success, Actor: audit.User(subject), Subject: subject, IP: web.ClientAddress(r),
	}
}
