package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

var refreshes = []promise{
	{"FamilyIsReadAsAdded", func(t *testing.T, stores []store.Store) {
		ctx, f := t.Context(), family()
		must(t, stores[0].AddFamily(ctx, f))
		wantEqual(t, "family", got[store.Family](t)(stores[1].Family(ctx, f.Grant)), f)
		wantError(t, "the same again", stores[1].AddFamily(ctx, f), store.ErrExists)
		_, err := stores[0].Family(ctx, "other")
		wantError(t, "unknown", err, store.ErrNotFound)
	}},
	{"FamilyComesWithItsUser", func(t *testing.T, stores []store.Store) {
		ctx, f := t.Context(), family()
		must(t, stores[0].AddFamily(ctx, f))
		f1, u, err := stores[1].FamilyAndUser(ctx, f.Grant)
		must(t, err)
		wantEqual(t, "family without a user", f1, f)
		wantEqual(t, "no user", u, store.User{})
		want := store.User{Subject: f.Subject, Name: "alice", PasswordHash: "h", Email: "a@example.com", Roles: []string{"admin"}, Created: now}
		must(t, stores[0].AddUser(ctx, want))
		f1, u, err = stores[1].FamilyAndUser(ctx, f.Grant)
		must(t, err)
		wantEqual(t, "family", f1, f)
		wantEqual(t, "user", u, want)
		_, _, err = stores[0].FamilyAndUser(ctx, "other")
		wantError(t, "unknown", err, store.ErrNotFound)
	}},
	{"RotationReplacesTheToken", func(t *testing.T, stores []store.Store) {
		ctx, f := t.Context(), family()
		must(t, stores[0].AddFamily(ctx, f))
		r := rotation(f, 1)
		r.IdleUntil = now.Add(time.Hour)
		rotated, replayed, err := stores[0].RotateRefresh(ctx, r)
		must(t, err)
		want := f
		want.Generation, want.Hash, want.Previous = 2, token(f.Grant, 2), token(f.Grant, 1)
		want.Rotated, want.IdleUntil = now, now.Add(time.Hour)
		wantEqual(t, "rotated family", rotated, want)
		wantEqual(t, "replayed", replayed, false)
		wantEqual(t, "stored family", got[store.Family](t)(stores[1].Family(ctx, f.Grant)), want)
	}},
	{"RotationTable", rotationTable},
	{"ParallelRefreshesWithinGraceGetOneSuccessor", func(t *testing.T, stores []store.Store) {
		ctx, f := t.Context(), family()
		must(t, stores[0].AddFamily(ctx, f))
		var outcomes counted
		race(stores, 50, func(_ int, s store.Store) {
			f, replayed, err := s.RotateRefresh(ctx, rotation(f, 1))
			if err == nil && (f.Generation != 2 || f.Hash != token(f.Grant, 2)) {
				err = fmt.Errorf("another branch: generation %d", f.Generation)
			}
			outcomes.add(fmt.Sprintf("replayed=%v err=%v", replayed, err))
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"replayed=false err=<nil>": 1, "replayed=true err=<nil>": 49})
		stored := got[store.Family](t)(stores[0].Family(ctx, f.Grant))
		if stored.Generation != 2 || !stored.Revoked.IsZero() {
			t.Errorf("family %+v, want generation 2, not revoked", stored)
		}
	}},
	{"WithoutGraceOneWinsAndTheFamilyDies", func(t *testing.T, stores []store.Store) {
		ctx, f := t.Context(), family()
		must(t, stores[0].AddFamily(ctx, f))
		var outcomes counted
		race(stores, 20, func(_ int, s store.Store) {
			r := rotation(f, 1)
			r.Grace = 0
			_, _, err := s.RotateRefresh(ctx, r)
			outcomes.addError(err)
		})
		n := outcomes.n
		if n["ok"] != 1 || n[store.ErrReuse.Error()] < 1 || n[store.ErrReuse.Error()]+n[store.ErrUsed.Error()] != 19 {
			t.Errorf("outcomes %v, want one ok, the rest reuse or used", n)
		}
		entries, head, err := stores[0].RevokedSince(ctx, 0, 10)
		must(t, err)
		want := []oauth.Revocation{{Seq: 1, Level: oauth.LevelGrant, ID: f.Grant, Expires: now.Add(16 * time.Minute)}}
		wantEqual(t, "log", entries, want)
		wantEqual(t, "head", head, uint64(1))
		_, _, err = stores[1].RotateRefresh(ctx, rotation(f, 2))
		wantError(t, "the winner's token", err, store.ErrUsed)
	}},
	{"GrantIsRevokedOnce", func(t *testing.T, stores []store.Store) {
		ctx, f := t.Context(), family()
		must(t, stores[0].AddFamily(ctx, f))
		for range 2 {
			must(t, stores[0].RevokeGrant(ctx, f.Grant, now, now.Add(time.Hour)))
			must(t, stores[1].RevokeGrant(ctx, "grant without refresh tokens", now, now.Add(time.Hour)))
		}
		entries, _, err := stores[1].RevokedSince(ctx, 0, 10)
		must(t, err)
		if len(entries) != 2 || entries[0].ID != f.Grant {
			t.Errorf("log %+v, want each grant once", entries)
		}
		wantEqual(t, "revoked", got[store.Family](t)(stores[0].Family(ctx, f.Grant)).Revoked, now)
		_, _, err = stores[0].RotateRefresh(ctx, rotation(f, 1))
		wantError(t, "its token", err, store.ErrUsed)
	}},
	{"FamiliesListsTheLiveOnes", func(t *testing.T, stores []store.Store) {
		ctx, live := t.Context(), family()
		must(t, stores[0].AddFamily(ctx, live))
		for _, end := range []func(f *store.Family){
			func(f *store.Family) { f.Revoked = now },
			func(f *store.Family) { f.Expires = now },
			func(f *store.Family) { f.IdleUntil = now },
			func(f *store.Family) { f.Subject = "another" },
		} {
			f := family()
			f.Subject = live.Subject
			end(&f)
			must(t, stores[0].AddFamily(ctx, f))
		}
		wantEqual(t, "live families", got[[]store.Family](t)(stores[1].Families(ctx, live.Subject, now)), []store.Family{live})
	}},
}

