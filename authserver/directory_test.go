package authserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/users"
)

// directory knows one person, or is away.
type directory struct {
	away  atomic.Bool
	asked atomic.Int64
	roles atomic.Pointer[[]string]
	gone  atomic.Bool
	holds atomic.Int64 // questions
}

func (d *directory) Provider() string { return "ldap" }

func (d *directory) Holds(_ context.Context, id string) (bool, error) {
	d.holds.Add(1)
	if d.away.Load() {
		return false, errors.New("the directory does not answer")
	}
	return id == "uuid-of-dana" && !d.gone.Load(), nil
}

func (d *directory) Authenticate(_ context.Context, name, pw string) (users.Person, error) {
	d.asked.Add(1)
	switch {
	case d.away.Load():
		return users.Person{}, errors.New("the directory does not answer")
	case (name != "dana" && name != "alice") || pw != password:
		return users.Person{}, users.ErrCredentials
	}
	p := users.Person{Provider: "ldap", ID: "uuid-of-" + name, Name: name, Email: name + "@corp.example.com", DisplayName: "Dana D", EmailVerified: true, Groups: []string{"staff"}}
	if roles := d.roles.Load(); roles != nil {
		p.Roles = *roles
	}
	return p, nil
}

func TestPeopleOfADirectoryAreUsersHere(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		d := &directory{}
		d.roles.Store(&[]string{"editor"})
		e := startOn(t, openStores(t, dsn, 1)[0], nil, func(c *authserver.Config) {
			c.Directory = d
			for i := range c.Declared.Clients {
				if c.Declared.Clients[i].ID == "web" {
					c.Declared.Clients[i].Claims = map[string]string{"roles": "user.roles", "groups": "user.groups"}
				}
			}
		})
		signIn := func(name, pw string) reply {
			b := e.browser()
			return b.post("/oauth/login", with(fields(b.loginPage().body), "username", name, "password", pw))
		}
		grant := func() (reply, map[string]any) {
			b := e.browser()
			r := e.redeem(b.code(b.run(request("prompt", "consent"), "dana", "allow"))).want(t, 200, "")
			return r, claims(t, r.str("access_token"), 1)
		}
		first, says := grant()
		subject := says["sub"].(string)
		if !strings.HasPrefix(subject, "usr_") || fmt.Sprint(says["roles"], says["groups"]) != "[editor] [staff]" {
			t.Errorf("claims %v", says)
		}
		// The same person is the same user, with what the directory says now.
		d.roles.Store(&[]string{"auditor"})
		if _, again := grant(); again["sub"] != subject || fmt.Sprint(again["roles"]) != "[auditor]" {
			t.Errorf("the second time: %v", again)
		}
		if ev := e.events("user.added", 1); len(ev) != 1 || ev[0].Subject != subject || ev[0].Reason != "ldap" {
			t.Errorf("audit %+v", ev)
		}

		// A name of our own is never the directory's, and nobody learns which is which.
		d.asked.Store(0)
		unknown, wrong, own := signIn("nobody", "a wrong password"), signIn("dana", "a wrong password"), signIn("alice", "a wrong password")
		e.secret("a wrong password")
		for _, r := range []reply{unknown, wrong, own} {
			if r.status != http.StatusUnprocessableEntity {
				t.Errorf("status %d", r.status)
			}
		}
		if d.asked.Load() != 3 {
			t.Errorf("the directory was asked %d times for three wrong sign-ins", d.asked.Load())
		}
		if r := signIn("alice", password); r.status != http.StatusSeeOther || d.asked.Load() != 3 {
			t.Errorf("a user of our own: %d", r.status)
		}

		// While it is away our own users go on, and others are told so.
		d.away.Store(true)
		if r := signIn("alice", password); r.status != http.StatusSeeOther {
			t.Errorf("a user of our own in an outage: %d", r.status)
		}
		if r := signIn("dana", password); r.status != http.StatusServiceUnavailable {
			t.Errorf("a person of the directory in an outage: %d", r.status)
		}
		e.refresh(first.str("refresh_token")).want(t, 200, "")
		d.away.Store(false)

		// Disabled here is disabled, whatever the directory says.
		e.admin("PATCH", "/api/v1/users/"+subject, `{"disabled":true}`).want(t, 200, "")
		if r := signIn("dana", password); r.status != http.StatusUnprocessableEntity {
			t.Errorf("a disabled user: %d", r.status)
		}
		e.refresh(first.str("refresh_token")).want(t, 400, "invalid_grant")
	})
}

func TestOAuth39_WhoIsGoneFromTheDirectoryLosesEverything(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, start func(...func(*authserver.Config)) *env) {
		d := &directory{}
		e := start(func(c *authserver.Config) { c.Directory, c.DirectoryRecheck = d, 5*time.Minute })
		b := e.browser()
		r := e.redeem(b.code(b.run(request(), "dana", "allow"))).want(t, 200, "")
		refresh := func() reply { return e.refresh(r.str("refresh_token")) }
		next := func() {
			t.Helper()
			r = refresh().want(t, 200, "")
		}
		next()
		d.gone.Store(true)
		next() // believed for five minutes
		if d.holds.Load() != 1 {
			t.Errorf("the directory was asked %d times", d.holds.Load())
		}
		e.clock.advance(5 * time.Minute)
		if !e.active(r.str("access_token")) {
			t.Fatal("gone too soon")
		}
		refresh().want(t, 400, "invalid_grant")
		b.signedOut(t)
		if e.active(r.str("access_token")) {
			t.Error("a token of who is gone lives")
		}
		if ev := e.events("user.gone", 1); len(ev) != 1 || ev[0].Reason != "ldap" || !strings.HasPrefix(ev[0].Subject, "usr_") {
			t.Errorf("audit %+v", ev)
		}

		// A login that goes on is looked after like a grant.
		d.gone.Store(false)
		e.clock.advance(time.Second)
		other := e.browser()
		other.run(request("prompt", "consent"), "dana", "allow")
		d.gone.Store(true)
		e.clock.advance(6 * time.Minute)
		if r := other.get(authorizeURL(request())); !strings.HasPrefix(r.header.Get("Location"), "/oauth/login") {
			t.Errorf("a login of who is gone: %s", r.header.Get("Location"))
		}
		// People of our own are not asked about.
		before := d.holds.Load()
		e.refresh(e.grant().str("refresh_token")).want(t, 200, "")
		if d.holds.Load() != before {
			t.Error("the directory was asked about a user of our own")
		}
	})
}

func TestDirectoryThatIsAwayLetsPeopleGoOnOrNot(t *testing.T) {
	for _, closed := range []bool{false, true} {
		d := &directory{}
		e := start(t, func(c *authserver.Config) {
			c.Directory, c.DirectoryRecheck, c.DirectoryClosed = d, 5*time.Minute, closed
		})
		b := e.browser()
		r := e.redeem(b.code(b.run(request(), "dana", "allow"))).want(t, 200, "")
		d.away.Store(true)
		e.clock.advance(10 * time.Minute)
		if closed {
			e.refresh(r.str("refresh_token")).want(t, 503, "temporarily_unavailable")
			d.away.Store(false)
		}
		r = e.refresh(r.str("refresh_token")).want(t, 200, "")
		if ev := len(e.events("token.refreshed", 1)); ev != 1 {
			t.Errorf("closed %v: %d refreshes", closed, ev)
		}
		d.away.Store(false)
		d.gone.Store(true)
		e.clock.advance(10 * time.Minute)
		e.refresh(r.str("refresh_token")).want(t, 400, "invalid_grant")
	}
}
