package authserver_test

import (
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

func TestOAuth25_StoredClientsSecretIsWorthNothingASecondLaterOnEveryReplica(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		a := startOn(t, stores[0], nil)
		b := startOn(t, stores[1], a)
		add := func(id string) string {
			return a.admin("POST", "/api/v1/clients", `{"id":"`+id+`","grants":["client_credentials"],"scopes":["read:orders"]}`).want(t, 201, "").str("secret")
		}
		secret := add("reports")
		a.secret(secret)
		for _, e := range []*env{a, b, a, b} {
			e.token("reports", secret, clientCredentials).want(t, 200, "")
		}
		next := a.admin("POST", "/api/v1/clients/reports/secret", `{"keep":false}`).want(t, 200, "").str("secret")
		a.secret(next)
		a.token("reports", secret, clientCredentials).want(t, 401, "invalid_client")
		a.token("reports", next, clientCredentials).want(t, 200, "")
		a.clock.advance(time.Second)
		b.token("reports", secret, clientCredentials).want(t, 401, "invalid_client")
		b.token("reports", next, clientCredentials).want(t, 200, "")

		// Of a removal a replica hears by the revocation log, which is faster.
		a.admin("DELETE", "/api/v1/clients/reports", "").want(t, 204, "")
		a.token("reports", next, clientCredentials).want(t, 401, "invalid_client")
		entries, _, err := stores[1].RevokedSince(t.Context(), 0, 100)
		if err != nil || len(entries) == 0 {
			t.Fatal("the removal is not in the log", err)
		}
		b.server.Noted(entries)
		b.token("reports", next, clientCredentials).want(t, 401, "invalid_client")
	})
}

// seen is a view of the revocation log that a test holds.
type seen struct{ revoked, current bool }

func (s *seen) Revoked(*tokens.Access) (revoked, current bool) { return s.revoked, s.current }

func TestOAuth41_IntrospectionTrustsTheViewOfRevocationsOnlyWhileItIsCurrent(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		view := &seen{current: true}
		e := startOn(t, openStores(t, dsn, 1)[0], nil, func(c *authserver.Config) { c.Revocations = view })
		token := e.token("batch:1", bSecret, clientCredentials).want(t, 200, "").str("access_token")
		if !e.active(token) {
			t.Fatal("a live token is not active")
		}
		now := e.clock.now()
		if _, err := e.store.Revoke(t.Context(), oauth.Revocation{
			Level: oauth.LevelToken, ID: claims(t, token, 1)["jti"].(string), Expires: now.Add(time.Hour),
		}, now); err != nil {
			t.Fatal(err)
		}
		if !e.active(token) {
			t.Error("the store was asked, although the view is current")
		}
		view.current = false
		if e.active(token) {
			t.Error("the store was not asked, although the view is not current")
		}
		another := e.token("batch:1", bSecret, clientCredentials).want(t, 200, "").str("access_token")
		view.current, view.revoked = true, true
		if e.active(another) {
			t.Error("a token that the view says is revoked is active")
		}
		view.current = false
		if e.active(another) {
			t.Error("a revoked token is active because the view is not current")
		}
	})
}
