package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var mail = []promise{
	{"TicketIsSpentOnceOverReplicas", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		u := store.User{Subject: "usr_1", Name: "alice", Email: "A@example.com"}
		must(t, s.AddUser(ctx, u))
		event := store.AuditEvent{Time: now, Action: "x"}
		verbs := map[string]func(s store.Store, hash store.Digest, kind string, at time.Time) error{
			"reset": func(s store.Store, hash store.Digest, kind string, at time.Time) error {
				return s.ResetPassword(ctx, hash, kind, "new", at, event)
			},
			"email": func(s store.Store, hash store.Digest, kind string, at time.Time) error {
				return s.ConfirmEmail(ctx, hash, kind, at, event)
			},
			"signup": func(s store.Store, hash store.Digest, kind string, at time.Time) error {
				return s.RegisterUser(ctx, hash, kind, store.User{Subject: name("usr_"), Name: name("new")}, at, event)
			},
		}
		for kind, verb := range verbs {
			k := store.Ticket{Hash: digest(kind), Kind: kind, Subject: u.Subject, Email: u.Email, Expires: now.Add(time.Minute)}
			if kind == "signup" {
				k.Subject = ""
			}
			must(t, s.AddTicket(ctx, k))
			wantEqual(t, "ticket", got[store.Ticket](t)(stores[1].Ticket(ctx, k.Hash, kind, now)), k)
			for _, wrong := range []struct {
				kind string
				at   time.Time
			}{{"other", now}, {kind, k.Expires}} {
				_, err := s.Ticket(ctx, k.Hash, wrong.kind, wrong.at)
				wantError(t, kind+": look", err, store.ErrNotFound)
				wantError(t, kind+": spend", verb(s, k.Hash, wrong.kind, wrong.at), store.ErrNotFound)
			}
			before := len(got[[]store.AuditEvent](t)(s.AuditSince(ctx, 0, 100)))
			var outcomes counted
			race(stores, 30, func(_ int, s store.Store) { outcomes.addError(verb(s, k.Hash, kind, now)) })
			wantEqual(t, kind+": outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrNotFound.Error(): 29})
			wantEqual(t, kind+": events", len(got[[]store.AuditEvent](t)(s.AuditSince(ctx, 0, 100)))-before, 1)
		}
		u.PasswordHash, u.EmailVerified = "new", true
		wantEqual(t, "user", got[store.User](t)(stores[1].UserBySubject(ctx, "usr_1")), u)
		must(t, s.AddTicket(ctx, store.Ticket{Hash: digest(9), Kind: "reset", Expires: now.Add(time.Minute)}))
		must(t, s.Sweep(ctx, now.Add(time.Hour)))
		_, err := s.Ticket(ctx, digest(9), "reset", now)
		wantError(t, "swept", err, store.ErrNotFound)
	}},
	{"SpentTicketEndsTheOthersOfItsUser", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		for round := range 10 {
			u := store.User{Subject: name("usr_"), Name: name("alice"), Email: "old@example.com"}
			must(t, s.AddUser(ctx, u))
			var tickets []store.Ticket
			for i := range 8 {
				tickets = append(tickets, store.Ticket{Hash: digest(round, i), Kind: []string{"reset", "email"}[i%2], Subject: u.Subject,
					Email: fmt.Sprintf("%d@example.com", i), Expires: now.Add(time.Minute)})
				must(t, s.AddTicket(ctx, tickets[i]))
			}
			var outcomes counted
			race(stores, len(tickets), func(i int, s store.Store) {
				if i%2 == 0 {
					outcomes.addError(s.ResetPassword(ctx, tickets[i].Hash, "reset", "new", now))
				} else {
					outcomes.addError(s.ConfirmEmail(ctx, tickets[i].Hash, "email", now))
				}
			})
			wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrNotFound.Error(): len(tickets) - 1})
		}
		u := store.User{Subject: "usr_2", Name: "bob", Email: "now@example.com"}
		must(t, s.AddUser(ctx, u))
		k := store.Ticket{Hash: digest("k"), Kind: "reset", Subject: "usr_2", Email: "before@example.com", Expires: now.Add(time.Minute)}
		must(t, s.AddTicket(ctx, k))
		must(t, s.ResetPassword(ctx, k.Hash, "reset", "h", now))
		u.PasswordHash = "h"
		wantEqual(t, "an address that is the user's no more is not verified", got[store.User](t)(s.UserBySubject(ctx, "usr_2")), u)
		must(t, s.AddTicket(ctx, k))
		must(t, s.RemoveTickets(ctx, "usr_2"))
		must(t, s.RemoveTickets(ctx, "nobody"))
		wantError(t, "removed", s.ResetPassword(ctx, k.Hash, "reset", "x", now), store.ErrNotFound)
		must(t, s.AddTicket(ctx, k))
		must(t, s.RemoveUser(ctx, "usr_2"))
		wantError(t, "of a removed user", s.ResetPassword(ctx, k.Hash, "reset", "x", now), store.ErrNotFound)
	}},
	{"RegistrationWithATakenNameKeepsItsTicket", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		must(t, s.AddUser(ctx, store.User{Subject: "usr_1", Name: "alice"}))
		k := store.Ticket{Hash: digest("k"), Kind: "signup", Email: "a@example.com", Expires: now.Add(time.Minute)}
		must(t, s.AddTicket(ctx, k))
		wantError(t, "a taken name", s.RegisterUser(ctx, k.Hash, "signup", store.User{Subject: "usr_2", Name: "alice"}, now), store.ErrExists)
		u := store.User{Subject: "usr_3", Name: "a@example.com", Email: "a@example.com", EmailVerified: true, PasswordHash: "h", Created: now}
		must(t, s.RegisterUser(ctx, k.Hash, "signup", u, now))
		wantEqual(t, "user", got[store.User](t)(stores[1].UserByName(ctx, "a@example.com")), u)
	}},
	{"MailIsClaimedByOneReplicaUntilItsLeaseIsOver", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		const n = 20
		for i := range n {
			must(t, stores[i%2].AddMail(ctx, store.Mail{ID: fmt.Sprint("m", i), Sealed: []byte{byte(i)}, Created: now, Expires: now.Add(time.Hour)}, n))
		}
		wantError(t, "one more", stores[0].AddMail(ctx, store.Mail{ID: "more", Sealed: []byte{1}, Created: now}, n), store.ErrFull)
		var mu sync.Mutex
		claimed := map[string]int{}
		take := func(at time.Time) {
			race(stores, 8, func(_ int, s store.Store) {
				for range n {
					list, err := s.ClaimMails(ctx, at, time.Minute, 3)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, m := range list {
						claimed[m.ID]++
					}
					mu.Unlock()
				}
			})
		}
		for round, at := range []time.Time{now, now.Add(59 * time.Second), now.Add(time.Minute)} {
			take(at)
			for i := range n {
				if got, want := claimed[fmt.Sprint("m", i)], []int{1, 1, 2}[round]; got != want {
					t.Errorf("round %d: mail %d was handed out %d times, want %d", round, i, got, want)
				}
			}
		}
		event := store.AuditEvent{Time: now, Action: "mail.sent"}
		for i := range n - 1 {
			must(t, stores[0].FinishMail(ctx, fmt.Sprint("m", i), event))
		}
		must(t, stores[0].FinishMail(ctx, "m0"))
		wantEqual(t, "events", len(got[[]store.AuditEvent](t)(stores[1].AuditSince(ctx, 0, 100))), n-1)
		last := fmt.Sprint("m", n-1)
		must(t, stores[0].DeferMail(ctx, last, now.Add(time.Hour)))
		wantEqual(t, "deferred", len(got[[]store.Mail](t)(stores[0].ClaimMails(ctx, now.Add(59*time.Minute), time.Minute, 9))), 0)
		list := got[[]store.Mail](t)(stores[0].ClaimMails(ctx, now.Add(time.Hour), time.Minute, 9))
		wantEqual(t, "due", list, []store.Mail{{ID: last, Sealed: []byte{n - 1}, Created: now, Expires: now.Add(time.Hour), Attempts: 3}})
	}},
}
