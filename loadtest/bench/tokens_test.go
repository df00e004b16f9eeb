package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestTokensVerifyWithTheServedKey(t *testing.T) {
	i, err := newIssuer()
	if err != nil {
		t.Fatal(err)
	}
	i.url = "http://issuer.test"
	w := httptest.NewRecorder()
	i.ServeHTTP(w, httptest.NewRequest("GET", "/jwks", nil))
	var set struct {
		Keys []struct{ Kty, Crv, Kid, X, Y string }
	}
	if err := json.Unmarshal(w.Body.Bytes(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatal(w.Body, err)
	}
	k := set.Keys[0]
	text, err := i.publicPEM()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	point, err := i.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for n, coordinate := range []string{k.X, k.Y} {
		b, err := base64.RawURLEncoding.DecodeString(coordinate)
		if err != nil || len(b) != 32 || new(big.Int).SetBytes(point[1+32*n:33+32*n]).Cmp(new(big.Int).SetBytes(b)) != 0 {
			t.Errorf("coordinate %d is %q: %v", n, coordinate, err)
		}
	}
	// Many signatures, for those whose numbers are short.
	seen := map[string]bool{}
	for n := range 600 {
		token, err := i.sign(i.claims(7, time.Now()))
		if err != nil || seen[token] {
			t.Fatalf("token %d: %v, or it came twice", n, err)
		}
		seen[token] = true
		parsed, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return public, nil },
			jwt.WithIssuer(i.url), jwt.WithAudience(audience), jwt.WithExpirationRequired(), jwt.WithValidMethods([]string{"ES256"}))
		if err != nil {
			t.Fatalf("token %d: %v", n, err)
		}
		if parsed.Header["kid"] != k.Kid || parsed.Header["typ"] != "at+jwt" {
			t.Fatal(parsed.Header)
		}
	}
}

func TestSupplyMixesFreshRequestsIn(t *testing.T) {
	s := &supply{standing: [][]byte{[]byte("a"), []byte("b"), []byte("c")}, fresh: [][]byte{[]byte("1"), []byte("2")}, freshEvery: 4}
	got := ""
	for r := s.next(); r != nil; r = s.next() {
		got += string(r)
	}
	if got != "bca1cab2abc" {
		t.Errorf("got %q", got)
	}
}
