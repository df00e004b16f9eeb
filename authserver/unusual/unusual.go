// Package unusual notices what is allowed and yet looks like somebody else: a
// refresh token in two places, refreshes in a rush, a sign-in from a country
// where the person never was, failures without end.
//
// It owns what counts as unusual, its records, and what is ended because of it.
// It does not own the refusals that hold for everybody (users, grants), nor
// which networks are in which country: that is a file of the operator's.
//
//	if err := watch.Refreshed(ctx, family, ip, replayed); err != nil { … } // ErrEnded
package unusual

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Action is what follows when something unusual is noticed.
type Action string

// Actions. Notify writes the event and counts it, Revoke ends what it concerns
// besides.
const (
	Off    Action = "off"
	Notify Action = "notify"
	Revoke Action = "revoke"
)

// ErrEnded says that what was asked for ended because it is unusual.
var ErrEnded = errors.New("ended because it is unusual")

// Policy is what follows what. The zero Action is Off.
type Policy struct {
	Refresh, NewCountry, Failures Action
}

// Revoker ends grants and sessions.
type Revoker interface {
	Revoke(ctx context.Context, level oauth.Level, id string, events ...store.AuditEvent) (oauth.Revocation, error)
}

// Observer counts what is noticed, by kind: refresh, new_country, failures.
type Observer interface{ Unusual(kind string) }

// Config is what a Watch needs.
type Config struct {
	Policy
	Counters store.Counters
	Revoker  Revoker
	Audit    *audit.Log
	Observer Observer
	Now      func() time.Time
	// TokenLife is that of access tokens: how often a client has to refresh.
	TokenLife time.Duration
}

const (
	// rush is how many refreshes of one grant within the life of one access
	// token no client needs.
	rush = 20
	// Failures are counted for so long, and are many from then on.
	failureWindow  = 10 * time.Minute
	manyOfAUser    = 10 // the delays of guessing let through about two a minute
	manyOfAClient  = 50
	countryIsKnown = 180 * 24 * time.Hour // after the last sign-in from there
)

// Watch is safe for concurrent use. What it counts it counts for this process
// alone; which countries are known is in the store.
type Watch struct {
	Config
	refreshes, users, clients *counts
	lookup                    atomic.Pointer[Lookup]
}

// New returns a watch that knows no countries yet.
func New(c Config) *Watch {
	return &Watch{
		Config: c, refreshes: newCounts(c.TokenLife), users: newCounts(failureWindow), clients: newCounts(failureWindow),
	}
}

// Use makes l what says where addresses are; nil: nobody does.
func (w *Watch) Use(l Lookup) {
	if l == nil {
		w.lookup.Store(nil)
		return
	}
	w.lookup.Store(&l)
}

// Refreshed notes that a refresh token of f was spent from an address, or came
// again within the grace. ErrEnded: f was ended for it, and gets no token.
func (w *Watch) Refreshed(ctx context.Context, f store.Family, ip netip.Addr, replayed bool) error {
	if !w.on(w.Refresh) {
		return nil
	}
	place := network(ip)
	if replayed {
		if first := w.refreshes.note(f.Grant); first != "" && first != place {
			return w.ended(ctx, f, ip, "one token from two networks")
		}
		return nil
	}
	if n := w.refreshes.add(f.Grant, place, w.Now()); n == rush+1 {
		return w.ended(ctx, f, ip, strconv.Itoa(n)+" refreshes within the life of one access token")
	}
	return nil
}

// Reused notes that a spent refresh token of f came back, for which the grant
// is dead already: with Revoke the session that it came of ends too.
func (w *Watch) Reused(ctx context.Context, f store.Family, ip netip.Addr) error {
	if !w.on(w.Refresh) {
		return nil
	}
	return w.ended(ctx, f, ip, "a spent token came back")
}

