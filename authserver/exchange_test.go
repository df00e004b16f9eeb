package authserver_test

import (
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/store"
)

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
	ordersAPI     = "https://orders.example.com"
	billingAPI    = "https://billing.example.com"
)

// exchangers are clients with a policy each.
func exchangers(c *authserver.Config) {
	add := func(id string, p *store.ExchangePolicy) {
		c.Declared.Clients = append(c.Declared.Clients, authserver.Client{
			ID: id, Secret: webSecret, Grants: []string{"token-exchange", "client_credentials"},
			Scopes:         []string{"read:orders", "write:orders", "gatehouse:read", "offline_access"},
			ClientSettings: store.ClientSettings{Exchange: p},
		})
	}
	add("orders-api", &store.ExchangePolicy{SubjectTokensFrom: []string{"web", "orders-api"}, Audiences: []string{billingAPI}, Scopes: []string{"read:orders"}, Delegation: true})
	add("billing-api", &store.ExchangePolicy{SubjectTokensFrom: []string{"orders-api"}, Audiences: []string{ordersAPI}, Delegation: true})
	add("quiet", &store.ExchangePolicy{SubjectTokensFrom: []string{"*"}})
}

func (e *env) exchange(client, token string, pairs ...string) reply {
	e.t.Helper()
	r := e.token(client, webSecret, with(form("grant_type", exchangeGrant, "subject_token", token, "subject_token_type", accessType), pairs...))
	e.secret(r.str("access_token"))
	return r
}

