package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

// attacker knows what the world knows: the issuer, its public key and a good
// token; and it holds a key of its own.
type attacker struct {
	t      testing.TB
	key    signing // the issuer's; attacks use only what is public of it, but for those of a careless issuer
	mine   signing
	issuer string
}

func (a attacker) claims(m members) members { return claimsOf(a.issuer, m) }

// signed is what a careless issuer would sign.
func (a attacker) signed(claims any, header members) []byte { return a.key.token(a.t, claims, header) }

// hmac signs with the public key as secret.
func (a attacker) hmac(secret []byte) []byte {
	text := encoded(a.t, members{"alg": "HS256", "kid": a.key.kid, "typ": "at+jwt"}) + "." + encoded(a.t, a.claims(nil))
	sig, err := jwt.SigningMethodHS256.Sign(text, secret)
	if err != nil {
		a.t.Fatal(err)
	}
	return []byte(text + "." + base64.RawURLEncoding.EncodeToString(sig))
}

func (a attacker) der() []byte {
	der, err := x509.MarshalPKIXPublicKey(a.key.private.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func raw(t testing.TB, v any) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(encoded(t, v))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// attacks of issue 2 and of the JWT profile; want is "" for token_invalid.
var attacks = []struct {
	name string
	make func(a attacker) []byte
	want string
	own  bool // for own tokens only
}{
	{name: "AlgNone", make: func(a attacker) []byte {
		return []byte(encoded(a.t, members{"alg": "none", "kid": a.key.kid, "typ": "at+jwt"}) + "." + encoded(a.t, a.claims(nil)) + ".")
	}},
	{name: "AlgNoneWithSignature", make: func(a attacker) []byte {
		return []byte(encoded(a.t, members{"alg": "none", "kid": a.key.kid, "typ": "at+jwt"}) + "." + encoded(a.t, a.claims(nil)) + ".AAAA")
	}},
	{name: "AlgNoneInOddCase", make: func(a attacker) []byte {
		return []byte(encoded(a.t, members{"alg": "nOnE", "kid": a.key.kid, "typ": "at+jwt"}) + "." + encoded(a.t, a.claims(nil)) + ".AAAA")
	}},
	{name: "HS256WithPublicKeyPEM", make: func(a attacker) []byte {
		return a.hmac(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: a.der()}))
	}},
	{name: "HS256WithPublicKeyDER", make: func(a attacker) []byte { return a.hmac(a.der()) }},
	{name: "OtherAlgorithmForTheKey", make: func(a attacker) []byte {
		other := newSigning(a.t, a.key.kid, "ES384")
		return other.token(a.t, a.claims(nil), nil)
	}},
	{name: "AlgOfAnotherAllowedKind", make: func(a attacker) []byte {
		return a.signed(a.claims(nil), members{"alg": "RS256"})
	}},
	{name: "WrongTyp", make: func(a attacker) []byte { return a.signed(a.claims(nil), members{"typ": "logout+jwt"}) }},
	{name: "TypJWT", own: true, make: func(a attacker) []byte { return a.signed(a.claims(nil), members{"typ": "JWT"}) }},
	{name: "TypMissing", own: true, make: func(a attacker) []byte { return a.signed(a.claims(nil), members{"typ": nil}) }},
	{name: "IDToken", make: func(a attacker) []byte {
		return a.signed(a.claims(members{"nonce": "n", "at_hash": "h"}), members{"typ": "JWT"})
	}},
	{name: "IdentityJWTAsBearer", make: func(a attacker) []byte {
		return a.signed(a.claims(nil), members{"typ": "gatehouse-identity+jwt"})
	}},
	{name: "WrongIss", want: plugins.IssuerUntrusted, make: func(a attacker) []byte {
		return a.signed(a.claims(members{"iss": "https://evil.example"}), nil)
	}},
	{name: "IssWithTrailingSlash", want: plugins.IssuerUntrusted, make: func(a attacker) []byte {
		return a.signed(a.claims(members{"iss": a.issuer + "/"}), nil)
	}},
	{name: "IssMissing", make: func(a attacker) []byte { return a.signed(a.claims(members{"iss": nil}), nil) }},
	{name: "WrongAud", want: plugins.AudienceMismatch, make: func(a attacker) []byte {
		return a.signed(a.claims(members{"aud": "https://other.example"}), nil)
	}},
	{name: "AudMissing", make: func(a attacker) []byte { return a.signed(a.claims(members{"aud": nil}), nil) }},
	{name: "AudOfWrongKind", make: func(a attacker) []byte { return a.signed(a.claims(members{"aud": members{"x": 1}}), nil) }},
	{name: "Expired", want: plugins.TokenExpired, make: func(a attacker) []byte {
		return a.signed(a.claims(members{"exp": t0.Unix() - leeway}), nil)
	}},
	{name: "ExpMissing", make: func(a attacker) []byte { return a.signed(a.claims(members{"exp": nil}), nil) }},
	{name: "ExpAsString", make: func(a attacker) []byte { return a.signed(a.claims(members{"exp": "9999999999"}), nil) }},
	{name: "ExpOverflows", make: func(a attacker) []byte { return a.signed(a.claims(members{"exp": 1e300}), nil) }},
	{name: "NotYetValid", want: plugins.TokenNotYetValid, make: func(a attacker) []byte {
		return a.signed(a.claims(members{"nbf": t0.Unix() + leeway + 1}), nil)
	}},
	{name: "IssuedInTheFuture", want: plugins.TokenNotYetValid, make: func(a attacker) []byte {
		return a.signed(a.claims(members{"iat": t0.Unix() + leeway + 1}), nil)
	}},
	{name: "JWKHeader", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"jwk": jwkOf(a.t, a.mine)})
	}},
	{name: "JKUHeader", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"jku": "http://127.0.0.1:1/jwks"})
	}},
	{name: "JKUHeaderWithGoodSignature", make: func(a attacker) []byte {
		return a.signed(a.claims(nil), members{"jku": "http://127.0.0.1:1/jwks"})
	}},
	{name: "X5UHeader", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"x5u": "http://127.0.0.1:1/cert"})
	}},
	{name: "X5CHeader", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"x5c": []string{"AAAA"}})
	}},
	{name: "UnknownCrit", make: func(a attacker) []byte {
		return a.signed(a.claims(nil), members{"crit": []string{"x"}, "x": 1})
	}},
	{name: "EmptyCrit", make: func(a attacker) []byte { return a.signed(a.claims(nil), members{"crit": []string{}}) }},
	{name: "DuplicateClaims", make: func(a attacker) []byte {
		claims := raw(a.t, a.claims(nil))
		return a.signed(strings.TrimSuffix(claims, "}")+`,"scope":"admin"}`, nil)
	}},
	{name: "DuplicateClaimsByEscape", make: func(a attacker) []byte {
		claims := raw(a.t, a.claims(nil))
		return a.signed(strings.TrimSuffix(claims, "}")+`,"s\u0063ope":"admin"}`, nil)
	}},
	{name: "DuplicateNestedMembers", make: func(a attacker) []byte {
		claims := raw(a.t, a.claims(nil))
		return a.signed(strings.TrimSuffix(claims, "}")+`,"x":[{"a":1,"a":2}]}`, nil)
	}},
	{name: "DuplicateHeader", make: func(a attacker) []byte {
		header := `{"alg":"` + a.key.alg + `","alg":"none","kid":"` + a.key.kid + `","typ":"at+jwt"}`
		return a.key.sign(a.t, encoded(a.t, header)+"."+encoded(a.t, a.claims(nil)))
	}},
	{name: "HundredKilobytes", make: func(a attacker) []byte {
		return a.signed(a.claims(members{"pad": strings.Repeat("x", 100<<10)}), nil)
	}},
	{name: "KeyIDTraversal", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"kid": "../../dev/null"})
	}},
	{name: "KeyIDInjection", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"kid": "' OR '1'='1"})
	}},
	{name: "KeyIDHuge", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"kid": strings.Repeat("k", 4000)})
	}},
	{name: "KeyIDMissing", make: func(a attacker) []byte { return a.signed(a.claims(nil), members{"kid": nil}) }},
	{name: "KeyIDUnknown", make: func(a attacker) []byte { return a.mine.token(a.t, a.claims(nil), nil) }},
	{name: "SignatureOfAnotherKey", make: func(a attacker) []byte {
		return a.mine.token(a.t, a.claims(nil), members{"kid": a.key.kid})
	}},
	{name: "SignatureCut", make: func(a attacker) []byte {
		token := a.signed(a.claims(nil), nil)
		return token[:len(token)-8]
	}},
	{name: "SignatureEmpty", make: func(a attacker) []byte {
		token := a.signed(a.claims(nil), nil)
		return token[:bytes.LastIndexByte(token, '.')+1]
	}},
	{name: "SignatureOfZeros", make: func(a attacker) []byte { // CVE-2022-21449
		token := a.signed(a.claims(nil), nil)
		return append(token[:bytes.LastIndexByte(token, '.')+1], strings.Repeat("A", 86)...)
	}},
	{name: "ClaimsExchanged", make: func(a attacker) []byte {
		parts := strings.Split(string(a.signed(a.claims(nil), nil)), ".")
		return []byte(parts[0] + "." + encoded(a.t, a.claims(members{"scope": "admin"})) + "." + parts[2])
	}},
	{name: "SecondSignature", make: func(a attacker) []byte { return append(a.signed(a.claims(nil), nil), ".AAAA"...) }},
	{name: "LineEndInSegment", make: func(a attacker) []byte {
		token := a.signed(a.claims(nil), nil)
		return append(token[:len(token)-4:len(token)-4], "\r\n"+string(token[len(token)-4:])...)
	}},
	{name: "PaddedSegment", make: func(a attacker) []byte { return append(a.signed(a.claims(nil), nil), '=') }},
	{name: "ScopeWithLineEnd", make: func(a attacker) []byte {
		return a.signed(a.claims(members{"scope": "read:orders\r\nX-Evil:1"}), nil)
	}},
	{name: "SubjectMissing", make: func(a attacker) []byte { return a.signed(a.claims(members{"sub": nil}), nil) }},
	{name: "SubjectOfOtherKind", make: func(a attacker) []byte { return a.signed(a.claims(members{"sub": []string{"a"}}), nil) }},
	{name: "SubjectHuge", make: func(a attacker) []byte {
		return a.signed(a.claims(members{"sub": strings.Repeat("s", 256)}), nil)
	}},
	{name: "BoundInAnUnknownWay", make: func(a attacker) []byte {
		return a.signed(a.claims(members{"cnf": members{"jkt": strings.Repeat("x", 43), "kid": "x"}}), nil)
	}},
	{name: "NotUTF8", make: func(a attacker) []byte {
		return a.signed("{\"iss\":\""+a.issuer+"\",\"x\":\"\xff\"}", nil)
	}},
	{name: "LoneSurrogate", make: func(a attacker) []byte {
		claims := raw(a.t, a.claims(members{"sub": nil}))
		return a.signed(strings.TrimSuffix(claims, "}")+`,"sub":"usr_\ud800"}`, nil)
	}},
	{name: "ClaimsAreAnArray", make: func(a attacker) []byte { return a.signed(`["iss"]`, nil) }},
	{name: "TrailingJSON", make: func(a attacker) []byte {
		return a.signed(raw(a.t, a.claims(nil))+`{"scope":"admin"}`, nil)
	}},
	{name: "ClientMissing", own: true, make: func(a attacker) []byte { return a.signed(a.claims(members{"client_id": nil}), nil) }},
	{name: "TokenIDMissing", own: true, make: func(a attacker) []byte { return a.signed(a.claims(members{"jti": nil}), nil) }},
	{name: "IssuedMissing", own: true, make: func(a attacker) []byte { return a.signed(a.claims(members{"iat": nil}), nil) }},
}

