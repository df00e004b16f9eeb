// Package users knows the people who may sign in: the declared ones of the
// configuration and the stored ones in one list, and whether a password is
// right, with the limits that keep guessing slow.
//
// It owns password hashing, throttling and subjects. It does not own login
// sessions (session) or the login page (login).
//
//	u, err := registry.Login(ctx, "alice", password, ip)
//	if errors.Is(err, users.ErrCredentials) { … }
package users

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// ErrCredentials says that there is no such user or the password is wrong:
// nobody but the audit log learns which.
var ErrCredentials = errors.New("wrong user name or password")

// ThrottledError says how long to wait before the next attempt is judged.
type ThrottledError struct{ Wait time.Duration }

func (e *ThrottledError) Error() string { return "too many failed sign-ins" }

// Declared is a user of the configuration. Exactly one of Password and
// PasswordHash is set.
type Declared struct {
	Name         string
	Password     string
	PasswordHash string
	Email        string
	DisplayName  string
	Roles        []string
}

// Registry finds users. It is safe for concurrent use.
type Registry struct {
	store    store.Users
	now      func() time.Time
	throttle *Throttle
	hasher   *hasher
	// dummy is verified where there is no user, so that it takes as long.
	dummy phc

	declared atomic.Pointer[map[string]Declared]
	// permissions are those of each role.
	permissions atomic.Pointer[map[string][]string]
	directory   Directory // nil: there is none
	record      func(store.AuditEvent)
	recheck     Recheck

	checking sync.Mutex
	checked  map[string]time.Time // until when the directory need not be asked about a subject
}

// New returns a registry without declared users.
func New(s store.Users, throttle *Throttle, now func() time.Time) *Registry {
	r := &Registry{store: s, now: now, throttle: throttle, hasher: newHasher(), record: func(store.AuditEvent) {}, checked: map[string]time.Time{}}
	r.dummy = phc{memory: costMemory, time: costTime, threads: costThreads,
		salt: make([]byte, saltLength), key: make([]byte, keyLength)}
	rand.Read(r.dummy.salt)
	rand.Read(r.dummy.key)
	r.declared.Store(&map[string]Declared{})
	return r
}

// Prepared is a checked set of declared users, all with hashes.
type Prepared map[string]Declared

// Prepare checks declared users against each other and the stored ones, and
// reports every problem at once. It changes nothing.
func (r *Registry) Prepare(ctx context.Context, declared []Declared) (Prepared, error) {
	set := Prepared{}
	var problems []error
	for _, d := range declared {
		if _, twice := set[d.Name]; twice {
			problems = append(problems, fmt.Errorf("user %q is declared twice", d.Name))
			continue
		}
		d, err := r.prepare(ctx, d)
		if err != nil {
			problems = append(problems, fmt.Errorf("user %q: %w", d.Name, err))
			continue
		}
		set[d.Name] = d
		switch u, err := r.store.UserByName(ctx, d.Name); {
		case err == nil && !u.Declared:
			problems = append(problems, fmt.Errorf("user %q is declared in the configuration and stored too: remove one of them", d.Name))
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("look for a stored user %q: %w", d.Name, err)
		}
	}
	return set, errors.Join(problems...)
}

func (r *Registry) prepare(ctx context.Context, d Declared) (Declared, error) {
	switch {
	case !validName(d.Name):
		return d, ErrName
	case (d.Password == "") == (d.PasswordHash == ""):
		return d, errors.New("exactly one of password and password_hash is needed")
	case d.PasswordHash != "":
		return d, checkHash(d.PasswordHash)
	}
	hash, err := r.hasher.hash(ctx, d.Password)
	d.Password, d.PasswordHash = "", hash
	return d, err
}

// Declare makes the prepared set the declared users, at once for all.
func (r *Registry) Declare(p Prepared) {
	m := map[string]Declared(p)
	r.declared.Store(&m)
}

// isDeclared reports whether the configuration has a user of this name.
func (r *Registry) isDeclared(name string) bool {
	_, ok := (*r.declared.Load())[name]
	return ok
}

