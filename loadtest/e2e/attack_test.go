package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// attack makes a forged token of what would be good claims.
type attack struct {
	name   string
	forge  func(t *testing.T, f *forger, claims map[string]any) string
	status int
	reason string
}

// forgedTokensAreRefused sends each forgery to a gateway that has never seen
// anything like it (cold), and to one that has just verified, and remembers,
// the good token from which it is made (warm).
func forgedTokensAreRefused(t *testing.T, c *cluster) {
	var fetched atomic.Int64
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	t.Cleanup(lure.Close)
	attacks := attacks(t, lure.URL)
	for _, f := range []struct {
		name string
		*forger
	}{{"own issuer", c.ownForger(t)}, {"external issuer", c.externalForger()}} {
		for _, attack := range attacks {
			t.Run(f.name+"/"+attack.name, func(t *testing.T) {
				path := "/orders/attack/" + strings.ReplaceAll(t.Name(), " ", "-")
				refused := func(when string, g *gateway, token string) {
					t.Helper()
					a := g.call("GET", path, token)
					if a.err != nil || a.status != attack.status || a.reason != attack.reason {
						t.Errorf("%s: answer %d %s %v, want %d %s", when, a.status, a.reason, a.err, attack.status, attack.reason)
					}
					if challenge := a.header.Get("WWW-Authenticate"); a.status == 401 && !strings.Contains(challenge, `error="invalid_token"`) {
						t.Errorf("%s: WWW-Authenticate: %s", when, challenge)
					}
				}
				cold := attack.forge(t, f.forger, f.claims())
				refused("cold", c.a, cold)
				refused("cold, again", c.a, cold)

				claims := f.claims()
				good := sign(t, f.key, f.header(), claims)
				c.a.call("GET", "/orders/good", good).want(t, 200, "")
				c.a.call("GET", "/orders/good", good).want(t, 200, "")
				warm := attack.forge(t, f.forger, claims)
				refused("warm", c.a, warm)
				refused("warm, again", c.a, warm)
				c.a.call("GET", "/orders/good", good).want(t, 200, "")
			})
		}
	}
	if n := fetched.Load(); n > 0 {
		t.Errorf("a URL out of a token was fetched %d times", n)
	}
	for _, b := range c.orders {
		for _, a := range b.arrivals(t) {
			if strings.HasPrefix(a.Path, "/orders/attack/") {
				t.Errorf("%s reached a backend", a.Path)
			}
		}
	}
}

