package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var registrations = []promise{
	{"InitialTokenRegistersAsManyClientsAsItHasUses", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		token := store.InitialToken{ID: "it_1", Hash: digest(name("initial")), Name: "CI", Scopes: []string{"read"}, Created: now, Expires: now.Add(time.Hour), Uses: 3}
		must(t, stores[0].AddInitialToken(ctx, token))
		wantEqual(t, "token", got[store.InitialToken](t)(stores[1].InitialToken(ctx, token.Hash, now)), token)
		_, err := stores[0].InitialToken(ctx, token.Hash, token.Expires)
		wantError(t, "expired", err, store.ErrNotFound)
		r := store.Registration{Hash: digest(name("registration")), Metadata: []byte(`{"client_uri":"https://x.example"}`)}
		wantError(t, "expired", stores[0].Register(ctx, store.Client{ID: "late"}, r, &token.Hash, token.Expires), store.ErrNotFound)
		var outcomes counted
		race(stores, 20, func(i int, s store.Store) {
			outcomes.addError(s.Register(ctx, store.Client{ID: fmt.Sprint("c", i)}, r, &token.Hash, now))
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 3, store.ErrNotFound.Error(): 17})
		wantEqual(t, "clients", len(got[[]store.Client](t)(stores[0].Clients(ctx))), 3)
		_, err = stores[0].InitialToken(ctx, token.Hash, now)
		wantError(t, "spent", err, store.ErrNotFound)
		token.Uses = 0
		wantEqual(t, "list", got[[]store.InitialToken](t)(stores[1].InitialTokens(ctx)), []store.InitialToken{token})
		must(t, stores[1].RemoveInitialToken(ctx, token.ID))
		wantError(t, "removed", stores[0].RemoveInitialToken(ctx, token.ID), store.ErrNotFound)
	}},
	{"TakenClientIDSpendsNoUse", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		token := store.InitialToken{ID: "it_1", Hash: digest(name("initial")), Created: now, Expires: now.Add(time.Hour), Uses: 1}
		must(t, stores[0].AddInitialToken(ctx, token))
		must(t, stores[0].AddClient(ctx, store.Client{ID: "c"}))
		r := store.Registration{Hash: digest("r"), Metadata: []byte(`{}`)}
		wantError(t, "taken", stores[1].Register(ctx, store.Client{ID: "c"}, r, &token.Hash, now), store.ErrExists)
		_, err := stores[0].Registration(ctx, "c")
		wantError(t, "registration", err, store.ErrNotFound)
		must(t, stores[1].Register(ctx, store.Client{ID: "d"}, r, &token.Hash, now))
		wantEqual(t, "registration", got[store.Registration](t)(stores[0].Registration(ctx, "d")), r)
		must(t, stores[1].RemoveClient(ctx, "d"))
		_, err = stores[0].Registration(ctx, "d")
		wantError(t, "of a removed client", err, store.ErrNotFound)
	}},
	{"RegistrationTokenChangesTheClientOnce", func(t *testing.T, stores []store.Store) {
		ctx := t.Context()
		first := store.Registration{Hash: digest(name("registration")), Metadata: []byte(`{}`)}
		must(t, stores[0].Register(ctx, store.Client{ID: "c", Name: "old"}, first, nil, now))
		var outcomes counted
		race(stores, 20, func(i int, s store.Store) {
			next := store.Registration{Hash: digest("next", i), Metadata: []byte(`{"n":1}`)}
			outcomes.addError(s.ChangeRegistered(ctx, store.Client{ID: "c", Name: "new"}, first.Hash, next))
		})
		wantEqual(t, "outcomes", outcomes.n, map[string]int{"ok": 1, store.ErrMismatch.Error(): 19})
		wantEqual(t, "client", got[store.Client](t)(stores[0].Client(ctx, "c")).Name, "new")
		wantError(t, "unknown", stores[0].ChangeRegistered(ctx, store.Client{ID: "x"}, first.Hash, first), store.ErrNotFound)
	}},
}
