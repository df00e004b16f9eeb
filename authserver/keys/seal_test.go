package keys

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

func TestOAuth48_KeysAreSealedAgainUnderTheNewestKek(t *testing.T) {
	s, older, newer := database(t), newKek(t), newKek(t)
	first := open(t, s, Config{Keks: []Kek{older}})
	second := open(t, s, Config{Keks: []Kek{newer, older}})
	third := open(t, s, Config{Keks: []Kek{newer}})
	if _, err := verify(third, sign(t, first)); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(third.Derive("g", 7), first.Derive("g", 7)) {
		t.Error("another refresh token after sealing again")
	}
	if _, err := verify(first, sign(t, second)); err != nil {
		t.Error(err)
	}
	_, err := Open(t.Context(), s, Config{Keks: []Kek{older}})
	if err == nil || !strings.Contains(err.Error(), "sealed under key encryption key "+newer.ID()+", which is not configured") {
		t.Errorf("error %v, want one that names %s", err, newer.ID())
	}
}

func TestEnvelopeOpensOnlyAsWhatItIs(t *testing.T) {
	r := keyring{newKek(t)}
	envelope := r.seal("signing key a", []byte("secret"))
	for name, c := range map[string]struct {
		label    string
		envelope []byte
	}{
		"another label":      {"signing key b", envelope},
		"changed ciphertext": {"signing key a", append(bytes.Clone(envelope[:len(envelope)-1]), envelope[len(envelope)-1]^1)},
		"changed nonce":      {"signing key a", append(append(bytes.Clone(envelope[:headerSize-1]), envelope[headerSize-1]^1), envelope[headerSize:]...)},
		"another version":    {"signing key a", append([]byte{2}, envelope[1:]...)},
		"cut":                {"signing key a", envelope[:headerSize]},
		"empty":              {"signing key a", nil},
	} {
		if _, _, err := r.open(c.label, c.envelope); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	secret, reseal, err := r.open("signing key a", envelope)
	if string(secret) != "secret" || reseal || err != nil {
		t.Errorf("%q, %v, %v", secret, reseal, err)
	}
	if bytes.Equal(envelope, r.seal("signing key a", []byte("secret"))) {
		t.Error("a nonce was used twice")
	}
}

func TestOAuth57_WeakKeysAreRefused(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	document, err := newJWK(weak.Public(), RS256)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseJWK(text, RS256); err == nil || !strings.Contains(err.Error(), "1024 bits") {
		t.Errorf("an RSA key of 1024 bits: %v", err)
	}
	for name, c := range map[string]Config{
		"no kek": {}, "zero kek": {Keks: []Kek{{}}},
		"unknown algorithm": {Keks: []Kek{newKek(t)}, Algorithm: "HS256"},
		"too fast":          {Keks: []Kek{newKek(t)}, Rotation: time.Minute},
	} {
		if _, err := Open(t.Context(), database(t), c); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for _, text := range []string{"", "hunter2hunter2", "!hunter2!", base64.StdEncoding.EncodeToString(make([]byte, 31))} {
		if _, err := ParseKek(text); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("kek %q: %v", text, err)
		}
	}
}

func TestOAuth48_NothingPrintsAKey(t *testing.T) {
	s, text := database(t), NewKekText()
	kek, err := ParseKek(text)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Keks: []Kek{kek}, Algorithm: EdDSA} // its private keys are plain bytes
	r := open(t, s, config)
	signer := r.view.Load().signers[UseToken].active
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	private, refresh := opened(t, r, rows[0]), r.sealedSecret(t, s)
	things := []any{kek, &kek, config, &config, []Kek{kek}, r, *r.view.Load(), r.view.Load(), signer, r.refresh, r.keks, rows}
	body, _ := r.JWKS()
	things = append(things, string(body))
	for _, thing := range things {
		var printed strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&printed, verb+"\n", thing)
		}
		if body, err := json.Marshal(thing); err == nil {
			printed.Write(body)
		}
		for name, secret := range map[string][]byte{"key encryption key": raw, "private key": private, "refresh secret": refresh} {
			secret = secret[:16]
			for _, form := range []string{string(secret), hex.EncodeToString(secret), strings.ToUpper(hex.EncodeToString(secret)),
				strings.Trim(fmt.Sprint(secret), "[]"), base64.StdEncoding.EncodeToString(secret[:15]),
				base64.RawURLEncoding.EncodeToString(secret[:15]), strings.Trim(fmt.Sprintf("%#v", secret)[6:], "{}")} {
				if strings.Contains(printed.String(), form) {
					t.Errorf("%T prints the %s", thing, name)
				}
			}
		}
	}
	if strings.Contains(string(body), `"d"`) {
		t.Errorf("the JWKS has a private member: %s", body)
	}
}

// opened returns the seed of a private key of Ed25519.
func opened(t *testing.T, r *Ring, row store.Key) []byte {
	t.Helper()
	der, _, err := r.keks.open(label(row), row.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	return der[len(der)-32:]
}

func (r *Ring) sealedSecret(t *testing.T, s store.Keys) []byte {
	t.Helper()
	sealed, err := s.Envelope(t.Context(), secretName, []byte("unused"))
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := r.keks.open(secretName, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func FuzzParseJWK(f *testing.F) {
	for _, alg := range []string{ES256, EdDSA, RS256} {
		private, err := generate(alg)
		if err != nil {
			f.Fatal(err)
		}
		document, err := newJWK(private.Public(), alg)
		if err != nil {
			f.Fatal(err)
		}
		text, err := json.Marshal(document)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, alg)
	}
	f.Fuzz(func(t *testing.T, text []byte, alg string) {
		public, err := parseJWK(text, alg)
		if err != nil {
			return
		}
		document, err := newJWK(public, alg)
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseJWK(again, alg); err != nil {
			t.Fatalf("%s was accepted, not so its own form %s: %v", text, again, err)
		}
	})
}

func FuzzOpenEnvelope(f *testing.F) {
	r := keyring{newKek(f)}
	f.Add(r.seal("x", []byte("secret")))
	f.Add(append([]byte{envelopeVersion}, r[0].k.id[:]...))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		if secret, _, err := r.open("another label", envelope); err == nil {
			t.Fatalf("opened %x to %x", envelope, secret)
		}
	})
}
