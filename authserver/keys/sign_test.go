package keys

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestEveryAlgorithmSigns(t *testing.T) {
	for _, alg := range []string{ES256, EdDSA, RS256} {
		t.Run(alg, func(t *testing.T) {
			r := open(t, database(t), Config{Keks: []Kek{newKek(t)}, Algorithm: alg})
			for _, claims := range []any{[]byte(`{"sub":"x"}`), map[string]string{"sub": "x"}, struct {
				S string `json:"sub"`
			}{"x"}} {
				token, err := r.Sign(UseIdentity, "JWT", claims)
				if err != nil {
					t.Fatal(err)
				}
				parsed, err := jwt.Parse(token, func(j *jwt.Token) (any, error) {
					public, got, use, ok := r.PublicKey(j.Header["kid"].(string))
					if got != alg || use != UseIdentity || !ok || j.Header["typ"] != "JWT" {
						t.Errorf("header %v: %s, %s, %v", j.Header, got, use, ok)
					}
					return public, nil
				}, jwt.WithValidMethods([]string{alg}))
				if err != nil {
					t.Fatal(err)
				}
				if sub, _ := parsed.Claims.GetSubject(); sub != "x" {
					t.Errorf("claims %v", parsed.Claims)
				}
			}
			if _, err := r.Sign("other", "JWT", []byte("{}")); err == nil {
				t.Error("signed for an unknown use")
			}
			if _, err := r.Sign(UseToken, "JWT", func() {}); err == nil {
				t.Error("signed what is no JSON")
			}
		})
	}
}

func TestDerivedSecretsDiffer(t *testing.T) {
	r := open(t, database(t), Config{Keks: []Kek{newKek(t)}})
	seen := map[string]string{}
	for _, grant := range []string{"", "a", "b", "a\x00", "aa"} {
		for _, generation := range []int{0, 1, 2, 256, -1} {
			secret := r.Derive(grant, generation)
			name := fmt.Sprintf("%q %d", grant, generation)
			if other, twice := seen[string(secret)]; twice || len(secret) != 32 {
				t.Errorf("%s and %s have one secret of %d bytes", name, other, len(secret))
			}
			seen[string(secret)] = name
		}
	}
}

func TestCallersMayUseARingDuringRotation(t *testing.T) {
	s, clock := database(t), &clock{}
	r := open(t, s, Config{Keks: []Kek{newKek(t)}, Now: clock.now})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := verify(r, sign(t, r)); err != nil {
					t.Error(err)
					return
				}
				r.Refresh(t.Context(), "unknown")
				r.JWKS()
			}
		})
	}
	for range 20 {
		if err := r.RotateNow(t.Context()); err != nil {
			t.Error(err)
		}
		clock.advance(10 * time.Minute)
	}
	close(stop)
	wg.Wait()
}

func BenchmarkSign(b *testing.B) {
	claims := []byte(`{"iss":"https://api.example.com","aud":"https://api.example.com","exp":1767323045,"iat":1767322145,"jti":"AAAAAAAAAAAAAAAAAAAAAAAAAA","sub":"client:billing-batch","client_id":"billing-batch","scope":"read:orders write:orders","grant":"gAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)
	for _, alg := range []string{ES256, EdDSA, RS256} {
		b.Run(alg, func(b *testing.B) {
			r := open(b, database(b), Config{Keks: []Kek{newKek(b)}, Algorithm: alg})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Sign(UseToken, "at+jwt", claims); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPublicKey(b *testing.B) {
	r := open(b, database(b), Config{Keks: []Kek{newKek(b)}})
	kid, err := verify(r, sign(b, r))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, ok := r.PublicKey(kid); !ok {
			b.Fatal("lost")
		}
	}
}

func BenchmarkDerive(b *testing.B) {
	r := open(b, database(b), Config{Keks: []Kek{newKek(b)}})
	b.ReportAllocs()
	for b.Loop() {
		r.Derive("gAAAAAAAAAAAAAAAAAAAAAAAAAA", 12)
	}
}

// A half that begins with zeros is shorter in ASN.1, one whose first bit is set
// is longer: enough signatures have every length.
func TestES256SignaturesHaveOneLength(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2000 {
		text := fmt.Sprint("text ", n)
		signature, err := signES256(key, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := jwt.SigningMethodES256.Verify(text, signature, key.Public()); err != nil {
			t.Fatalf("signature of %d bytes: %v", len(signature), err)
		}
	}
}
