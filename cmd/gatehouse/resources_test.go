package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins/all"
	"github.com/gatehouse/gatehouse/routes"
)

// loaded is a file of this text.
func loaded(t *testing.T, text string) *routes.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(string) (string, bool) { return strings.Repeat("A", 43) + "=", true }
	file, err := routes.Load(path, routes.Options{Plugins: all.Names(), Env: env})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

const severalResources = `
listeners: [{address: 127.0.0.1:8080}]
store: sqlite:gatehouse.db
services: {a: {targets: ["http://127.0.0.1:9000"]}}
authserver:
  issuer: https://id.example.com/auth
  audience: https://api.example.com
  key_encryption_key: ${KEK}
  scopes: {"read:orders": x, "write:orders": x, "pay": x}
issuers: [{issuer: https://partner.example, audiences: ["https://api.example.com/payments"]}]
routes:
  - {path: /orders, service: a, auth: {scopes: ["read:orders"]}}
  - {path: /orders/new, service: a, auth: {scopes: ["write:orders"], any_scopes: ["read:orders"]}}
  - {path: /payments, service: a, auth: {scopes: [pay], audience: https://api.example.com/payments, dpop: required}}
  - {path: /own, service: a, auth: {audience: "urn:own", issuers: [https://id.example.com/auth]}}
  - {path: /open, service: a, public: true}
`

func TestOAuth56_EachResourceHasItsMetadata(t *testing.T) {
	file := loaded(t, severalResources)
	var r resources
	r.publish(file)
	f := func(host, path string, want map[string]any) {
		t.Helper()
		if owned := r.owns([]byte(host), []byte(path)); owned != (want != nil) {
			t.Fatalf("%s%s: owned %v", host, path, owned)
		}
		if want == nil {
			return
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", "https://"+host+path, nil))
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s%s: %v", host, path, err)
		}
		for name, v := range want {
			if !reflect.DeepEqual(got[name], v) {
				t.Errorf("%s%s: %s is %v, want %v", host, path, name, got[name], v)
			}
		}
	}
	const place = "/.well-known/oauth-protected-resource"
	list := func(s ...any) []any { return s }
	orders := map[string]any{
		"resource": "https://api.example.com", "authorization_servers": list("https://id.example.com/auth"),
		"scopes_supported": list("read:orders", "write:orders"), "bearer_methods_supported": list("header"),
		"dpop_bound_access_tokens_required": false,
	}
	f("api.example.com", place, orders)
	f("id.example.com", place, orders) // for clients that know the issuer only
	f("api.example.com", place+"/payments", map[string]any{
		"resource": "https://api.example.com/payments", "scopes_supported": list("pay"), "dpop_bound_access_tokens_required": true,
		"authorization_servers": list("https://id.example.com/auth", "https://partner.example"),
	})
	f("api.example.com", place+"/nothing", nil)
	f("other.example.com", place, nil)
	f("api.example.com", "/orders", nil)

	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("POST", "https://api.example.com"+place, nil))
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
	for audience, want := range map[string]string{
		"": "https://api.example.com" + place, "https://api.example.com/payments": "https://api.example.com" + place + "/payments", "urn:own": "",
	} {
		if got := challenged(file, audience); got != want {
			t.Errorf("challenge for %q points to %q, want %q", audience, got, want)
		}
	}
}

func TestCheckFindsKeysThatAreNone(t *testing.T) {
	file := loaded(t, strings.Replace(severalResources, "issuers: [{", `  clients:
    - {id: signer, grants: [client_credentials], token_endpoint_auth_method: private_key_jwt, jwks: {keys: [{kty: OKP, crv: Ed25519, x: AAAA}]}}
issuers: [{`, 1))
	err := checkClients(file)
	if err == nil || !strings.Contains(err.Error(), `gatehouse.yaml:11:7: client "signer": jwks: no usable key`) {
		t.Errorf("%v", err)
	}
}
