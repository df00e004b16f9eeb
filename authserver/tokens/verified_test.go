package tokens

import (
	"crypto"
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// ring is a key ring with one key, which can be taken away.
type ring struct {
	derived
	key   ed25519.PrivateKey
	gone  bool
	asked int
}

func (r *ring) Sign(_, typ string, claims any) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims.(jwt.Claims))
	t.Header["typ"], t.Header["kid"] = typ, "k"
	return t.SignedString(r.key)
}

func (r *ring) PublicKey(kid string) (crypto.PublicKey, string, string, bool) {
	r.asked++
	return r.key.Public(), "EdDSA", use, kid == "k" && !r.gone
}

func TestVerifiedTokenIsRememberedUntilItExpiresOrItsKeyIsGone(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	r := &ring{key: key}
	i := New(Config{Keys: r, Issuer: "https://a", TTL: time.Minute, Now: func() time.Time { return now }})
	token, err := r.Sign(use, "at+jwt", jwt.MapClaims{
		"iss": "https://a", "sub": "s", "aud": []string{"x"}, "client_id": "c", "scope": "a b", "jti": "j",
		"iat": now.Unix(), "exp": now.Add(time.Minute).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := i.ParseAccess(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, known := i.known(token, now); !known {
		t.Error("it was not remembered")
	}
	if again, err := i.ParseAccess(token); err != nil || again.ID != first.ID || again.Scope != "a b" || !again.Expires.Equal(first.Expires) {
		t.Errorf("again: %+v, %v", again, err)
	}
	// One changed character is another token.
	forged := token[:len(token)-2] + "A" + token[len(token)-1:]
	if _, err := i.ParseAccess(forged); forged != token && !errors.Is(err, ErrInvalid) {
		t.Errorf("forged: %v", err)
	}
	// Other tokens do not push out one that is in use.
	for n := range 3 * maxVerified {
		i.verified.keep(string(rune(n)), verifiedToken{})
		if n%1000 == 0 {
			if _, known := i.known(token, now); !known {
				t.Fatalf("forgotten after %d others", n)
			}
		}
	}
	if n := len(i.verified.young) + len(i.verified.old); n > 2*maxVerified {
		t.Errorf("%d tokens are held", n)
	}
	now = now.Add(-leeway - 2*time.Second)
	if _, err := i.ParseAccess(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("not issued yet: %v", err)
	}
	now = now.Add(leeway + 2*time.Second)
	now = now.Add(time.Minute + leeway)
	if _, err := i.ParseAccess(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("expired: %v", err)
	}
	now = now.Add(-time.Minute)
	r.gone = true
	if _, err := i.ParseAccess(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("its key is gone: %v", err)
	}
}
