package keys

import (
	"bytes"
	"context"
	"errors"
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

func (c *clock) now() time.Time { return start.Add(time.Duration(c.ns.Load())) }

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
		if err := r.locked(t.Context(), func() error { return r.follow(t.Context()) }); err != nil {
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
	if err := r.RotateNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.RotateNow(t.Context()); !errors.Is(err, store.ErrExists) {
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

func TestRetiredKeyVerifiesNothingAndASuccessorSigns(t *testing.T) {
	s := database(t)
	r := open(t, s, Config{Keks: []Kek{newKek(t)}})
	token := sign(t, r)
	kid, err := verify(r, token)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Retire(t.Context(), kid, store.AuditEvent{Time: time.Now(), Action: "key.retired"}); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(r, token); err == nil {
		t.Error("a token of a retired key verifies")
	}
	if next, err := verify(r, sign(t, r)); err != nil || next == kid {
		t.Errorf("signs with %s, %v", next, err)
	}
	if err := r.Retire(t.Context(), kid); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	events, err := s.AuditSince(t.Context(), 0, 10)
	if err != nil || len(events) != 2 || events[0].Action != "keys.rotated" || events[1].Action != "key.retired" {
		t.Errorf("audit %+v, %v", events, err)
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
	for deadline := time.Now().Add(time.Minute); reported.Load() == 0 && time.Now().Before(deadline); {
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
