package users

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
}

// Use makes users of a directory sign in with their passwords there. It is for
// the time before the first sign-in. record is told of users that the registry
// stores because they came from elsewhere.
func (r *Registry) Use(d Directory, record func(store.AuditEvent)) { r.directory, r.record = d, record }

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
func (r *Registry) byEmail(ctx context.Context, email string) (found []store.User, err error) {
	stored, err := r.store.UsersByEmail(ctx, email)
	if err != nil {
		return nil, err
	}
	for _, u := range stored {
		if !u.Declared && u.EmailVerified {
			found = append(found, u)
		}
	}
	for name, d := range *r.declared.Load() {
		if d.Email == "" || !strings.EqualFold(d.Email, email) {
			continue
		}
		subject, err := r.store.SubjectFor(ctx, name, newSubject())
		if err != nil {
			return nil, err
		}
		found = append(found, store.User{Subject: subject, Name: name})
	}
	return slices.DeleteFunc(found, func(u store.User) bool { return u.Disabled }), nil
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
