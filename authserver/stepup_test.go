package authserver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// RFC 9470: what a route demands, a client can ask for.
func TestStepUpByACRValuesAndMaxAge(t *testing.T) {
	e := start(t)
	b := e.browser()
	first := e.redeem(b.mustCode(request())).want(t, 200, "")
	at := func(r reply) float64 { return claims(t, r.str("access_token"), 1)["auth_time"].(float64) }
	if c := claims(t, first.str("access_token"), 1); c["acr"] != oauth.ACRPassword || c["auth_time"] == nil {
		t.Fatalf("claims %v", c)
	}
	asks := func(pairs ...string) bool {
		t.Helper()
		r := b.get("/oauth/authorize?" + request(pairs...).Encode())
		return strings.HasPrefix(r.header.Get("Location"), "/oauth/login")
	}
	e.clock.advance(time.Minute)
	// What the session meets, what nobody here knows, and what is both.
	for _, values := range []string{oauth.ACRPassword, "1 2", "urn:other " + oauth.ACRPassword, oauth.ACROTP + " " + oauth.ACRPassword} {
		if asks("acr_values", values) {
			t.Errorf("acr_values %q: asked to sign in again", values)
		}
	}
	if asks("max_age", "600") || !asks("max_age", "30") {
		t.Error("max_age")
	}
	again := e.redeem(b.mustCode(request("max_age", "30"))).want(t, 200, "")
	if at(again) < at(first)+55 {
		t.Errorf("auth_time %v after %v", at(again), at(first))
	}
	// Who cannot do it is sent back with an error, not round and round.
	r := b.run(request("acr_values", oauth.ACROTP), "alice", "allow")
	if b.param(r, "error") != "unmet_authentication_requirements" || b.param(r, "state") != "s-1" || b.param(r, "iss") != e.config.Issuer {
		t.Errorf("answer %d %s", r.status, r.header.Get("Location"))
	}
	r = b.run(request("acr_values", oauth.ACRPasskey, "prompt", "none"), "", "")
	if b.param(r, "error") != "login_required" {
		t.Errorf("prompt=none: %s", r.header.Get("Location"))
	}
	// A refresh is no sign-in.
	refreshed := e.refresh(again.str("refresh_token")).want(t, 200, "")
	if at(refreshed) != at(again) {
		t.Error("a refresh moved auth_time")
	}
}

func TestStrongerSignInsMeetWeakerWishes(t *testing.T) {
	f := func(acr string, want bool, wanted ...string) {
		t.Helper()
		if got := oauth.ACRMeets(acr, wanted); got != want {
			t.Errorf("%s for %v: %v", acr, wanted, got)
		}
	}
	f(oauth.ACRPassword, true)
	f(oauth.ACRPassword, true, "unknown")
	f(oauth.ACRPassword, false, oauth.ACROTP)
	f(oauth.ACRPassword, false, "unknown", oauth.ACRPasskey)
	f(oauth.ACRPassword, true, oauth.ACROTP, oauth.ACRPassword)
	f(oauth.ACRPasskey, true, oauth.ACROTP)
	f(oauth.ACRSecondPasskey, true, oauth.ACRPasskey)
	f("urn:elsewhere", false, oauth.ACRPassword)
	f("", false, oauth.ACRPassword)
	f("", true)
}
