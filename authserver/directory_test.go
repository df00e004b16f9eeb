package authserver_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/users"
)

// directory knows one person, or is away.
type directory struct {
	away  atomic.Bool
	asked atomic.Int64
	roles atomic.Pointer[[]string]
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
