package authserver_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/enrol"
	"github.com/gatehouse/gatehouse/authserver/mail/mailbox"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// traced is a store that writes down what the requests of a test ask it for.
type traced struct{ store.Store }

type traceKey struct{}

func note(ctx context.Context, verb string) {
	if list, ok := ctx.Value(traceKey{}).(*[]string); ok {
		*list = append(*list, verb)
	}
}

func (s traced) Count(ctx context.Context, names []string, plan func([]store.Counter)) error {
	note(ctx, "count")
	return s.Store.Count(ctx, names, plan)
}

func (s traced) AddMail(ctx context.Context, m store.Mail, limit int) error {
	note(ctx, "add mail")
	return s.Store.AddMail(ctx, m, limit)
}

func (s traced) AddTicket(ctx context.Context, t store.Ticket) error {
	note(ctx, "add ticket")
	return s.Store.AddTicket(ctx, t)
}

func (s traced) UserByName(ctx context.Context, name string) (store.User, error) {
	note(ctx, "user by name")
	return s.Store.UserByName(ctx, name)
}

func (s traced) UsersByEmail(ctx context.Context, email string) ([]store.User, error) {
	note(ctx, "users by e-mail")
	return s.Store.UsersByEmail(ctx, email)
}

func (s traced) Tally(ctx context.Context, key string, now time.Time, window time.Duration) (int, error) {
	note(ctx, "tally")
	return s.Store.Tally(ctx, key, now, window)
}

