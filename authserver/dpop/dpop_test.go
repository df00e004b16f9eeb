package dpop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var t0 = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

const endpoint = "https://api.example.com/oauth/token"

type members = map[string]any

func newKey(t testing.TB) (*ecdsa.PrivateKey, members) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return k, members{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])}
}

// sign makes a proof; members override, nil removes.
func sign(t testing.TB, k crypto.Signer, header, claims members) string {
	t.Helper()
	segment := func(m members) string {
		maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	h := members{"alg": "ES256", "typ": "dpop+jwt"}
	maps.Copy(h, header)
	c := members{"jti": "id-1", "htm": "POST", "htu": endpoint, "iat": t0.Unix()}
	maps.Copy(c, claims)
	text := segment(h) + "." + segment(c)
	sig, err := jwt.SigningMethodES256.Sign(text, k)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestProofMustBeForThisRequestNow(t *testing.T) {
	k, public := newKey(t)
	other, _ := newKey(t)
	request := Request{Method: "POST", URL: endpoint, Now: t0}
	f := func(name string, ok bool, header, claims members) {
		t.Helper()
		h := members{"jwk": public}
		maps.Copy(h, header)
		_, err := Verify(sign(t, k, h, claims), request)
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want it accepted: %v", name, err, ok)
		}
	}
	f("right", true, nil, nil)
	f("query and fragment do not count", true, nil, members{"htu": endpoint + "?a=b#c"})
	f("case of the host and default port", true, nil, members{"htu": "HTTPS://API.example.com:443/oauth/token"})
	f("another path", false, nil, members{"htu": "https://api.example.com/oauth/tokens"})
	f("another host", false, nil, members{"htu": "https://evil.example.com/oauth/token"})
	f("another scheme", false, nil, members{"htu": "http://api.example.com/oauth/token"})
	f("no URL", false, nil, members{"htu": nil})
	f("another method", false, nil, members{"htm": "GET"})
	f("method in lower case", false, nil, members{"htm": "post"})
	f("60 s old", true, nil, members{"iat": t0.Unix() - 60})
	f("61 s old", false, nil, members{"iat": t0.Unix() - 61})
	f("61 s ahead", false, nil, members{"iat": t0.Unix() + 61})
	f("no time", false, nil, members{"iat": nil})
	f("time as text", false, nil, members{"iat": "now"})
	f("no jti", false, nil, members{"jti": nil})
	f("long jti", false, nil, members{"jti": strings.Repeat("j", 600)})
	f("hash of a token that is not there", false, nil, members{"ath": "x"})
	f("another type", false, members{"typ": "JWT"}, nil)
	f("no type", false, members{"typ": nil}, nil)
	f("alg none", false, members{"alg": "none"}, nil)
	f("symmetric alg", false, members{"alg": "HS256"}, nil)
	f("alg of another curve", false, members{"alg": "ES384"}, nil)
	f("crit", false, members{"crit": []string{"b64"}}, nil)
	f("no key", false, members{"jwk": nil}, nil)
	private := maps.Clone(public)
	private["d"] = base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	f("private key in the header", false, members{"jwk": private}, nil)
	f("symmetric key", false, members{"jwk": members{"kty": "oct", "k": "AAAA"}}, nil)
	if _, err := Verify(sign(t, other, members{"jwk": public}, nil), request); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed by another key: %v", err)
	}
	for _, bad := range []string{"", "a.b", "a.b.c", strings.Repeat("x", 5000)} {
		if _, err := Verify(bad, request); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
}

func TestProofIsBoundToItsToken(t *testing.T) {
	k, public := newKey(t)
	sum := sha256.Sum256([]byte("the token"))
	ath := base64.RawURLEncoding.EncodeToString(sum[:])
	f := func(token, hash string, ok bool) {
		t.Helper()
		var claim any = hash
		if hash == "" {
			claim = nil
		}
		_, err := Verify(sign(t, k, members{"jwk": public}, members{"ath": claim}), Request{Method: "POST", URL: endpoint, Token: token, Now: t0})
		if (err == nil) != ok {
			t.Errorf("%q with %q: %v", token, hash, err)
		}
	}
	f("the token", ath, true)
	f("another token", ath, false)
	f("the token", "", false)
	f("", ath, false)
}

func TestNoncesRotateAndAreSharedByReplicas(t *testing.T) {
	k, public := newKey(t)
	key := []byte(strings.Repeat("k", 32))
	one, two := NewNonces(key), NewNonces(key)
	nonce := one.Current(t0)
	f := func(name string, nonce any, at time.Time, want error) {
		t.Helper()
		p := sign(t, k, members{"jwk": public}, members{"nonce": nonce, "iat": at.Unix()})
		if _, err := Verify(p, Request{Method: "POST", URL: endpoint, Nonces: two, Now: at}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	f("of another replica", nonce, t0, nil)
	f("of the last rotation", nonce, t0.Add(rotation), nil)
	f("too old", nonce, t0.Add(2*rotation+rotation), ErrNonce)
	f("none", nil, t0, ErrNonce)
	f("made up", "AAAAAAAAAAAAAAAAAAAAAA", t0, ErrNonce)
	f("of another key", NewNonces([]byte(strings.Repeat("x", 32))).Current(t0), t0, ErrNonce)
}

// The thumbprint of RFC 7638, 3.1 is in package jose's tests; here only that
// two proofs of one key have different identities, and one proof the same.
func TestIdentityOfAProof(t *testing.T) {
	k, public := newKey(t)
	id := func(jti string) Proof {
		p, err := Verify(sign(t, k, members{"jwk": public}, members{"jti": jti}), Request{Method: "POST", URL: endpoint, Now: t0})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if a, b := id("a"), id("b"); a.Key != b.Key || a.ID == b.ID || a.ID != id("a").ID || !a.Expires.Equal(t0.Add(Window)) {
		t.Errorf("%+v %+v", a, b)
	}
}

func FuzzVerify(f *testing.F) {
	k, public := newKey(f)
	f.Add(sign(f, k, members{"jwk": public}, nil))
	f.Add("..")
	f.Fuzz(func(t *testing.T, proof string) {
		if p, err := Verify(proof, Request{Method: "POST", URL: endpoint, Now: t0}); err == nil && (p.Key == "" || p.ID == "") {
			t.Fatal("a proof without identity was accepted")
		}
	})
}