func attacks(t *testing.T, lure string) []attack {
	mine, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// header has the token signed with a good key under another header; claim
	// with other claims; foreign with the attacker's key.
	header := func(pairs ...any) func(*testing.T, *forger, map[string]any) string {
		return func(t *testing.T, f *forger, claims map[string]any) string {
			return sign(t, f.key, changed(f.header(), pairs...), claims)
		}
	}
	claim := func(pairs ...any) func(*testing.T, *forger, map[string]any) string {
		return func(t *testing.T, f *forger, claims map[string]any) string {
			return sign(t, f.key, f.header(), changed(claims, pairs...))
		}
	}
	foreign := func(pairs ...any) func(*testing.T, *forger, map[string]any) string {
		return func(t *testing.T, f *forger, claims map[string]any) string {
			return sign(t, mine, changed(f.header(), pairs...), claims)
		}
	}
	mac := func(secret func(*forger) []byte) func(*testing.T, *forger, map[string]any) string {
		return func(t *testing.T, f *forger, claims map[string]any) string {
			return hs256(t, secret(f), changed(f.header(), "alg", "HS256"), claims)
		}
	}
	der := func(f *forger) []byte {
		b, err := x509.MarshalPKIXPublicKey(f.public())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	now := time.Now().Unix()
	return []attack{
		{"alg none", func(t *testing.T, f *forger, claims map[string]any) string {
			return encode(t, changed(f.header(), "alg", "none")) + "." + encode(t, claims) + "."
		}, 401, "token_invalid"},
		{"alg none with the good signature", func(t *testing.T, f *forger, claims map[string]any) string {
			_, signature, _ := strings.Cut(sign(t, f.key, f.header(), claims)[len(encode(t, f.header()))+1:], ".")
			return encode(t, changed(f.header(), "alg", "NoNe")) + "." + encode(t, claims) + "." + signature
		}, 401, "token_invalid"},
		{"HS256 with the public key as PEM", mac(func(f *forger) []byte {
			return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der(f)})
		}), 401, "token_invalid"},
		{"HS256 with the public key as DER", mac(der), 401, "token_invalid"},
		{"HS256 with the public key as JWK", mac(func(f *forger) []byte {
			b, err := json.Marshal(jwkOf(t, f.public(), f.kid))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}), 401, "token_invalid"},
		{"claims changed after signing", func(t *testing.T, f *forger, claims map[string]any) string {
			parts := strings.Split(sign(t, f.key, f.header(), claims), ".")
			parts[1] = encode(t, changed(claims, "scope", "read:orders write:orders"))
			return strings.Join(parts, ".")
		}, 401, "token_invalid"},
		{"another key under a good kid", foreign(), 401, "token_invalid"},
		{"jwk header", foreign("jwk", jwkOf(t, mine.Public(), "mine")), 401, "token_invalid"},
		{"jwk header with a good signature", header("jwk", jwkOf(t, mine.Public(), "mine")), 401, "token_invalid"},
		{"jku header", foreign("jku", lure, "kid", "mine"), 401, "token_invalid"},
		{"x5u header", foreign("x5u", lure), 401, "token_invalid"},
		{"kid as a path", foreign("kid", "../../../../dev/null"), 401, "token_invalid"},
		{"wrong typ", header("typ", "logout+jwt"), 401, "token_invalid"},
		{"identity JWT as a token", header("typ", "gatehouse-identity+jwt"), 401, "token_invalid"},
		{"wrong iss", claim("iss", "https://evil.example.com"), 401, "issuer_untrusted"},
		{"no iss", claim("iss", nil), 401, "token_invalid"},
		{"wrong aud", claim("aud", "https://other.example.com"), 401, "audience_mismatch"},
		{"no aud", claim("aud", nil), 401, "token_invalid"},
		{"expired", claim("iat", now-7200, "exp", now-3600), 401, "token_expired"},
		{"no exp", claim("exp", nil), 401, "token_invalid"},
		{"not yet valid", claim("nbf", now+3600, "exp", now+7200), 401, "token_not_yet_valid"},
		{"issued in the future", claim("iat", now+3600, "exp", now+7200), 401, "token_not_yet_valid"},
		{"duplicate claims", func(t *testing.T, f *forger, claims map[string]any) string {
			raw, err := json.Marshal(claims)
			if err != nil {
				t.Fatal(err)
			}
			return sign(t, f.key, f.header(), append(raw[:len(raw)-1], `,"scope":"read:orders write:orders"}`...))
		}, 401, "token_invalid"},
		{"duplicate header parameters", func(t *testing.T, f *forger, claims map[string]any) string {
			raw := fmt.Sprintf(`{"alg":"none","alg":"ES256","typ":"at+jwt","kid":%q}`, f.kid)
			return sign(t, f.key, []byte(raw), claims)
		}, 401, "token_invalid"},
		{"unknown crit", header("crit", []string{"urn:example:new"}, "urn:example:new", true), 401, "token_invalid"},
		{"more after the signature", func(t *testing.T, f *forger, claims map[string]any) string {
			return sign(t, f.key, f.header(), claims) + ".e30"
		}, 401, "token_invalid"},
		{"10 kB", claim("padding", strings.Repeat("x", 7500)), 401, "token_invalid"},
		{"100 kB", claim("padding", strings.Repeat("x", 75000)), 431, "header_too_large"},
	}
}
