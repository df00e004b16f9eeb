package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/plugins"
)

// FuzzParse: no input panics, and what is accepted the library reads alike:
// the same header, the same issuer, the same dates.
func FuzzParse(f *testing.F) {
	k := newSigning(f, "k1", "ES256")
	f.Add(k.token(f, claimsOf(ownIssuer, nil), nil))
	f.Add(k.token(f, claimsOf(ownIssuer, members{"nbf": 1.5, "aud": []string{"a", "b"}}), members{"typ": "JWT"}))
	for _, a := range attacks {
		f.Add(a.make(attacker{f, k, k, ownIssuer}))
	}
	f.Add([]byte(".."))
	f.Add([]byte("e30.e30.AA"))
	parser := jwt.NewParser(jwt.WithStrictDecoding())
	f.Fuzz(func(t *testing.T, token []byte) {
		p, err := parse(token)
		if err != nil {
			return
		}
		timely := p.claims.times()
		claims := jwt.MapClaims{}
		read, _, err := parser.ParseUnverified(string(token), claims)
		if err != nil && !errors.Is(err, jwt.ErrTokenUnverifiable) { // an alg that nobody knows
			t.Fatalf("accepted what the library refuses: %v", err)
		}
		if read.Header["alg"] != p.alg || read.Header["kid"] != p.kid || p.typ != "" && read.Header["typ"] != p.typ {
			t.Fatalf("header %q read as %+v", read.Header, p)
		}
		if p.claims.iss != nil {
			if s, err := text(p.claims.iss); err == nil && claims["iss"] != s {
				t.Fatalf("iss %v read as %q", claims["iss"], s)
			}
		}
		if timely != nil {
			return
		}
		if exp, err := claims.GetExpirationTime(); err != nil || exp == nil || exp.Unix() != p.claims.expiry {
			t.Fatalf("exp %v (%v) read as %d", exp, err, p.claims.expiry)
		}
	})
}

// FuzzObject: the members are those that encoding/json finds.
func FuzzObject(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { "a" : 1 , "b":[1,{"c":"}"}],"d":"\"" } `, `{"a":{"a":1,"a":2}}`, `{"a":1,"\u0061":2}`,
		`{"x":"\ud83d\ude00","y":-1.5e3,"z":null,"t":true}`, `[]`, `"x"`, `{"a":"\\"}`, `{"":[[],[[]]]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := make(map[string]any)
		err := object(b, func(name string, value []byte) error {
			var v any
			if err := json.Unmarshal(value, &v); err != nil {
				t.Fatalf("%q: value %q: %v", b, value, err)
			}
			got[name] = v
			values(value)
			return nil
		})
		if err != nil {
			return
		}
		want := make(map[string]any)
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatalf("%q accepted: %v", b, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %v, want %v", b, got, want)
		}
	})
}

// FuzzIdentity: whatever the values, the block has the lines that it should,
// and two principals that differ have different blocks.
func FuzzIdentity(f *testing.F) {
	f.Add("usr_1", "usr_2")
	f.Add("a\r\nX-Auth-Scope: admin", "a%0D%0AX-Auth-Scope:%20admin")
	f.Add("é", "%C3%A9")
	f.Fuzz(func(t *testing.T, a, b string) {
		blockA := string(plugins.IdentityLines(&plugins.Principal{Subject: a, Issuer: "i"}))
		blockB := string(plugins.IdentityLines(&plugins.Principal{Subject: b, Issuer: "i"}))
		if (a == b) != (blockA == blockB) {
			t.Fatalf("%q and %q: %q and %q", a, b, blockA, blockB)
		}
		lines := 2
		if a == "" {
			lines = 1
		}
		if strings.Count(blockA, "\r\n") != lines || strings.Count(blockA, "\n") != lines || strings.Count(blockA, "\r") != lines {
			t.Fatalf("%q: %q", a, blockA)
		}
	})
}

// FuzzKeys: no JWK set panics.
func FuzzKeys(f *testing.F) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		body, err := json.Marshal(members{"keys": []any{jwkOf(f, newSigning(f, "k", alg))}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":"","y":""}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		set, err := parseKeys(body, asymmetric)
		if err == nil && len(set.keys) == 0 {
			t.Fatal("an empty set was accepted")
		}
	})
}

func TestSegmentsRefuseOtherEncodings(t *testing.T) {
	b64 := base64.RawURLEncoding.EncodeToString
	header, claims := b64([]byte(`{"alg":"ES256","kid":"k"}`)), b64([]byte(`{"a":1}`))
	if _, err := parse([]byte(header + "." + claims + ".AAAA")); err != nil {
		t.Fatalf("good form: %v", err)
	}
	for _, token := range []string{
		"", ".", "..", "...", header, header + "." + claims, header + ".." + claims, "." + claims + ".AAAA",
		header + "." + claims + ".", header + "." + claims + ".AAAA.AAAA", header + "=." + claims + ".AAAA",
		header + "." + claims + "\n.AAAA", header + "." + claims + ".A+/A", header + "." + claims + " .AAAA",
		b64([]byte(`{"alg":"ES256","kid":"k"}`))[:10] + "." + claims + ".AAAA",
		header + "." + claims[:len(claims)-1] + "B.AAAA", // bits behind the last byte
	} {
		if _, err := parse([]byte(token)); err == nil {
			t.Errorf("%q accepted", token)
		}
	}
}