// own gives a client a token of its own.
func (e *env) own(client string, pairs ...string) string {
	e.t.Helper()
	r := e.token(client, webSecret, with(form("grant_type", "client_credentials"), pairs...)).want(e.t, 200, "")
	return r.str("access_token")
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOAuth54_ExchangeNarrowsAndKeepsTheChainOfActors(t *testing.T) {
	e := start(t, exchangers)
	user := e.grant("scope", "openid profile read:orders write:orders offline_access")
	before := claims(t, user.str("access_token"), 1)
	first := e.exchange("orders-api", user.str("access_token"), "audience", billingAPI).want(t, 200, "")
	c := claims(t, first.str("access_token"), 1)
	if first.str("issued_token_type") != accessType || first.str("token_type") != "Bearer" || first.str("scope") != "read:orders" || first.str("refresh_token") != "" || first.str("id_token") != "" {
		t.Fatalf("answer %s", first.body)
	}
	if c["sub"] != before["sub"] || c["client_id"] != "orders-api" || c["aud"] != billingAPI || text(t, c["act"]) != `{"sub":"client:orders-api"}` || c["grant"] != before["grant"] || c["acr"] != before["acr"] {
		t.Errorf("claims %v of %v", c, before)
	}
	// The next one in the chain, with an actor token.
	second := e.exchange("billing-api", first.str("access_token"), "resource", ordersAPI, "scope", "read:orders",
		"actor_token", e.own("billing-api"), "actor_token_type", accessType).want(t, 200, "")
	c = claims(t, second.str("access_token"), 1)
	if text(t, c["act"]) != `{"act":{"sub":"client:orders-api"},"sub":"client:billing-api"}` || c["sub"] != before["sub"] {
		t.Errorf("act %s", text(t, c["act"]))
	}
	// Impersonation adds nobody and hides nobody.
	c = claims(t, e.exchange("quiet", user.str("access_token")).want(t, 200, "").str("access_token"), 1)
	if c["act"] != nil || c["aud"] != e.config.Issuer || c["scope"] != "read:orders write:orders" {
		t.Errorf("impersonation %v", c)
	}
	c = claims(t, e.exchange("quiet", second.str("access_token")).want(t, 200, "").str("access_token"), 1)
	if text(t, c["act"]) != `{"act":{"sub":"client:orders-api"},"sub":"client:billing-api"}` {
		t.Errorf("the chain was lost: %v", c["act"])
	}
	r := e.post("/oauth/introspect", "orders-api", webSecret, form("token", first.str("access_token"))).want(t, 200, "")
	if r.json["active"] != true || text(t, r.json["act"]) != `{"sub":"client:orders-api"}` {
		t.Errorf("introspection %s", r.body)
	}
	if ev := e.events("token.exchanged", 4)[0]; ev.Client != "orders-api" || ev.Subject != before["sub"] || ev.Grant != before["grant"] {
		t.Errorf("audit %+v", ev)
	}
	// It never lives longer than what it came from.
	e.clock.advance(10 * time.Minute)
	late := e.exchange("quiet", user.str("access_token")).want(t, 200, "")
	if exp := claims(t, late.str("access_token"), 1)["exp"]; exp != before["exp"] || late.json["expires_in"].(float64) > 300 {
		t.Errorf("exp %v of %v, expires_in %v", exp, before["exp"], late.json["expires_in"])
	}
	// Chains end.
	token := e.own("orders-api", "scope", "read:orders")
	for range 4 {
		token = e.exchange("orders-api", token, "audience", billingAPI).want(t, 200, "").str("access_token")
	}
	e.exchange("orders-api", token, "audience", billingAPI).want(t, 400, "invalid_request")
}

func TestOAuth54_ExchangeIsDeniedUnlessAllowed(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil, exchangers)
		user := e.grant("scope", "openid read:orders")
		token := user.str("access_token")
		refused := func(client, token, code string, pairs ...string) {
			t.Helper()
			e.exchange(client, token, pairs...).want(t, 400, code)
		}
		refused("web", token, "unauthorized_client")
		refused("billing-api", token, "invalid_request") // web is not in its list
		refused("orders-api", "", "invalid_request")
		refused("orders-api", token, "invalid_request", "subject_token_type", "")
		refused("orders-api", token, "invalid_request", "subject_token_type", "urn:ietf:params:oauth:token-type:saml2")
		refused("orders-api", token, "invalid_request", "requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")
		refused("orders-api", token, "invalid_scope", "audience", billingAPI, "scope", "write:orders")
		refused("orders-api", token, "invalid_scope", "audience", billingAPI, "scope", "gatehouse:read")
		refused("orders-api", token, "invalid_scope", "audience", billingAPI, "scope", "openid")
		refused("orders-api", token, "invalid_target", "audience", ordersAPI)
		refused("orders-api", token, "invalid_target") // the token's own is not in the policy
		refused("quiet", token, "invalid_target", "audience", billingAPI)
		refused("quiet", token, "invalid_target", "resource", "https://evil.example.com")
		refused("quiet", token, "invalid_request", "actor_token", e.own("quiet"), "actor_token_type", accessType)
		refused("orders-api", token, "invalid_request", "audience", billingAPI, "actor_token", e.own("quiet"), "actor_token_type", accessType)
		refused("orders-api", token, "invalid_request", "audience", billingAPI, "actor_token", "x", "actor_token_type", accessType)
		refused("orders-api", token, "invalid_request", "audience", billingAPI, "actor_token_type", accessType)
		// Tokens that are not access tokens of ours, or not any more.
		for _, bad := range []string{"x", user.str("id_token"), user.str("refresh_token"), token[:len(token)-4] + "AAAA"} {
			refused("quiet", bad, "invalid_request")
		}
		more := e.own("orders-api", "scope", "gatehouse:read read:orders")
		if scope := e.exchange("quiet", more).want(t, 200, "").str("scope"); scope != "read:orders" {
			t.Errorf("what opens this server was passed on: %q", scope)
		}
		revoked := e.grant().str("access_token")
		e.post("/oauth/revoke", "web", webSecret, form("token", revoked)).want(t, 200, "")
		refused("quiet", revoked, "invalid_request")
		e.clock.advance(15*time.Minute + 31*time.Second)
		refused("quiet", token, "invalid_request")
	})
}

func TestOAuth54_ExchangedTokensDieWithWhatTheyCameFrom(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil, exchangers)
		user := e.grant()
		token := e.exchange("quiet", user.str("access_token")).want(t, 200, "").str("access_token")
		if !e.active(token) {
			t.Fatal("not active")
		}
		e.post("/oauth/revoke", "web", webSecret, form("token", user.str("refresh_token"))).want(t, 200, "")
		if e.active(token) {
			t.Error("it outlives its grant")
		}
		b := e.browser()
		user = e.redeem(b.mustCode(request())).want(t, 200, "")
		token = e.exchange("quiet", user.str("access_token")).want(t, 200, "").str("access_token")
		b.get("/oauth/logout?" + url.Values{"id_token_hint": {user.str("id_token")}}.Encode())
		if e.active(token) {
			t.Error("it outlives its session")
		}
	})
}
