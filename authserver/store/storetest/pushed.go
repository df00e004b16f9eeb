package storetest

import (
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var pushed = []promise{
	{"PushedRequestIsTakenOnceByItsClient", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		p := store.Pushed{Hash: digest(name("uri")), ClientID: name("client-"), Query: "scope=a&state=ü", Signed: true, Expires: now.Add(time.Minute)}
		must(t, stores[0].AddPushed(ctx, p))
		wantError(t, "the same again", stores[1].AddPushed(ctx, p), store.ErrExists)
		_, err := stores[1].TakePushed(ctx, p.Hash, "another client", now)
		wantError(t, "another client", err, store.ErrNotFound)
		_, err = stores[1].TakePushed(ctx, p.Hash, p.ClientID, p.Expires)
		wantError(t, "expired", err, store.ErrNotFound)
		_, err = stores[1].TakePushed(ctx, digest("unknown"), p.ClientID, now)
		wantError(t, "unknown", err, store.ErrNotFound)
		var outcomes counted
		race(stores, 40, func(_ int, s store.Store) {
			have, err := s.TakePushed(ctx, p.Hash, p.ClientID, now)
			if err == nil {
				wantEqual(t, "request", have, p)
			}
			outcomes.addError(err)
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrNotFound.Error(): 39})
	}},
	{"SweepDeletesExpiredPushedRequests", func(t *testing.T, stores []store.Store) {
		ctx, s := t.Context(), stores[0]
		p := store.Pushed{Hash: digest(name("uri")), ClientID: "c", Query: "q", Expires: now.Add(time.Minute)}
		must(t, s.AddPushed(ctx, p))
		must(t, s.Sweep(ctx, now))
		must(t, s.Sweep(ctx, now.Add(2*time.Minute)))
		must(t, s.AddPushed(ctx, p)) // the row is gone
	}},
}
