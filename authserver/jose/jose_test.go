package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// The example of RFC 7638, 3.1.
const rfcKey = `{"kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw","e":"AQAB","alg":"RS256","kid":"2011-04-29"}`

func TestThumbprintOfRFC7638(t *testing.T) {
	k, err := ParseKey([]byte(rfcKey))
	if err != nil || k.Thumbprint != "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs" {
		t.Fatalf("%s %v", k.Thumbprint, err)
	}
	if !k.Fits("RS256") || k.Fits("PS256") || k.Fits("ES256") || k.Fits("HS256") || k.Fits("none") {
		t.Error("the key fits other algorithms than its own")
	}
}

func TestOnlyPublicSigningKeysAreTaken(t *testing.T) {
	f := func(name, raw string, ok bool) {
		t.Helper()
		if _, err := ParseKey([]byte(raw)); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	ed := `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"%s}`
	f("Ed25519", fmt.Sprintf(ed, ""), true)
	f("private", fmt.Sprintf(ed, `,"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"`), false)
	f("for encryption", fmt.Sprintf(ed, `,"use":"enc"`), false)
	f("to sign only", fmt.Sprintf(ed, `,"key_ops":["sign"]`), false)
	f("member twice", fmt.Sprintf(ed, `,"kty":"OKP"`), false)
	f("symmetric alg", fmt.Sprintf(ed, `,"alg":"HS256"`), false)
	f("alg of another kind", fmt.Sprintf(ed, `,"alg":"ES256"`), false)
	f("symmetric", `{"kty":"oct","k":"AAAA"}`, false)
	f("short RSA", `{"kty":"RSA","n":"`+strings.Repeat("A", 100)+`","e":"AQAB"}`, false)
	f("point off the curve", `{"kty":"EC","crv":"P-256","x":"`+strings.Repeat("A", 43)+`","y":"`+strings.Repeat("A", 43)+`"}`, false)
	f("nothing", `{}`, false)
	f("no object", `[]`, false)
}

func TestKeySet(t *testing.T) {
	ed := `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"a"}`
	f := func(name, raw string, want int) {
		t.Helper()
		keys, err := ParseSet([]byte(raw))
		if len(keys) != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d keys, %v", name, len(keys), err)
		}
	}
	f("two", `{"keys":[`+ed+`,`+rfcKey+`]}`, 2)
	f("one of them for encryption", `{"keys":[{"kty":"RSA","use":"enc"},`+rfcKey+`]}`, 1)
	f("same kid", `{"keys":[`+ed+`,`+ed+`]}`, 0)
	f("private one among them", `{"keys":[`+rfcKey+`,{"kty":"oct","k":"AAAA"}]}`, 0)
	f("none", `{"keys":[]}`, 0)
	f("no set", `{}`, 0)
	f("too many", `{"keys":[`+strings.TrimSuffix(strings.Repeat(rfcKey+",", 33), ",")+`]}`, 0)
}

func TestStrictCompactForm(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := Key{Public: &private.PublicKey}
	f := func(name, header, payload string, ok bool) {
		t.Helper()
		b64 := base64.RawURLEncoding.EncodeToString
		text := b64([]byte(header)) + "." + b64([]byte(payload))
		sig, err := jwt.SigningMethodES256.Sign(text, private)
		if err != nil {
			t.Fatal(err)
		}
		token, err := Parse(text + "." + b64(sig))
		if err == nil {
			err = token.Verify(key)
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("right", `{"alg":"ES256"}`, `{}`, true)
	f("none", `{"alg":"none"}`, `{}`, false)
	f("HS256", `{"alg":"HS256"}`, `{}`, false)
	f("another curve's", `{"alg":"ES384"}`, `{}`, false)
	f("RSA's", `{"alg":"RS256"}`, `{}`, false)
	f("no alg", `{}`, `{}`, false)
	f("alg twice", `{"alg":"ES256","alg":"none"}`, `{}`, false)
	f("alg twice in another case", `{"alg":"ES256","ALG":"none"}`, `{}`, false)
	f("crit", `{"alg":"ES256","crit":["x"]}`, `{}`, false)
	f("claims no object", `{"alg":"ES256"}`, `[]`, false)
	f("claim twice", `{"alg":"ES256"}`, `{"a":1,"a":2}`, false)
	f("trailing text", `{"alg":"ES256"}`, `{}x`, false)
	for _, bad := range []string{"", "..", "a.b", "a.b.c.d", "e30.e30.e30\n", strings.Repeat("e30.", 9000)} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%.10q was taken", bad)
		}
	}
}

func TestEd25519HasTwoNames(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	for _, name := range []string{"EdDSA", "Ed25519"} {
		text := b64([]byte(`{"alg":"`+name+`"}`)) + ".e30"
		token, err := Parse(text + "." + b64(ed25519.Sign(private, []byte(text))))
		if err != nil {
			t.Fatal(err)
		}
		for _, alg := range []string{"", "EdDSA", "Ed25519"} {
			if err := token.Verify(Key{Public: public, Algorithm: alg}); err != nil {
				t.Errorf("%s under a key for %q: %v", name, alg, err)
			}
		}
		if token.Verify(Key{Public: public, Algorithm: "ES256"}) == nil {
			t.Errorf("%s under a key for ES256", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.e30.AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		if parsed, err := Parse(token); err == nil && parsed.Verify(Key{}) == nil {
			t.Fatal("verified without a key")
		}
	})
}