// ErrName says that a name cannot be a user's.
var ErrName = errors.New("the name must be 1 to 256 bytes without spaces at its ends or control characters")

func validName(name string) bool {
	return name != "" && len(name) <= 256 && strings.TrimSpace(name) == name &&
		!strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0xfffd })
}

// newSubject returns a subject that was never used.
func newSubject() string {
	var b [16]byte
	rand.Read(b[:])
	return "usr_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// Login returns the user whose password this is. device names a browser on
// which this user signed in before, "" for any other: failures elsewhere do not
// delay it, so that nobody can keep a user out by guessing. Errors: ErrCredentials, with
// the user for the audit where there is one of this name; *ThrottledError;
// ErrBusy; any other is the store's.
func (r *Registry) Login(ctx context.Context, name, password, device string, ip netip.Addr) (store.User, error) {
	account := "name\x00" + name
	if device != "" {
		account = "device\x00" + device
	}
	attempt, err := r.throttle.Begin(ctx, account, ip)
	if err != nil {
		return store.User{}, err
	}
	u, err := r.check(ctx, name, password)
	switch {
	case err == nil:
		err = attempt.Succeeded(ctx)
	case errors.Is(err, ErrCredentials):
		if failed := attempt.Failed(ctx); failed != nil {
			err = failed
		}
	default:
		// The attempt ends by itself if this cannot be stored.
		_ = attempt.Abandon(context.WithoutCancel(ctx))
	}
	return u, err
}

// check is Login without its limits.
func (r *Registry) check(ctx context.Context, name, password string) (store.User, error) {
	u, hash, err := r.find(ctx, name)
	known := err == nil && !u.Disabled
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.User{}, err
	}
	p, err := parsePHC(hash)
	if err != nil {
		known, p = false, r.dummy
	}
	right, err := r.hasher.verify(ctx, p, password)
	if err != nil {
		return store.User{}, err
	}
	if (!right || !known) && r.directory != nil {
		// Also where the name is one of our own, so that it takes as long.
		u, known, err = r.elsewhere(ctx, u, hash != "", name, password)
		if err != nil {
			return store.User{}, err
		}
		right = known
	}
	if !right || !known {
		return u, ErrCredentials
	}
	if u.Subject == "" { // the first login ever of a declared user
		if u.Subject, err = r.store.SubjectFor(ctx, u.Name, newSubject()); err != nil {
			return store.User{}, err
		}
	}
	if hash != "" && p.outdated() && !u.Declared {
		// The old hash is as right as before if this fails, so the login goes on.
		_ = r.rehash(ctx, u, password)
	}
	return u, nil
}

