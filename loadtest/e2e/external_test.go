package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
)

// externalIssuer is a foreign authorization server: its discovery document, its
// one key, and nothing else.
type externalIssuer struct {
	url string
	key *ecdsa.PrivateKey
	kid string
}

func newExternalIssuer(t testing.TB) *externalIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := &externalIssuer{key: key, kid: "external-1"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": e.url, "jwks_uri": e.url + "/jwks"})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{jwkOf(t, key.Public(), e.kid)}})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	e.url = s.URL
	return e
}

// jwkOf is a P-256 public key as a JWK.
func jwkOf(t testing.TB, public crypto.PublicKey, kid string) map[string]string {
	t.Helper()
	point, err := public.(*ecdsa.PublicKey).Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid, "x": b64(point[1:33]), "y": b64(point[33:])}
}