// TestJWTAttackRefused sends each attack through the whole step, to an own and
// to an external issuer, with nothing and with everything in the caches.
func TestJWTAttackRefused(t *testing.T) {
	ownKey, mine := newSigning(t, "k1", "ES256"), newSigning(t, "mine", "ES256")
	extKey := newSigning(t, "x1", "ES256")
	idp := newProvider(t, extKey)

	kinds := []struct {
		name   string
		key    signing
		issuer string
	}{{"own", ownKey, ownIssuer}, {"external", extKey, idp.URL}}

	for _, kind := range kinds {
		a := attacker{t, kind.key, mine, kind.issuer}
		good := a.signed(a.claims(nil), nil)
		for _, attack := range attacks {
			if attack.own && kind.issuer != ownIssuer {
				continue
			}
			for _, warm := range []bool{false, true} {
				name := attack.name + "/" + kind.name + map[bool]string{false: "/cold", true: "/warm"}[warm]
				t.Run(name, func(t *testing.T) {
					v := external(t, newClock(), newRing(ownKey), trusting(idp, "ES256", "RS256"))
					p := New(Config{Verifier: v, Denied: NewDenied(ownIssuer)})
					step, err := p.Build(&routes.Route{Name: "r", Auth: &routes.Auth{Scopes: []string{"read:orders"}}})
					if err != nil {
						t.Fatal(err)
					}
					send := func(token []byte) (*plugins.Exchange, error) {
						x := plugintest.New("GET", "api.example.com", "/", "Authorization: Bearer "+string(token))
						return x, step(plugintest.OK)(x)
					}
					token := attack.make(a)
					if warm {
						if _, err := send(good); err != nil {
							t.Fatalf("good token refused: %v", err)
						}
						send(token)
					}
					want := attack.want
					if want == "" {
						want = plugins.TokenInvalid
					}
					x, err := send(token)
					if got := code(t, err); got != want {
						t.Errorf("got %q (%v), want %q", got, err, want)
					}
					if x.Principal != nil || plugintest.Client(x).Status != 0 {
						t.Error("the request was let through or got a principal")
					}
					if err != nil && (strings.Contains(err.Error(), "usr_1") || strings.Contains(err.Error(), "evil")) {
						t.Errorf("the error %q tells of the token's contents", err)
					}
					if err != nil && err.(*plugins.Error).Status != 401 {
						t.Errorf("status %d, want 401", err.(*plugins.Error).Status)
					}
				})
			}
		}
	}
}