// elsewhere asks the directory whose password this is. Users of our own are
// never the directory's: it is asked for nobody then.
func (r *Registry) elsewhere(ctx context.Context, u store.User, own bool, name, password string) (store.User, bool, error) {
	if own || !validName(name) || password == "" || len(password) > maxPassword {
		_, err := r.directory.Authenticate(ctx, newSubject(), newSubject())
		if !errors.Is(err, ErrCredentials) && own {
			err = ErrCredentials // the answer about our own users does not depend on the directory
		}
		return u, false, ignore(err, ErrCredentials)
	}
	person, err := r.directory.Authenticate(ctx, name, password)
	if err != nil {
		return u, false, ignore(err, ErrCredentials)
	}
	signedIn, err := r.SignIn(ctx, person, false)
	if err != nil {
		return u, false, ignore(err, store.ErrNotFound) // disabled here
	}
	return signedIn, true, nil
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

func (r *Registry) rehash(ctx context.Context, u store.User, password string) error {
	hash, err := r.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return r.store.SetPassword(ctx, u.Subject, hash)
}

// ErrDeclared says that the configuration has this user: what it says changes
// there.
var ErrDeclared = errors.New("the user is declared in the configuration")

// ChangePassword gives a stored user a new password: ErrDeclared, ErrPassword,
// ErrBusy, store.ErrNotFound. Ending what the old one gave is the caller's.
func (r *Registry) ChangePassword(ctx context.Context, u store.User, password string, events ...store.AuditEvent) error {
	if u.Declared {
		return ErrDeclared
	}
	hash, err := r.hasher.hash(ctx, password)
	if err != nil {
		return err
	}
	return r.store.SetPassword(ctx, u.Subject, hash, events...)
}

// Throttle is the one that sign-ins go through.
func (r *Registry) Throttle() *Throttle { return r.throttle }

// find returns a user by name and the hash that counts. Every name costs the
// same look-ups. A declared user that never signed in has no subject yet.
func (r *Registry) find(ctx context.Context, name string) (store.User, string, error) {
	if !validName(name) {
		return store.User{}, "", store.ErrNotFound
	}
	u, err := r.store.UserByName(ctx, name)
	d, declared := (*r.declared.Load())[name]
	switch {
	case !declared && err == nil && u.Declared: // gone from the configuration
		return store.User{}, "", store.ErrNotFound
	case !declared:
		return u, u.PasswordHash, err
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return store.User{}, "", err
	}
	return declaredUser(u, d), d.PasswordHash, nil
}

func declaredUser(row store.User, d Declared) store.User {
	row.Name, row.Email, row.DisplayName, row.Roles, row.Declared = d.Name, d.Email, d.DisplayName, d.Roles, true
	row.EmailVerified = d.Email != "" // the operator vouches for it
	row.PasswordHash = ""
	return row
}

// User returns an enabled user by subject: store.ErrNotFound for one that is
// unknown, disabled, or declared no more.
func (r *Registry) User(ctx context.Context, subject string) (store.User, error) {
	row, err := r.store.UserBySubject(ctx, subject)
	if err != nil {
		return store.User{}, err
	}
	return r.enabled(row)
}

// enabled is User for a row of the store; a zero one is of nobody.
func (r *Registry) enabled(row store.User) (store.User, error) {
	if row.Subject == "" || row.Disabled {
		return store.User{}, store.ErrNotFound
	}
	if !row.Declared {
		row.PasswordHash = ""
		return row, nil
	}
	d, ok := (*r.declared.Load())[row.Name]
	if !ok {
		return store.User{}, store.ErrNotFound
	}
	return declaredUser(row, d), nil
}

// All returns stored and declared users without their hashes, by name.
// Declared ones that never signed in have no subject yet.
func (r *Registry) All(ctx context.Context) ([]store.User, error) {
	rows, err := r.store.Users(ctx)
	if err != nil {
		return nil, err
	}
	declared := *r.declared.Load()
	seen := map[string]bool{}
	var all []store.User
	for _, u := range rows {
		u.PasswordHash = ""
		if u.Declared {
			d, ok := declared[u.Name]
			if !ok {
				continue
			}
			u = declaredUser(u, d)
		}
		seen[u.Name] = true
		all = append(all, u)
	}
	for name, d := range declared {
		if !seen[name] {
			all = append(all, declaredUser(store.User{}, d))
		}
	}
	slices.SortFunc(all, func(a, b store.User) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// New returns a user with a new subject, for the caller to store. password may
// be empty: the user cannot sign in until it is set.
func (r *Registry) New(ctx context.Context, u store.User, password string) (store.User, error) {
	if !validName(u.Name) {
		return store.User{}, ErrName
	}
	if r.isDeclared(u.Name) {
		return store.User{}, store.ErrExists
	}
	u.Subject, u.Declared, u.Created, u.PasswordHash = newSubject(), false, r.now(), ""
	if password != "" {
		hash, err := r.hasher.hash(ctx, password)
		if err != nil {
			return store.User{}, err
		}
		u.PasswordHash = hash
	}
	return u, nil
}

// Hash returns the hash of a new password.
func (r *Registry) Hash(ctx context.Context, password string) (string, error) {
	return r.hasher.hash(ctx, password)
}