// rotationTable presents tokens to a family that was rotated to its third
// generation five seconds ago.
func rotationTable(t *testing.T, stores []store.Store) {
	const kept, replayed, rotated, killed = "kept", "replayed", "rotated", "killed"
	for _, c := range []struct {
		name       string
		generation int
		change     func(r *store.Rotation, f *store.Family)
		want       error
		outcome    string
	}{
		{"live token", 3, nil, nil, rotated},
		{"previous token within grace", 2, nil, nil, replayed},
		{"previous token at the end of grace", 2, func(r *store.Rotation, _ *store.Family) { r.Grace = 5 * time.Second }, nil, replayed},
		{"previous token after grace", 2, func(r *store.Rotation, _ *store.Family) { r.Grace = 5*time.Second - time.Microsecond }, store.ErrReuse, killed},
		{"previous token without grace", 2, func(r *store.Rotation, _ *store.Family) { r.Grace = 0 }, store.ErrReuse, killed},
		{"previous token, clock behind, no grace", 2, func(r *store.Rotation, _ *store.Family) { r.Grace, r.Now = 0, now.Add(-time.Hour) }, store.ErrReuse, killed},
		{"two generations back within grace", 1, nil, store.ErrReuse, killed},
		{"two generations back of an expired family", 1, func(_ *store.Rotation, f *store.Family) { f.Expires = now }, store.ErrReuse, killed},
		{"live token of another client", 3, func(r *store.Rotation, _ *store.Family) { r.ClientID = "mallory" }, store.ErrMismatch, kept},
		{"spent token of another client", 1, func(r *store.Rotation, _ *store.Family) { r.ClientID = "mallory" }, store.ErrMismatch, kept},
		{"wrong secret of the live generation", 3, func(r *store.Rotation, _ *store.Family) { r.Presented = digest("x") }, store.ErrNotFound, kept},
		{"wrong secret of the previous generation", 2, func(r *store.Rotation, _ *store.Family) { r.Presented = digest("x") }, store.ErrNotFound, kept},
		{"generation to come", 4, nil, store.ErrNotFound, kept},
		{"generation zero", 0, nil, store.ErrNotFound, kept},
		{"unknown grant", 3, func(r *store.Rotation, _ *store.Family) { r.Grant = "other" }, store.ErrNotFound, kept},
		{"live token, idle too long", 3, func(_ *store.Rotation, f *store.Family) { f.IdleUntil = now }, store.ErrExpired, kept},
		{"live token, absolute end", 3, func(_ *store.Rotation, f *store.Family) { f.Expires = now }, store.ErrExpired, kept},
		{"previous token within grace, absolute end", 2, func(_ *store.Rotation, f *store.Family) { f.Expires = now }, store.ErrExpired, kept},
		{"live token of a revoked family", 3, func(_ *store.Rotation, f *store.Family) { f.Revoked = now }, store.ErrUsed, kept},
		{"spent token of a revoked family", 1, func(_ *store.Rotation, f *store.Family) { f.Revoked = now }, store.ErrUsed, kept},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, f := t.Context(), family()
			f.Generation, f.Hash, f.Previous, f.Rotated = 3, token(f.Grant, 3), token(f.Grant, 2), now.Add(-5*time.Second)
			r := rotation(f, c.generation)
			if c.change != nil {
				c.change(&r, &f)
			}
			must(t, stores[0].AddFamily(ctx, f))
			_, before, err := stores[0].RevokedSince(ctx, 0, 1)
			must(t, err)

			answer, again, err := stores[1].RotateRefresh(ctx, r)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			after := got[store.Family](t)(stores[0].Family(ctx, f.Grant))
			want := f
			switch c.outcome {
			case rotated:
				want.Generation, want.Hash, want.Previous, want.Rotated = 4, token(f.Grant, 4), token(f.Grant, 3), now
			case killed:
				want.Revoked = r.Now
			}
			wantEqual(t, "family", after, want)
			wantEqual(t, "replayed", again, c.outcome == replayed)
			if c.want != nil && (errors.Is(err, store.ErrMismatch) || errors.Is(err, store.ErrNotFound)) {
				want = store.Family{}
			}
			wantEqual(t, "answer", answer, want)
			_, head, err := stores[0].RevokedSince(ctx, 0, 1)
			must(t, err)
			wantEqual(t, "logged", head > before, c.outcome == killed)
		})
	}
}
