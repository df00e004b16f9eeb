package storetest

import (
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

var codes = []promise{
	{"CodeIsReadAsAdded", func(t *testing.T, stores []store.Store) {
		ctx, want := t.Context(), code()
		must(t, stores[0].AddCode(ctx, want))
		wantEqual(t, "code", got[store.Code](t)(stores[1].Code(ctx, want.Hash)), want)
		wantError(t, "the same code again", stores[0].AddCode(ctx, want), store.ErrExists)
		_, err := stores[0].Code(ctx, digest("other"))
		wantError(t, "unknown code", err, store.ErrNotFound)
	}},
	{"CodeIsConsumedOnce", func(t *testing.T, stores []store.Store) {
		ctx, c := t.Context(), code()
		must(t, stores[0].AddCode(ctx, c))
		var outcomes counted
		race(stores, 200, func(i int, s store.Store) {
			f := family()
			f.Grant = c.Grant
			outcomes.addError(s.ConsumeCode(ctx, c.Hash, now, &f))
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrUsed.Error(): 199})
		wantEqual(t, "used", got[store.Code](t)(stores[0].Code(ctx, c.Hash)).Used, now)
		got[store.Family](t)(stores[1].Family(ctx, c.Grant))
		wantError(t, "after its end", stores[0].ConsumeCode(ctx, c.Hash, now.Add(time.Hour), nil), store.ErrUsed)
	}},
	{"CodeExpires", func(t *testing.T, stores []store.Store) {
		ctx, c := t.Context(), code()
		must(t, stores[0].AddCode(ctx, c))
		wantError(t, "at its end", stores[0].ConsumeCode(ctx, c.Hash, c.Expires, nil), store.ErrExpired)
		wantError(t, "unknown", stores[0].ConsumeCode(ctx, digest("other"), now, nil), store.ErrNotFound)
		must(t, stores[1].ConsumeCode(ctx, c.Hash, c.Expires.Add(-time.Microsecond), nil))
	}},
	{"CodeStaysUsableWhenItsFamilyCannotBeOpened", func(t *testing.T, stores []store.Store) {
		ctx, c, f := t.Context(), code(), family()
		must(t, stores[0].AddCode(ctx, c))
		must(t, stores[0].AddFamily(ctx, f))
		wantError(t, "with a grant in use", stores[0].ConsumeCode(ctx, c.Hash, now, &f), store.ErrExists)
		f = family()
		must(t, stores[1].ConsumeCode(ctx, c.Hash, now, &f))
		wantEqual(t, "family", got[store.Family](t)(stores[0].Family(ctx, f.Grant)), f)
	}},
	{"WrongRedemptionsAreCounted", func(t *testing.T, stores []store.Store) {
		ctx, c := t.Context(), code()
		must(t, stores[0].AddCode(ctx, c))
		race(stores, 20, func(_ int, s store.Store) {
			if _, err := s.FailCode(ctx, c.Hash); err != nil {
				t.Error(err)
			}
		})
		wantEqual(t, "attempts", got[int](t)(stores[0].FailCode(ctx, c.Hash)), 21)
		_, err := stores[0].FailCode(ctx, digest("other"))
		wantError(t, "unknown", err, store.ErrNotFound)
		must(t, stores[0].ConsumeCode(ctx, c.Hash, now, nil))
	}},
	{"RevocationSpendsWaitingCodes", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		for _, level := range []oauth.Level{oauth.LevelSession, oauth.LevelSubject, oauth.LevelClient, oauth.LevelIssuer} {
			c, other := code(), code()
			must(t, stores[0].AddCode(ctx, c))
			must(t, stores[0].AddCode(ctx, other))
			id := map[oauth.Level]string{oauth.LevelSession: c.Session, oauth.LevelSubject: c.Subject,
				oauth.LevelClient: c.ClientID, oauth.LevelIssuer: "https://issuer.example"}[level]
			got[oauth.Revocation](t)(stores[1].Revoke(ctx, revocation(level, id), now))
			wantError(t, string(level), stores[0].ConsumeCode(ctx, c.Hash, now, nil), store.ErrUsed)
			if level != oauth.LevelIssuer {
				must(t, stores[0].ConsumeCode(ctx, other.Hash, now, nil))
			}
		}
	}},
	{"EndedSessionOpensNothing", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), session()
		must(t, stores[0].AddSession(ctx, s))
		c, f := code(), family()
		c.Session, f.Session = s.ID, s.ID
		must(t, stores[0].AddCode(ctx, c))
		got[oauth.Revocation](t)(stores[1].Revoke(ctx, revocation(oauth.LevelSession, s.ID), now))
		c.Hash = digest(name("code"))
		wantError(t, "a code", stores[0].AddCode(ctx, c), store.ErrExpired)
		wantError(t, "a family", stores[0].AddFamily(ctx, f), store.ErrExpired)
	}},
	{"LogoutRacesWithRedemption", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		for range 30 {
			s, c, f := session(), code(), family()
			c.Session, f.Session = s.ID, s.ID
			must(t, stores[0].AddSession(ctx, s))
			race(stores, 2, func(i int, db store.Store) {
				if i == 1 {
					if _, err := db.Revoke(ctx, revocation(oauth.LevelSession, s.ID), now); err != nil {
						t.Error(err)
					}
					return
				}
				if db.AddCode(ctx, c) == nil {
					_ = db.ConsumeCode(ctx, c.Hash, now, &f) // either outcome is right
				}
			})
			if left := got[[]store.Family](t)(stores[0].Families(ctx, f.Subject, now)); len(left) > 0 {
				t.Fatalf("a family outlives the logout: %+v", left)
			}
		}
	}},
}
