package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var keys = []promise{
	{"KeysAreReadAsStored", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		wantEqual(t, "no keys", len(got[[]store.Key](t)(stores[0].Keys(ctx))), 0)
		want := []store.Key{{ID: "a", Use: "token", Algorithm: "ES256", Public: []byte(`{"kty":"EC"}`), Sealed: []byte{0, 1, 255},
			State: "active", Created: now, Activates: now.Add(time.Second), Retired: now.Add(time.Minute), Gone: now.Add(time.Hour)}}
		stored, err := stores[0].RotateKeys(ctx, func([]store.Key) ([]store.Key, error) { return want, nil })
		must(t, err)
		wantEqual(t, "answer", stored, want)
		wantEqual(t, "keys", got[[]store.Key](t)(stores[1].Keys(ctx)), want)
		stored, err = stores[1].RotateKeys(ctx, func(have []store.Key) ([]store.Key, error) { return nil, nil })
		must(t, err)
		wantEqual(t, "unchanged", stored, want)
		failure := errors.New("no")
		_, err = stores[1].RotateKeys(ctx, func([]store.Key) ([]store.Key, error) { return nil, failure })
		wantError(t, "failed plan", err, failure)
	}},
	{"ConcurrentRotationsLeaveOneActiveKey", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		const n = 20
		race(stores, n, func(_ int, s store.Store) {
			_, err := s.RotateKeys(ctx, func(have []store.Key) ([]store.Key, error) {
				have = slices.Clone(have)
				for i := range have {
					have[i].State = "retired"
				}
				return append(have, store.Key{ID: name("key-"), Use: "token", Public: []byte("p"), Sealed: []byte("s"), State: "active"}), nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		stored := got[[]store.Key](t)(stores[0].Keys(ctx))
		active := slices.DeleteFunc(slices.Clone(stored), func(k store.Key) bool { return k.State != "active" })
		if len(stored) != n || len(active) != 1 {
			t.Errorf("%d keys, %d active, want %d and one: a plan saw an old set", len(stored), len(active), n)
		}
	}},
	{"EnvelopeIsStoredOnce", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		values := make([]string, 20)
		race(stores, len(values), func(i int, s store.Store) {
			v, err := s.Envelope(ctx, "secret", []byte(name("v")))
			if err != nil {
				t.Error(err)
			}
			values[i] = string(v)
		})
		if len(slices.Compact(values)) != 1 || values[0] == "" {
			t.Errorf("replicas hold different values: %q", values)
		}
		must(t, stores[0].ReplaceEnvelope(ctx, "secret", []byte(values[0]), []byte("new")))
		wantError(t, "not the stored one", stores[1].ReplaceEnvelope(ctx, "secret", []byte(values[0]), []byte("newer")), store.ErrMismatch)
		wantError(t, "none", stores[1].ReplaceEnvelope(ctx, "other", nil, []byte("new")), store.ErrNotFound)
		wantEqual(t, "value", string(got[[]byte](t)(stores[1].Envelope(ctx, "secret", []byte("late")))), "new")
	}},
}