// TestOAuth20_ResetAndRegistrationTellNobodyWhoIsThere compares bodies, the work
// that is done, and times.
func TestOAuth20_ResetAndRegistrationTellNobodyWhoIsThere(t *testing.T) {
	box, mailed := withMail(t, mailbox.Config{})
	e := startOn(t, traced{openStores(t, tables.SQLite(t), 1)[0]}, nil, mailed)
	e.addUser("frida", "frida@example.org")
	b := e.browser()
	b.asks("/oauth/reset", "login", "frida").shows(t, 200, "on its way")
	if _, links := e.letter(box, 1, "frida@example.org", "Your new password"); len(links) != 1 {
		t.Fatal("the known one got no link")
	}
	e.clock.advance(16 * time.Minute) // limits begin anew
	cookie := e.get("/oauth/reset").header.Get("Set-Cookie")
	cookie, _, _ = strings.Cut(cookie, ";")
	try := func(path, field, value string) (body, work string, took time.Duration) {
		t.Helper()
		f := with(fields(e.get(path, "Cookie", cookie).body), field, value)
		var verbs []string
		req := httptest.NewRequestWithContext(context.WithValue(t.Context(), traceKey{}, &verbs), http.MethodPost, e.config.Issuer+path, strings.NewReader(f.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Cookie", cookie)
		rec := httptest.NewRecorder()
		begin := time.Now()
		e.server.Handler().ServeHTTP(rec, req)
		took = time.Since(begin)
		if rec.Code != 200 {
			t.Fatalf("%s %s: %d", path, value, rec.Code)
		}
		return rec.Body.String(), strings.Join(verbs, ", "), took
	}
	for _, c := range []struct{ path, field, known, unknown string }{
		{"/oauth/reset", "login", "frida", "nobody"},
		{"/oauth/reset", "login", "frida@example.org", "nobody@example.org"},
		{"/oauth/signup", "address", "frida@example.org", "nobody@example.org"},
	} {
		k, u := time.Hour, time.Hour
		// The shortest times tell the work from the noise of a busy machine: the
		// more there are the better.
		for round := 0; round < 10 && (round == 0 || k > 2*u || u > 2*k); round++ {
			for range 4 {
				body1, work1, took1 := try(c.path, c.field, c.known)
				body2, work2, took2 := try(c.path, c.field, c.unknown)
				if body1 != body2 {
					t.Fatalf("%s: the answers differ:\n%s\n%s", c.path, body1, body2)
				}
				if work1 != "count, count, add mail" || work1 != work2 {
					t.Fatalf("%s: for somebody the store is asked to %s, for nobody to %s", c.path, work1, work2)
				}
				k, u = min(k, took1), min(u, took2)
			}
			e.clock.advance(16 * time.Minute)
		}
		if k > 2*u || u > 2*k {
			t.Errorf("%s: somebody takes %v, nobody %v", c.path, k, u)
		}
	}
}

func TestMailWaitsForTheServerAndSurvivesARestart(t *testing.T) {
	t.Parallel()
	onEachStore(t, func(t *testing.T, dsn string) {
		t.Parallel()
		var code atomic.Int64
		code.Store(451)
		box, mailed := withMail(t, mailbox.Config{Refuse: func(string) int { return int(code.Load()) }})
		stores := openStores(t, dsn, 2)
		first := startOn(t, stores[0], nil, mailed, func(c *authserver.Config) { c.Mail = nil })
		first.addUser("jon", "jon.jonsson@example.org")
		first.secret("jon.jonsson@example.org")
		if r := first.get("/oauth/reset"); r.status != 404 {
			t.Errorf("without mail there is a page to ask for one: %d", r.status)
		}
		e := startOn(t, stores[1], first, mailed)
		e.secret("jon.jonsson@example.org")
		b := e.browser()
		b.asks("/oauth/reset", "login", "jon")
		eventually(t, func() bool { return e.counts.of("mail retried") >= 1 })
		if len(box.Mails()) > 0 {
			t.Fatal("a refused mail arrived")
		}
		code.Store(0)
		e.clock.advance(6 * time.Second)
		e.letter(box, 1, "jon.jonsson@example.org", "Your new password")

		code.Store(550)
		b.asks("/oauth/reset", "login", "jon")
		if got := e.events("mail.undelivered", 1); got[0].Subject != "usr_jon" || got[0].Outcome != "failure" || e.counts.of("mail failed") != 1 {
			t.Errorf("audit %+v", got)
		}
		code.Store(451)
		b.asks("/oauth/reset", "login", "jon")
		eventually(t, func() bool { return e.counts.of("mail retried") >= 2 })
		e.clock.advance(time.Hour) // nobody wants it any more
		e.events("mail.undelivered", 2)
	})
}

func TestMailIsInTheLanguageOfItsReader(t *testing.T) {
	t.Parallel()
	box, mailed := withMail(t, mailbox.Config{})
	e := start(t, mailed)
	e.addUser("karl", "karl@example.org")
	for language, subject := range map[string]string{"de": "Ihr neues Passwort", "fr": "Votre nouveau mot de passe", "ja": "新しいパスワードについて"} {
		b := e.browser()
		page := b.get("/oauth/reset")
		b.post("/oauth/reset", with(fields(page.body), "login", "karl"), "Accept-Language", language)
		if m, links := e.letter(box, 1, "karl@example.org", subject); len(links) != 1 || !strings.Contains(m.HTML, `<html lang="`+language+`"`) {
			t.Errorf("%s:\n%s", language, m.HTML)
		}
	}
}

func TestWithoutMailNothingIsOffered(t *testing.T) {
	t.Parallel()
	e := start(t, func(c *authserver.Config) { c.Enrol = enrol.Policy{Reset: true, Register: true} })
	b := e.browser()
	page := b.get("/oauth/login")
	if strings.Contains(page.body, "/oauth/reset") || strings.Contains(page.body, "/oauth/signup") {
		t.Error("the login page offers what does not work")
	}
	csrf := fields(page.body).Get("csrf")
	for _, path := range []string{"/oauth/reset", "/oauth/signup"} {
		b.get(path).shows(t, 404, "")
		b.post(path, form("csrf", csrf, "login", "alice", "address", "a@example.org")).shows(t, 404, "")
	}
	b.get("/oauth/reset/new?"+url.Values{"ticket": {"x"}}.Encode()).shows(t, http.StatusGone, "")
	b.get("/oauth/email").shows(t, http.StatusGone, "")
	b.get("/oauth/signup/new").shows(t, http.StatusGone, "")
	if u := e.addUser("lars", "lars@example.org"); e.admin(http.MethodPost, "/api/v1/users/"+u.Subject+"/reset-password", "").status != 409 {
		t.Error("an operator mails without a mail server")
	}
}

func TestLinkIsNotMailedWhenTheSessionThatAskedForItEnded(t *testing.T) {
	t.Parallel()
	box, mailed := withMail(t, mailbox.Config{Refuse: func(to string) int {
		if to == "eve@example.org" {
			return 451
		}
		return 0
	}})
	e := start(t, mailed)
	mats := e.addUser("mats", "mats@example.org")
	b := e.browser()
	b.signIn("mats", password)
	b.post("/oauth/account/email", with(fields(b.get("/oauth/account/email").body), "address", "eve@example.org")).shows(t, 303, "")
	eventually(t, func() bool { return e.counts.of("mail retried") == 1 })
	if got := e.admin(http.MethodPost, "/api/v1/users/"+mats.Subject+"/revoke", ""); got.status >= 300 {
		t.Fatalf("revoke: %d %s", got.status, got.body)
	}
	e.clock.advance(time.Minute)
	e.delivered(box)
	if n := e.counts.of("mail retried"); n != 1 {
		t.Errorf("tried %d times: the letter of a session that ended was written", n)
	}
}
