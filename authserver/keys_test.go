package authserver_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/keys"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// kek is shared by all rings, so that replicas can read each other's keys.
var kek = keys.NewKekText()

func openKeys(t testing.TB, st store.Store, now func() time.Time) authserver.Keys {
	t.Helper()
	k, err := keys.ParseKek(kek)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.Open(context.Background(), st, keys.Config{Keks: []keys.Kek{k}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// keySet is the key ids that an authorization server publishes for tokens.
func (e *env) keySet() map[string]bool {
	e.t.Helper()
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
		} `json:"keys"`
	}
	if err := json.Unmarshal([]byte(e.get("/oauth/jwks").want(e.t, 200, "").body), &set); err != nil {
		e.t.Fatal(err)
	}
	ids := map[string]bool{}
	for _, k := range set.Keys {
		ids[k.ID] = true
	}
	return ids
}

func TestOAuth47_ReplicasPublishSwitchAndRetireTogether(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		a := startOn(t, stores[0], nil)
		b := startOn(t, stores[1], a)
		follow := func() { // what each replica does every ten seconds
			for _, e := range []*env{a, b} {
				a.clock.advance(2 * time.Second)
				e.keys.(*keys.Ring).Refresh(t.Context(), "another")
			}
		}
		kid := func(e *env) string {
			return claims(t, e.token("batch:1", bSecret, clientCredentials).want(t, 200, "").str("access_token"), 0)["kid"].(string)
		}
		old := kid(a)
		if kid(b) != old {
			t.Fatal("replicas sign with different keys")
		}
		token := a.grant().str("access_token")
		a.admin("POST", "/api/v1/keys/rotate", "").want(t, 204, "")
		follow()
		published := a.keySet()
		if len(published) < 3 || len(published) != len(b.keySet()) {
			t.Fatalf("published %v, %v", published, b.keySet())
		}
		// Whoever has cached the key set for its max-age knows the new key when it
		// signs for the first time.
		a.clock.advance(5 * time.Minute)
		follow()
		if kid(a) != old || kid(b) != old {
			t.Error("the new key signs before its max-age is over")
		}
		a.clock.advance(6 * time.Minute)
		follow()
		next := kid(a)
		if next == old || kid(b) != next || !published[next] {
			t.Errorf("kid %s, then %s and %s, published %v", old, next, kid(b), published)
		}
		// What the old one signed is good to its end.
		if !a.active(token) || !b.active(token) || !a.keySet()[old] {
			t.Error("a token of the retired key is refused")
		}
		a.clock.advance(time.Hour + 2*time.Minute)
		follow()
		if a.keySet()[old] || b.keySet()[old] {
			t.Error("the retired key is still published")
		}
	})
}
