package users

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Person is who somebody is at a directory or another provider.
type Person struct {
	// Provider is the name of the directory or provider in the configuration;
	// ID never changes there and is never given to somebody else.
	Provider, ID string
	// Name is a login name to begin with; another one is taken where somebody
	// else has it.
	Name, Email, DisplayName string
	// EmailVerified: the provider says that the address is the person's.
	EmailVerified bool
	// Roles and Groups are those that the configuration's mapping gives.
	Roles, Groups []string
}

// Directory knows passwords of people that this server does not store.
type Directory interface {
	// Authenticate returns whose name and password these are; ErrCredentials
	// when nobody's, in the same time whether there is such a name or not.
	// Any other error means that the directory could not say.
	Authenticate(ctx context.Context, name, password string) (Person, error)
	// Provider is that of its people.
	Provider() string
	// Holds reports whether the person with an ID may sign in there still. An
	// error means that the directory could not say.
	Holds(ctx context.Context, id string) (bool, error)
}

// Use makes users of a directory sign in with their passwords there. It is for
// the time before the first sign-in. record is told of users that the registry
// stores because they came from elsewhere.
func (r *Registry) Use(d Directory, record func(store.AuditEvent)) { r.directory, r.record = d, record }

// Recheck is how people of a directory are looked after when they are signed in
// already.
type Recheck struct {
	// Every is how long an answer about one of them is believed, by this process;
	// 0: the directory is not asked.
	Every time.Duration
	// Closed lets nobody of them go on while the directory does not answer;
	// otherwise all do.
	Closed bool
	// Gone ends what a subject has whom the directory lets in no more.
	Gone func(ctx context.Context, subject string) error
}

// LookAfter makes Present ask the directory. It is for the time before the first
// sign-in.
func (r *Registry) LookAfter(c Recheck) { r.recheck = c }

const (
	// askLife bounds the wait for a directory while a program waits for a token.
	askLife = time.Second
	// askAgain is how long a directory that did not answer is left alone.
	askAgain = 5 * time.Second
	// maxChecked bounds the answers that are remembered.
	maxChecked = 1 << 16
)

// Present is User for somebody who goes on with what an earlier sign-in gave. For
// a person of the directory it asks there from time to time: who is gone from it
// loses everything, and is store.ErrNotFound. Where Recheck.Closed is set, any
// other error can mean that the directory does not answer.
func (r *Registry) Present(ctx context.Context, subject string) (store.User, error) {
	row, err := r.store.UserBySubject(ctx, subject)
	if err != nil {
		return store.User{}, err
	}
	return r.PresentRow(ctx, row)
}

// PresentRow is Present for a row that the store has just given; a zero one is of
// nobody.
func (r *Registry) PresentRow(ctx context.Context, row store.User) (store.User, error) {
	subject := row.Subject
	u, err := r.enabled(row)
	if err != nil || r.directory == nil || r.recheck.Every == 0 || r.believed(subject) {
		return u, err
	}
	identities, err := r.store.Identities(ctx, subject)
	if err != nil {
		return store.User{}, err
	}
	i := slices.IndexFunc(identities, func(id store.Identity) bool { return id.Provider == r.directory.Provider() })
	if i < 0 {
		r.believe(subject, r.recheck.Every)
		return u, nil
	}
	limited, cancel := context.WithTimeout(ctx, askLife)
	held, err := r.directory.Holds(limited, identities[i].ID)
	cancel()
	switch {
	case err != nil && r.recheck.Closed:
		return store.User{}, fmt.Errorf("ask the directory about a person: %w", err)
	case err != nil:
		r.believe(subject, min(askAgain, r.recheck.Every))
		return u, nil
	case held:
		r.believe(subject, r.recheck.Every)
		return u, nil
	}
	if err := r.recheck.Gone(ctx, subject); err != nil {
		return store.User{}, err
	}
	return store.User{}, store.ErrNotFound
}

// believed reports whether the answer about a subject is young enough.
func (r *Registry) believed(subject string) bool {
	r.checking.Lock()
	defer r.checking.Unlock()
	return r.now().Before(r.checked[subject])
}

// believe remembers that a subject is there, for a while.
func (r *Registry) believe(subject string, life time.Duration) {
	r.checking.Lock()
	defer r.checking.Unlock()
	now := r.now()
	if len(r.checked) >= maxChecked {
		maps.DeleteFunc(r.checked, func(_ string, until time.Time) bool { return !now.Before(until) })
		if len(r.checked) >= maxChecked {
			clear(r.checked)
		}
	}
	r.checked[subject] = now.Add(life)
}

