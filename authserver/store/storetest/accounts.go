package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var accounts = []promise{
	{"TOTPStepIsSpentOnceOverReplicas", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		app := store.TOTP{Subject: "usr_1", Sealed: []byte{0, 1, 2}, LastStep: 10, Created: now}
		wantError(t, "no app", s.SpendTOTP(ctx, "usr_1", 11), store.ErrNotFound)
		must(t, s.PutTOTP(ctx, app, []store.Digest{digest(1), digest(2)}))
		wantEqual(t, "app", got[store.TOTP](t)(stores[1].TOTP(ctx, "usr_1")), app)
		var outcomes counted
		race(stores, 40, func(_ int, s store.Store) { outcomes.addError(s.SpendTOTP(ctx, "usr_1", 12)) })
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrUsed.Error(): 39})
		wantError(t, "an earlier step", s.SpendTOTP(ctx, "usr_1", 11), store.ErrUsed)
		must(t, s.SpendTOTP(ctx, "usr_1", 13))
		must(t, s.RemoveTOTP(ctx, "usr_1"))
		_, err := stores[1].TOTP(ctx, "usr_1")
		wantError(t, "removed", err, store.ErrNotFound)
		wantEqual(t, "its codes", got[int](t)(s.RecoveryCodes(ctx, "usr_1")), 0)
		wantError(t, "again", s.RemoveTOTP(ctx, "usr_1"), store.ErrNotFound)
	}},
	{"RecoveryCodeIsSpentOnceOverReplicas", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		must(t, s.PutRecoveryCodes(ctx, "usr_1", []store.Digest{digest(1), digest(2), digest(3)}))
		must(t, s.PutRecoveryCodes(ctx, "usr_2", []store.Digest{digest(1)}))
		var outcomes counted
		race(stores, 40, func(_ int, s store.Store) { outcomes.addError(s.SpendRecoveryCode(ctx, "usr_1", digest(1))) })
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrNotFound.Error(): 39})
		wantEqual(t, "left", got[int](t)(s.RecoveryCodes(ctx, "usr_1")), 2)
		wantEqual(t, "another's", got[int](t)(s.RecoveryCodes(ctx, "usr_2")), 1)
		must(t, s.PutRecoveryCodes(ctx, "usr_1", []store.Digest{digest(4)}))
		wantError(t, "a replaced code", s.SpendRecoveryCode(ctx, "usr_1", digest(2)), store.ErrNotFound)
	}},
	{"PasskeyCounterOnlyGoesForward", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		p := store.Passkey{ID: []byte("id"), Subject: "usr_1", Name: "Schlüssel", Credential: []byte("{}"), Count: 7, Created: now}
		must(t, s.AddPasskey(ctx, p))
		wantError(t, "again", stores[1].AddPasskey(ctx, store.Passkey{ID: p.ID, Subject: "usr_2", Credential: []byte("{}")}), store.ErrExists)
		wantEqual(t, "passkeys", got[[]store.Passkey](t)(stores[1].Passkeys(ctx, "usr_1")), []store.Passkey{p})
		p.Count, p.Used, p.Credential = 8, now, []byte("{1}")
		var outcomes counted
		race(stores, 20, func(_ int, s store.Store) { outcomes.addError(s.UsePasskey(ctx, p)) })
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrReuse.Error(): 19})
		wantEqual(t, "used", got[[]store.Passkey](t)(s.Passkeys(ctx, "usr_1")), []store.Passkey{p})
		p.Count = 0
		wantError(t, "a counter that is gone", s.UsePasskey(ctx, p), store.ErrReuse)
		none := store.Passkey{ID: []byte("none"), Subject: "usr_1", Credential: []byte("{}"), Created: now}
		must(t, s.AddPasskey(ctx, none))
		must(t, s.UsePasskey(ctx, none))
		must(t, s.UsePasskey(ctx, none))
		wantError(t, "another's", s.UsePasskey(ctx, store.Passkey{ID: none.ID, Subject: "usr_2", Credential: []byte("{}")}), store.ErrNotFound)
		wantError(t, "remove another's", s.RemovePasskey(ctx, "usr_2", none.ID), store.ErrNotFound)
		must(t, s.RemovePasskey(ctx, "usr_1", none.ID))
		wantEqual(t, "left", len(got[[]store.Passkey](t)(s.Passkeys(ctx, "usr_1"))), 1)
		must(t, s.PutTOTP(ctx, store.TOTP{Subject: "usr_1", Sealed: []byte{1}}, []store.Digest{digest(1)}))
		must(t, s.PutRecoveryCodes(ctx, "usr_2", []store.Digest{digest(2)}))
		must(t, s.RemoveFactors(ctx, "usr_1"))
		must(t, stores[1].RemoveFactors(ctx, "usr_1"))
		_, err := s.TOTP(ctx, "usr_1")
		wantError(t, "app of who has nothing left", err, store.ErrNotFound)
		wantEqual(t, "passkeys of who has nothing left", len(got[[]store.Passkey](t)(stores[1].Passkeys(ctx, "usr_1"))), 0)
		wantEqual(t, "codes of who has nothing left", got[int](t)(s.RecoveryCodes(ctx, "usr_1")), 0)
		wantEqual(t, "another's codes", got[int](t)(s.RecoveryCodes(ctx, "usr_2")), 1)
	}},
	{"CountersCountOverReplicas", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		add := func(counters []store.Counter) {
			for i := range counters {
				counters[i].Count++
				counters[i].Expires = now.Add(time.Minute)
			}
		}
		race(stores, 60, func(i int, s store.Store) {
			names := []string{"all", fmt.Sprint("one-", i%3)}
			if i%2 == 0 {
				names[0], names[1] = names[1], names[0]
			}
			if err := s.Count(ctx, names, add); err != nil {
				t.Error(err)
			}
		})
		read := func(name string) (r store.Counter) {
			must(t, stores[1].Count(ctx, []string{name}, func(counters []store.Counter) { r = counters[0] }))
			return r
		}
		wantEqual(t, "all", read("all").Count, int64(60))
		wantEqual(t, "one", read("one-1"), store.Counter{Name: "one-1", Count: 20, Expires: now.Add(time.Minute)})
		must(t, stores[0].Count(ctx, []string{"one-1"}, func(counters []store.Counter) { counters[0] = store.Counter{Name: "one-1"} }))
		wantEqual(t, "deleted", read("one-1"), store.Counter{Name: "one-1"})
		must(t, stores[0].Sweep(ctx, now.Add(2*time.Minute)))
		wantEqual(t, "swept", read("all").Count, int64(0))
	}},
	{"PasswordChangesAlone", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		u := store.User{Subject: "usr_1", Name: "alice", PasswordHash: "h1", Email: "Alice@Example.com", DisplayName: "A", Created: now}
		must(t, s.AddUser(ctx, u))
		must(t, s.SetPassword(ctx, "usr_1", "h2"))
		u.PasswordHash = "h2"
		wantEqual(t, "user", got[store.User](t)(stores[1].UserByName(ctx, "alice")), u)
		wantEqual(t, "by address", got[[]store.User](t)(stores[1].UsersByEmail(ctx, "alice@example.COM")), []store.User{u})
		wantError(t, "password of nobody", s.SetPassword(ctx, "usr_2", "h"), store.ErrNotFound)
		must(t, s.PutTOTP(ctx, store.TOTP{Subject: "usr_1", Sealed: []byte{1}}, []store.Digest{digest(1)}))
		must(t, s.AddPasskey(ctx, store.Passkey{ID: []byte("id"), Subject: "usr_1", Credential: []byte("{}")}))
		must(t, s.AddTicket(ctx, store.Ticket{Hash: digest(1), Kind: "reset", Subject: "usr_1", Expires: now.Add(time.Minute)}))
		must(t, s.RemoveUser(ctx, "usr_1"))
		_, app := s.TOTP(ctx, "usr_1")
		_, ticket := s.Ticket(ctx, digest(1), "reset", now)
		wantEqual(t, "left of a removed user", fmt.Sprint(app != nil, ticket != nil, got[int](t)(s.RecoveryCodes(ctx, "usr_1")),
			len(got[[]store.Passkey](t)(s.Passkeys(ctx, "usr_1")))), "true true 0 0")
	}},
	{"WithdrawnConsentNamesItsGrants", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		waiting, spent, f := code(), code(), family()
		f.Subject, f.ClientID = "s", "c"
		for _, k := range []*store.Code{&waiting, &spent} {
			k.Subject, k.ClientID = "s", "c"
			must(t, s.AddCode(ctx, *k))
		}
		must(t, s.ConsumeCode(ctx, spent.Hash, now, nil))
		must(t, s.AddFamily(ctx, f))
		must(t, s.PutConsent(ctx, store.Consent{Subject: "s", ClientID: "c", Scopes: []string{"read"}, Granted: now}))
		must(t, s.PutConsent(ctx, store.Consent{Subject: "s", ClientID: "d", Scopes: []string{"read"}, Granted: now}))
		wantEqual(t, "consents", len(got[[]store.Consent](t)(stores[1].ConsentsOf(ctx, "s"))), 2)
		grants := got[[]string](t)(stores[1].WithdrawConsent(ctx, "s", "c", now))
		named := map[string]bool{}
		for _, g := range grants {
			named[g] = true
		}
		if !named[spent.Grant] || !named[f.Grant] {
			t.Errorf("grants %v lack %s or %s", grants, spent.Grant, f.Grant)
		}
		wantError(t, "the code that waited", s.ConsumeCode(ctx, waiting.Hash, now, nil), store.ErrUsed)
		wantEqual(t, "consents", got[[]store.Consent](t)(s.ConsentsOf(ctx, "s")),
			[]store.Consent{{Subject: "s", ClientID: "d", Scopes: []string{"read"}, Granted: now}})
		got[[]string](t)(s.WithdrawConsent(ctx, "s", "nobody", now))
	}},
}
