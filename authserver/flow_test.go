package authserver_test

import "testing"

func TestCodeFlowGivesAllThreeTokens(t *testing.T) {
	e := start(t)
	r := e.grant()
	r = e.refresh(r.str("refresh_token")).want(t, 200, "")
	if !e.active(r.str("access_token")) {
		t.Fatal("the token is not active")
	}
	info := e.get("/oauth/userinfo", "Authorization", "Bearer "+r.str("access_token")).want(t, 200, "")
	if id := claims(t, r.str("id_token"), 1); info.str("sub") != id["sub"] || info.str("preferred_username") != "alice" {
		t.Fatalf("userinfo %s of ID token %v", info.body, id)
	}
	if info.str("email") != "" {
		t.Error("userinfo shows an address without the scope email")
	}
}
