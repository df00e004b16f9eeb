package enrol

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/mail"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

const (
	// Of one kind an address gets so many letters in that time, whoever asks:
	// nobody's mailbox can be filled. What was sent first is good for longer,
	// so nobody is kept out by it.
	maxLetters    = 3
	lettersWindow = 10 * time.Minute
)

// Write makes the letters of a request. It is a mail.Writer.
func (e *Enrol) Write(ctx context.Context, content json.RawMessage, first bool) ([]mail.Message, error) {
	var q request
	if err := json.Unmarshal(content, &q); err != nil {
		return nil, nil // of another version
	}
	var drafts []draft
	var err error
	switch q.Kind {
	case kindReset:
		drafts, err = e.resets(ctx, q)
	case kindSignup:
		drafts, err = e.signup(ctx, q)
	case kindEmail:
		drafts, err = e.email(ctx, q)
	case kindChanged, kindMoved:
		u, wrong := e.Users.User(ctx, q.Subject)
		if errors.Is(wrong, store.ErrNotFound) {
			return nil, nil
		}
		err = wrong
		drafts = []draft{{to: q.Address, subject: q.Subject, letter: web.Letter{
			Name: q.Kind, Lines: []web.Line{{Key: "mail." + q.Kind + ".text", Args: []any{u.Name}}},
			Notes: []web.Line{{Key: "mail." + q.Kind + ".note"}},
		}}}
	}
	if err != nil {
		return nil, err
	}
	var messages []mail.Message
	for _, d := range drafts {
		d.letter.Language = q.Language
		m, err := e.message(ctx, q.Kind, d, first)
		if err != nil {
			return nil, err
		}
		messages = append(messages, m...)
	}
	return messages, nil
}

// draft is a letter and whose it is.
type draft struct {
	to, subject string
	letter      web.Letter
}

// message renders a draft; none where the address got enough of this kind.
func (e *Enrol) message(ctx context.Context, kind string, d draft, first bool) ([]mail.Message, error) {
	if first {
		address := digest(strings.ToLower(d.to))
		n, err := e.Store.Tally(ctx, "mail:"+kind+":"+base64.RawURLEncoding.EncodeToString(address[:18]), e.Now(), lettersWindow)
		if err != nil || n > maxLetters {
			return nil, err
		}
	}
	subject, text, html, err := e.Pages.Write(d.letter)
	if err != nil {
		return nil, err
	}
	return []mail.Message{{To: d.to, Subject: subject, Text: text, HTML: html, User: d.subject, Topic: kind}}, nil
}

