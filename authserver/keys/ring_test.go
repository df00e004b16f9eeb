package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
)

// clock is a settable time.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return start.Add(time.Duration(c.ns.Load())) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func database(t testing.TB) *sqlstore.Store {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), "sqlite::memory:", sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func newKek(t testing.TB) Kek {
	t.Helper()
	k, err := ParseKek(NewKekText())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t testing.TB, s store.Keys, c Config) *Ring {
	t.Helper()
	if c.OnError == nil {
		c.OnError = func(err error) { t.Error(err) }
	}
	r, err := Open(t.Context(), s, c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// poll is what Run does at every tick.
func poll(t *testing.T, rings ...*Ring) {
	t.Helper()
	for _, r := range rings {
		if err := r.lockedLoad(t.Context(), false); err != nil {
			t.Fatal(err)
		}
	}
}

// verify checks a token with a ring as a resource server does, and returns its
// kid.
func verify(r *Ring, token string) (kid string, err error) {
	parsed, err := jwt.Parse(token, func(j *jwt.Token) (any, error) {
		kid, _ = j.Header["kid"].(string)
		public, alg, _, ok := r.PublicKey(kid)
		if !ok || j.Header["alg"] != alg {
			return nil, errors.New("unknown key")
		}
		return public, nil
	}, jwt.WithoutClaimsValidation())
	if err == nil && !parsed.Valid {
		err = errors.New("not valid")
	}
	return kid, err
}

func sign(t testing.TB, r *Ring) string {
	t.Helper()
	token, err := r.Sign(UseToken, "at+jwt", []byte(`{"sub":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestReplicasThatStartTogetherShareTheirKeys(t *testing.T) {
	s, c := database(t), Config{Keks: []Kek{newKek(t)}}
	rings := make([]*Ring, 8)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() { rings[i] = open(t, s, c) })
	}
	wg.Wait()
	first, etag := rings[0].JWKS()
	for _, r := range rings[1:] {
		body, tag := r.JWKS()
		if !bytes.Equal(body, first) || tag != etag {
			t.Errorf("replicas publish different keys: %s and %s", first, body)
		}
		if _, err := verify(r, sign(t, rings[0])); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(r.Derive("g", 1), rings[0].Derive("g", 1)) {
			t.Error("replicas derive different refresh tokens")
		}
	}
	rows, err := s.Keys(t.Context())
	if err != nil || len(rows) != 2 {
		t.Errorf("%d keys, %v; want one a use", len(rows), err)
	}
}

func TestOAuth47_RotationPublishesBeforeUseAndVerifiesUntilExpiry(t *testing.T) {
	s, clock := database(t), &clock{}
	c := Config{Keks: []Kek{newKek(t)}, Now: clock.now, Rotation: 2 * time.Hour, TokenLife: time.Hour}
	a, b, cut := open(t, s, c), open(t, s, c), open(t, s, c)
	type issued struct {
		token string
		at    time.Time
	}
	var (
		tokens    []issued
		published = map[string]time.Time{} // by kid: when every replica had it
		signed    = map[string]time.Time{} // by kid: its first use
	)
	for range 24 * 60 {
		poll(t, a, b)
		for _, r := range []*Ring{a, b, cut} {
			token := sign(t, r)
			kid, err := verify(a, token)
			if err != nil {
				t.Fatalf("%v: a token signed by a key unseen elsewhere: %v", clock.now(), err)
			}
			if _, known := signed[kid]; !known {
				signed[kid] = clock.now()
			}
			tokens = append(tokens, issued{token, clock.now()})
		}
		for kid := range b.view.Load().verifiers {
			if _, known := published[kid]; !known {
				published[kid] = clock.now()
			}
		}
		for len(tokens) > 0 && clock.now().Sub(tokens[0].at) > c.TokenLife+30*time.Second {
			tokens = tokens[1:]
		}
		for _, old := range tokens[:1] {
			if _, err := verify(b, old.token); err != nil {
				t.Fatalf("a live token is refused: %v", err)
			}
		}
		if clock.now().Sub(start) < 2*time.Hour-time.Minute {
			poll(t, cut) // knows of the second key, and is then cut off from the store
		} else {
			cut = b
		}
		clock.advance(time.Minute)
	}
	if len(signed) != 12 {
		t.Errorf("%d keys signed in a day of two-hour rotations, want 12", len(signed))
	}
	for kid, at := range signed {
		if lead := at.Sub(published[kid]); lead < 5*time.Minute && !published[kid].Equal(start) {
			t.Errorf("key %s signed %v after it was published", kid, lead)
		}
	}
	if n := len(a.view.Load().verifiers); n > 6 {
		t.Errorf("%d keys are left", n)
	}
}

func TestReplicaWithoutStoreChangesOverWithTheOthers(t *testing.T) {
	s, clock := database(t), &clock{}
	c := Config{Keks: []Kek{newKek(t)}, Now: clock.now}
	a, cut := open(t, s, c), open(t, s, c)
	if err := a.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	poll(t, cut)
	before, _ := verify(cut, sign(t, cut))
	clock.advance(10*time.Minute - time.Nanosecond)
	if kid, _ := verify(cut, sign(t, cut)); kid != before {
		t.Error("the next key signs too early")
	}
	clock.advance(time.Nanosecond)
	poll(t, a)
	want, _ := verify(a, sign(t, a))
	if kid, _ := verify(cut, sign(t, cut)); kid != want || kid == before {
		t.Errorf("signs with %s, want the new key %s", kid, want)
	}
}

func TestRotateNowBeginsOneRotation(t *testing.T) {
	s := database(t)
	r := open(t, s, Config{Keks: []Kek{newKek(t)}})
	before := r.Generation()
	for range 3 {
		if err := r.RotateNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := s.Keys(t.Context())
	if err != nil || len(rows) != 4 {
		t.Errorf("%d keys, %v; want an active and a next one for each use", len(rows), err)
	}
	if r.Generation() != before+1 {
		t.Errorf("generation went from %d to %d, want one step", before, r.Generation())
	}
}

func TestRunFollowsAndRefreshIsBounded(t *testing.T) {
	s := database(t) // outside the bubble: it has goroutines of its own
	keks := []Kek{newKek(t)}
	a := open(t, s, Config{Keks: keks})
	rows, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	rotated, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Envelope(t.Context(), secretName, []byte("unused"))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock runs from 2000 on, when none of these keys is due.
		reads := &rowStore{rows: rows, sealed: sealed}
		r, err := Open(t.Context(), reads, Config{Keks: keks})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		generation := r.Generation()
		time.Sleep(9 * time.Second)
		if n := reads.reads.Load(); n != 1 {
			t.Errorf("%d reads before the first poll, want the one of Open", n)
		}
		reads.rows = rotated
		for range 50 {
			r.Refresh(t.Context(), "unknown")
		}
		if n := reads.reads.Load(); n != 2 || r.Generation() == generation {
			t.Errorf("%d reads for 50 unknown kids, want one more; generation %d", n, r.Generation())
		}
		time.Sleep(500 * time.Millisecond)
		r.Refresh(t.Context(), "unknown")
		time.Sleep(2 * time.Second) // and the poll at 10 s
		r.Refresh(t.Context(), "unknown")
		r.Refresh(t.Context(), rows[0].ID)
		if n := reads.reads.Load(); n != 4 {
			t.Errorf("%d reads, want 4", n)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

type unused = store.Keys

// rowStore is a store whose keys nobody may change.
type rowStore struct {
	unused
	rows   []store.Key
	sealed []byte
	reads  atomic.Int64
}

func (s *rowStore) Keys(context.Context) ([]store.Key, error) {
	s.reads.Add(1)
	return s.rows, nil
}

func (s *rowStore) Envelope(context.Context, string, []byte) ([]byte, error) { return s.sealed, nil }

func TestStoreFailureKeepsTheKeys(t *testing.T) {
	s := database(t)
	var reported atomic.Int64
	r := open(t, s, Config{Keks: []Kek{newKek(t)}, Poll: time.Millisecond, OnError: func(error) { reported.Add(1) }})
	s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	for deadline := time.Now().Add(5 * time.Second); reported.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if reported.Load() == 0 {
		t.Error("nobody was told")
	}
	if _, err := verify(r, sign(t, r)); err != nil {
		t.Error(err)
	}
}

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

func TestOAuth46_TwoKeysWithOneIDAreRefused(t *testing.T) {
	s := database(t)
	r := open(t, s, Config{Keks: []Kek{newKek(t)}})
	rows, err := s.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(rows []store.Key) []store.Key{
		"twice":           func(rows []store.Key) []store.Key { return append(rows, rows[0]) },
		"another's id":    func(rows []store.Key) []store.Key { rows[0].ID = "../../etc/passwd"; return rows },
		"another's use":   func(rows []store.Key) []store.Key { rows[0].Use, rows[1].Use = rows[1].Use, rows[0].Use; return rows },
		"no active key":   func(rows []store.Key) []store.Key { return rows[:1] },
		"unknown state":   func(rows []store.Key) []store.Key { rows[0].State = "frozen"; return rows },
		"other algorithm": func(rows []store.Key) []store.Key { rows[0].Algorithm = EdDSA; return rows },
		"no JWK":          func(rows []store.Key) []store.Key { rows[0].Public = []byte("{"); return rows },
	} {
		fresh := &Ring{keks: r.keks}
		if _, err := fresh.newView(change(append([]store.Key{}, rows...)), r.now()); err == nil {
			t.Errorf("%s: accepted", name)
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