// ended writes the event about a family and, where the policy says so, ends its
// session, or the grant alone where it has none.
func (w *Watch) ended(ctx context.Context, f store.Family, ip netip.Addr, reason string) error {
	w.Observer.Unusual("refresh")
	event := store.AuditEvent{
		Action: audit.UnusualRefresh, Outcome: audit.Success, Actor: audit.Client(f.ClientID), Client: f.ClientID,
		Subject: f.Subject, Grant: f.Grant, Session: f.Session, IP: text(ip), Reason: reason,
	}
	if w.Refresh != Revoke {
		w.Audit.Queue(ctx, event)
		return nil
	}
	event.Outcome = audit.Failure
	level, id := oauth.LevelSession, f.Session
	if id == "" {
		level, id = oauth.LevelGrant, f.Grant
	}
	if err := w.Audit.With(ctx, event, func(event store.AuditEvent) error {
		_, err := w.Revoker.Revoke(ctx, level, id, event)
		return err
	}); err != nil {
		return err
	}
	return ErrEnded
}

// SignedIn notes that somebody proved who it is from an address, before a
// session begins; several tells that it took more than a password. ErrEnded: no
// session may begin. A person who proved more is let in from anywhere, and from
// then on the country is known.
func (w *Watch) SignedIn(ctx context.Context, subject string, ip netip.Addr, several bool) error {
	lookup := w.lookup.Load()
	if !w.on(w.NewCountry) || lookup == nil {
		return nil
	}
	country := (*lookup)(ip)
	if country == "" {
		return nil
	}
	fresh, refused := false, false
	names := []string{"countries:" + subject, "countries:" + subject + ":" + country}
	err := w.Counters.Count(ctx, names, func(c []store.Counter) {
		now := w.Now()
		fresh = c[0].Expires.After(now) && !c[1].Expires.After(now)
		refused = fresh && w.NewCountry == Revoke && !several
		if !refused {
			for i := range c {
				c[i].Count, c[i].Expires = 1, now.Add(countryIsKnown)
			}
		}
	})
	if err != nil {
		return fmt.Errorf("look up where somebody signed in before: %w", err)
	}
	if !fresh {
		return nil
	}
	w.Observer.Unusual("new_country")
	event := store.AuditEvent{
		Action: audit.UnusualCountry, Outcome: audit.Success, Actor: audit.User(subject), Subject: subject, IP: text(ip), Reason: country,
	}
	if refused {
		event.Outcome = audit.Failure
	}
	if err := w.Audit.Write(ctx, event); err != nil {
		return err
	}
	if refused {
		return ErrEnded
	}
	return nil
}

// UserFailed notes a wrong password or code for a user's account.
func (w *Watch) UserFailed(ctx context.Context, subject string, ip netip.Addr) {
	w.failed(ctx, w.users, subject, manyOfAUser, store.AuditEvent{Subject: subject, IP: text(ip)})
}

// ClientFailed notes that a client, or somebody who names it, was refused for
// what it presented.
func (w *Watch) ClientFailed(ctx context.Context, client string, ip netip.Addr) {
	w.failed(ctx, w.clients, client, manyOfAClient, store.AuditEvent{Client: client, IP: text(ip)})
}

// failed writes one event a window. Nothing is ended for it: anybody can fail in
// another's name, and would have a way to throw people out.
func (w *Watch) failed(ctx context.Context, c *counts, id string, many int, event store.AuditEvent) {
	if !w.on(w.Failures) || id == "" {
		return
	}
	if n := c.add(id, "", w.Now()); n != many {
		return
	}
	w.Observer.Unusual("failures")
	event.Action, event.Outcome, event.Actor = audit.UnusualFailures, audit.Failure, audit.Unknown
	event.Reason = fmt.Sprintf("%d within %v", many, failureWindow)
	w.Audit.Queue(ctx, event)
}

func (w *Watch) on(a Action) bool { return a == Notify || a == Revoke }

// network is where an address is, as far as one holder moves: a /24 or a /48.
func network(ip netip.Addr) string {
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return ""
	}
	return p.String()
}

func text(ip netip.Addr) string {
	if !ip.IsValid() {
		return ""
	}
	return ip.String()
}