// resets are the letters about the passwords of all who are meant, one for each
// address.
func (e *Enrol) resets(ctx context.Context, q request) (drafts []draft, err error) {
	meant, err := e.meant(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, u := range meant {
		if u.Email == "" {
			continue
		}
		i := slices.IndexFunc(drafts, func(d draft) bool { return strings.EqualFold(d.to, u.Email) })
		if i < 0 {
			i = len(drafts)
			drafts = append(drafts, draft{to: u.Email, subject: u.Subject, letter: web.Letter{
				Name: kindReset, Lines: []web.Line{{Key: "mail.reset.text"}}, Notes: []web.Line{{Key: "mail.reset.note"}},
			}})
		}
		if err := e.reset(ctx, &drafts[i].letter, u); err != nil {
			return nil, err
		}
	}
	for i := range drafts {
		if l := &drafts[i].letter; len(l.Links) > 0 {
			l.Notes = slices.Insert(l.Notes, 0, lasts(e.Policy.ResetTTL))
		}
	}
	return drafts, nil
}

func (e *Enrol) meant(ctx context.Context, q request) ([]store.User, error) {
	if q.Subject == "" {
		return e.Users.Meant(ctx, q.Login)
	}
	u, err := e.Users.User(ctx, q.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return []store.User{u}, err
}

// reset says in a letter how a user gets a new password.
func (e *Enrol) reset(ctx context.Context, l *web.Letter, u store.User) error {
	if u.Declared {
		l.Lines = append(l.Lines, web.Line{Key: "mail.reset.declared", Args: []any{u.Name}})
		return nil
	}
	k, err := e.Users.Keepers(ctx, u.Subject)
	if err != nil {
		return err
	}
	if k.Password != "" {
		l.Lines = append(l.Lines, web.Line{Key: "mail.reset.elsewhere", Args: []any{u.Name, k.Password}})
		return nil
	}
	secret, err := e.newTicket(ctx, store.Ticket{Kind: kindReset, Subject: u.Subject, Email: u.Email}, e.Policy.ResetTTL)
	if err != nil {
		return err
	}
	l.Links = append(l.Links, web.Link{Account: u.Name, URL: e.link("/oauth/reset/new", secret)})
	return nil
}

// signup is the letter to the reader of an address who wants an account, or has
// one.
func (e *Enrol) signup(ctx context.Context, q request) ([]draft, error) {
	meant, err := e.Users.Meant(ctx, q.Login)
	if err != nil {
		return nil, err
	}
	taken := len(meant) > 0
	if !taken { // by a disabled user, who is told nothing
		if taken, err = e.Users.Taken(ctx, strings.ToLower(q.Login)); err != nil || taken {
			return nil, err
		}
	}
	l := web.Letter{Name: kindSignup, Lines: []web.Line{{Key: "mail.signup.text"}}, Notes: []web.Line{{Key: "mail.signup.note"}}}
	if taken {
		l.Lines[0].Key = "mail.signup.exists"
		for _, u := range meant {
			l.Links = append(l.Links, web.Link{Account: u.Name, URL: e.Issuer + "/oauth/login"})
		}
		return []draft{{to: q.Login, subject: meant[0].Subject, letter: l}}, nil
	}
	secret, err := e.newTicket(ctx, store.Ticket{Kind: kindSignup, Email: q.Login}, e.Policy.VerificationTTL)
	if err != nil {
		return nil, err
	}
	l.Links = []web.Link{{URL: e.link("/oauth/signup/new", secret)}}
	l.Notes = slices.Insert(l.Notes, 0, lasts(e.Policy.VerificationTTL))
	return []draft{{to: q.Login, letter: l}}, nil
}

// email is the letter to an address that a user says is the user's. It is not
// written when the session ended in which that was said: by a new password, for
// one.
func (e *Enrol) email(ctx context.Context, q request) ([]draft, error) {
	u, err := e.Users.User(ctx, q.Subject)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	live, err := e.Store.Sessions(ctx, q.Subject, e.Now())
	if err != nil || !slices.ContainsFunc(live, func(s store.Session) bool { return s.ID == q.Session }) {
		return nil, err
	}
	secret, err := e.newTicket(ctx, store.Ticket{Kind: kindEmail, Subject: u.Subject, Email: q.Address}, e.Policy.VerificationTTL)
	if err != nil {
		return nil, err
	}
	return []draft{{to: q.Address, subject: u.Subject, letter: web.Letter{
		Name:  kindEmail,
		Lines: []web.Line{{Key: "mail.email.text", Args: []any{u.Name}}},
		Links: []web.Link{{URL: e.link("/oauth/email", secret)}},
		Notes: []web.Line{lasts(e.Policy.VerificationTTL), {Key: "mail.email.note"}},
	}}}, nil
}

func (e *Enrol) link(path, secret string) string {
	return e.Issuer + path + "?" + url.Values{"ticket": {secret}}.Encode()
}

// lasts says how long a link is good.
func lasts(life time.Duration) web.Line {
	if life%time.Hour == 0 {
		return web.Line{Key: "mail.hours", Args: []any{int(life / time.Hour)}}
	}
	return web.Line{Key: "mail.minutes", Args: []any{int(life / time.Minute)}}
}

// Letters are all that are sent, for trying a theme.
func Letters() (list []web.Letter) {
	for name, keys := range map[string][]string{
		kindReset:   {"text", "declared", "elsewhere", "note"},
		kindSignup:  {"text", "exists", "note"},
		kindEmail:   {"text", "note"},
		kindChanged: {"text", "note"},
		kindMoved:   {"text", "note"},
	} {
		l := web.Letter{Name: name, Notes: []web.Line{lasts(time.Hour), lasts(time.Minute)}}
		for _, key := range keys {
			l.Lines = append(l.Lines, web.Line{Key: fmt.Sprintf("mail.%s.%s", name, key)})
		}
		list = append(list, l)
	}
	return list
}