// SignIn returns the user that a person of another provider is here, and makes
// one at the first time. link tells that a user who has the person's verified
// e-mail address, and no other does, is that person. store.ErrNotFound for a
// user who is disabled.
func (r *Registry) SignIn(ctx context.Context, p Person, link bool) (store.User, error) {
	if p.Provider == "" || p.ID == "" {
		return store.User{}, errors.New("a person without a provider or an id there")
	}
	now := r.now()
	id := store.Identity{Provider: p.Provider, ID: p.ID, Roles: p.Roles, Groups: p.Groups, Seen: now}
	candidate := store.User{Subject: newSubject(), Email: p.Email, EmailVerified: p.EmailVerified, DisplayName: p.DisplayName, Created: now}
	event := store.AuditEvent{Time: now, Action: audit.UserAdded, Outcome: audit.Success, Actor: audit.System, Subject: candidate.Subject, Reason: p.Provider}
	if link && p.EmailVerified && p.Email != "" {
		same, err := r.byEmail(ctx, p.Email)
		if err != nil {
			return store.User{}, err
		}
		if len(same) == 1 {
			candidate, id.Linked = same[0], true
			event.Action, event.Subject = audit.UserLinked, candidate.Subject
		}
	}
	for _, name := range names(p) {
		candidate.Name = name
		if !id.Linked && r.isDeclared(name) {
			continue
		}
		u, added, err := r.store.SignInIdentity(ctx, id, candidate, event)
		if errors.Is(err, store.ErrExists) && !id.Linked {
			continue // the name is another's
		}
		if err != nil {
			return store.User{}, err
		}
		if added {
			r.record(event)
		}
		// The row alone does not tell whether a declared user still is one.
		return r.User(ctx, u.Subject)
	}
	return store.User{}, fmt.Errorf("every name for a user of %s is taken", p.Provider)
}

// names are login names for a person, the best first. The last is nobody
// else's.
func names(p Person) (list []string) {
	for _, name := range []string{p.Name, p.Name + "@" + p.Provider, p.ID + "@" + p.Provider} {
		if validName(name) && !strings.HasPrefix(name, "@") {
			list = append(list, name)
		}
	}
	return append(list, p.Provider+" "+newSubject())
}

// byEmail returns the enabled users whose address this is. It has to be verified
// or in the configuration: one that somebody typed proves nothing.
func (r *Registry) byEmail(ctx context.Context, email string) ([]store.User, error) {
	found, err := r.Addressed(ctx, email)
	return slices.DeleteFunc(found, func(u store.User) bool { return u.Disabled || !u.EmailVerified }), err
}

// Addressed returns the users whose address this is, disabled ones and those
// who never proved it too.
func (r *Registry) Addressed(ctx context.Context, email string) (found []store.User, err error) {
	if email == "" {
		return nil, nil
	}
	stored, err := r.store.UsersByEmail(ctx, email)
	if err != nil {
		return nil, err
	}
	for _, u := range stored {
		if !u.Declared {
			found = append(found, u)
		}
	}
	for name, d := range *r.declared.Load() {
		if !strings.EqualFold(d.Email, email) {
			continue
		}
		subject, err := r.store.SubjectFor(ctx, name, newSubject())
		if err != nil {
			return nil, err
		}
		found = append(found, declaredUser(store.User{Subject: subject}, d))
	}
	return found, nil
}

// Meant returns the enabled users whose name or address this is.
func (r *Registry) Meant(ctx context.Context, login string) ([]store.User, error) {
	found, err := r.Addressed(ctx, login)
	if err != nil {
		return nil, err
	}
	named, _, err := r.find(ctx, login)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil && !slices.ContainsFunc(found, func(u store.User) bool { return u.Name == named.Name }) {
		found = append(found, named)
	}
	return slices.DeleteFunc(found, func(u store.User) bool { return u.Disabled }), nil
}

// Taken reports whether somebody has this name or address, disabled users too.
func (r *Registry) Taken(ctx context.Context, login string) (bool, error) {
	found, err := r.Addressed(ctx, login)
	if err != nil || len(found) > 0 {
		return len(found) > 0, err
	}
	_, _, err = r.find(ctx, login)
	return err == nil, ignore(err, store.ErrNotFound)
}

// Keepers say who keeps what is known about a user: the name of a directory or
// provider; "" for this server.
type Keepers struct{ Password, Email string }

// Keepers returns those of a user who is not declared.
func (r *Registry) Keepers(ctx context.Context, subject string) (k Keepers, err error) {
	u, err := r.store.UserBySubject(ctx, subject)
	if err != nil {
		return k, err
	}
	identities, err := r.store.Identities(ctx, subject)
	if err != nil {
		return k, err
	}
	for _, id := range identities {
		if u.PasswordHash == "" {
			k.Password = id.Provider
		}
		if !id.Linked {
			k.Email = id.Provider
		}
	}
	return k, nil
}

// Attributes are what tokens may say about a user besides the subject.
type Attributes struct{ Roles, Groups, Permissions []string }

// Attributes returns those of a user by subject: its own and those of all its
// identities.
func (r *Registry) Attributes(ctx context.Context, subject string) (a Attributes, err error) {
	u, err := r.User(ctx, subject)
	if err != nil {
		return a, err
	}
	identities, err := r.store.Identities(ctx, subject)
	if err != nil {
		return a, err
	}
	a.Roles = slices.Clone(u.Roles)
	for _, id := range identities {
		a.Roles = append(a.Roles, id.Roles...)
		a.Groups = append(a.Groups, id.Groups...)
	}
	if permissions := r.permissions.Load(); permissions != nil {
		for _, role := range a.Roles {
			a.Permissions = append(a.Permissions, (*permissions)[role]...)
		}
	}
	for _, list := range []*[]string{&a.Roles, &a.Groups, &a.Permissions} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return a, nil
}

// DeclarePermissions says which permissions a role has.
func (r *Registry) DeclarePermissions(ofRole map[string][]string) { r.permissions.Store(&ofRole) }