func TestOwnKeyOfAnotherUseRefused(t *testing.T) {
	k := newSigning(t, "k1", "ES256")
	k.use = "identity"
	v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: newRing(k)})
	_, err := verify(v, k.token(t, claimsOf(ownIssuer, nil), nil), t0)
	if got := code(t, err); got != plugins.TokenInvalid {
		t.Errorf("got %q, want token_invalid", got)
	}
}

// A token of one trusted issuer must not speak for another: keys are looked up
// in the set of the issuer that iss names.
func TestIssuerCannotSpeakForAnother(t *testing.T) {
	ownKey, extKey := newSigning(t, "same", "ES256"), newSigning(t, "same", "ES256")
	idp := newProvider(t, extKey)
	v := external(t, newClock(), newRing(ownKey), trusting(idp, "ES256"))
	for name, token := range map[string][]byte{
		"external as own": extKey.token(t, claimsOf(ownIssuer, nil), nil),
		"own as external": ownKey.token(t, claimsOf(idp.URL, nil), nil),
	} {
		if _, err := verify(v, token, t0); code(t, err) != plugins.TokenInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHeaderLinesCannotBeSplitByClaims(t *testing.T) {
	k := newSigning(t, "k1", "ES256")
	v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: newRing(k)})
	tok, err := verify(v, k.token(t, claimsOf(ownIssuer, members{"sub": "a\r\nX-Auth-Scope: admin", "sid": "50% é\x00"}), nil), t0)
	if err != nil {
		t.Fatal(err)
	}
	want := "X-Auth-Subject: a%0D%0AX-Auth-Scope:%20admin\r\n" +
		"X-Auth-Client: web\r\nX-Auth-Scope: read:orders openid\r\n" +
		"X-Auth-Issuer: https://api.example.com\r\nX-Auth-Session: 50%25%20%C3%A9%00\r\n"
	if got := string(tok.Principal.Identity); got != want {
		t.Errorf("identity\n%q\nwant\n%q", got, want)
	}
}
