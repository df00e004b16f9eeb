// Package storetest holds the contract of package store as tests: what each
// verb promises, and races of many goroutines, replicas and processes over it.
//
// It owns no store and starts no server; the tests of an implementation pass
// it handles on a database of their own.
//
//	func TestMain(m *testing.M) { storetest.Child(open); os.Exit(m.Run()) }
//	func TestContract(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) []store.Store { return twoHandlesOnOneDatabase(t) })
//	}
package storetest

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Run checks every verb of the contract. open returns at least two handles on
// one new, empty database, as two replicas have them, and closes them with t.
func Run(t *testing.T, open func(t *testing.T) []store.Store) {
	var all []promise
	for _, part := range [][]promise{codes, pushed, devices, logouts, registrations, refreshes, revocations, keys, people, accounts, mail, rest} {
		all = append(all, part...)
	}
	for _, p := range all {
		t.Run(p.name, func(t *testing.T) {
			stores := open(t)
			if len(stores) < 2 {
				t.Fatalf("%d handles, want at least two", len(stores))
			}
			p.check(t, stores)
		})
	}
}

type promise struct {
	name  string
	check func(t *testing.T, stores []store.Store)
}

// now is the time of every test that does not move it.
var now = time.Date(2026, 3, 4, 5, 6, 7, 890123000, time.UTC)

// name returns an identifier that no other test uses.
func name(prefix string) string { return prefix + rand.Text() }

// digest stands for the digest of a secret.
func digest(parts ...any) store.Digest { return sha256.Sum256(fmt.Append(nil, parts...)) }

// code returns a code that can be redeemed at now.
func code() store.Code {
	return store.Code{
		Hash: digest(name("code")), ClientID: name("client-"), RedirectURI: "https://app.example/cb?x=ü",
		Challenge: "challenge", Nonce: "nonce", Scopes: []string{"openid", "read:orders"}, Resources: []string{"https://api.example"},
		Subject: name("usr_"), Session: name("sid-"), Grant: name("grant-"), ACR: "pwd",
		AuthTime: now.Add(-time.Minute), Expires: now.Add(time.Minute), DPoPKey: "a thumbprint",
	}
}

// family returns a family in its first generation, which is live at now.
func family() store.Family {
	grant := name("grant-")
	return store.Family{
		Grant: grant, ClientID: name("client-"), Subject: name("usr_"), Session: name("sid-"),
		Scopes: []string{"openid"}, ACR: "pwd", Nonce: "n", AuthTime: now.Add(-time.Hour), Created: now.Add(-time.Minute),
		Expires: now.Add(720 * time.Hour), Generation: 1, Hash: token(grant, 1), Rotated: now.Add(-time.Minute),
		IdleUntil: now.Add(168 * time.Hour), DPoPKey: "a thumbprint", Certificate: "another",
	}
}

// token is the digest of a grant's refresh token of a generation.
func token(grant string, generation int) store.Digest { return digest(grant, "#", generation) }

// rotation presents the token of a generation of f, with ten seconds of grace.
func rotation(f store.Family, generation int) store.Rotation {
	return store.Rotation{
		Grant: f.Grant, ClientID: f.ClientID, Presented: token(f.Grant, generation), Next: token(f.Grant, generation+1),
		Generation: generation, Now: now, IdleUntil: now.Add(168 * time.Hour), Grace: 10 * time.Second, TokenLife: 15 * time.Minute,
	}
}

func session() store.Session {
	return store.Session{
		ID: name("sid-"), Cookie: digest(name("cookie")), Subject: name("usr_"), ACR: "pwd", AuthTime: now.Add(-time.Minute),
		Created: now.Add(-time.Minute), Expires: now.Add(time.Hour), Agent: "Browser",
	}
}

func revocation(level oauth.Level, id string) oauth.Revocation {
	return oauth.Revocation{Level: level, ID: id, Expires: now.Add(time.Hour)}
}

// must fails the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// got unwraps a result that must come without an error.
func got[V any](t *testing.T) func(v V, err error) V {
	return func(v V, err error) V {
		t.Helper()
		must(t, err)
		return v
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func wantEqual(t *testing.T, what string, have, want any) {
	t.Helper()
	if !reflect.DeepEqual(have, want) {
		t.Errorf("%s:\nhave %+v\nwant %+v", what, have, want)
	}
}

// race runs n calls of f at once, spread over the stores.
func race(stores []store.Store, n int, f func(i int, s store.Store)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			f(i, stores[i%len(stores)])
		})
	}
	close(start)
	wg.Wait()
}

// counted counts outcomes of a race.
type counted struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *counted) add(outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[outcome]++
}

// addError counts nil as "ok" and the contract's errors by their text.
func (c *counted) addError(err error) {
	for _, known := range []error{store.ErrNotFound, store.ErrExists, store.ErrExpired, store.ErrUsed, store.ErrReuse, store.ErrMismatch} {
		if errors.Is(err, known) {
			err = known
		}
	}
	if err == nil {
		c.add("ok")
		return
	}
	c.add(err.Error())
}
