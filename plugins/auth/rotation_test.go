package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

func TestRotationOfExternalKeysCostsNoRequest(t *testing.T) {
	before, after := newSigning(t, "a", "ES256"), newSigning(t, "b", "RS256")
	idp, c := newProvider(t, before), newClock()
	v := external(t, c, newRing(), trusting(idp, "ES256", "RS256"))
	old := before.token(t, claimsOf(idp.URL, nil), nil)
	if _, err := verify(v, old, t0); err != nil {
		t.Fatal(err)
	}
	// Published beside the old one, and used at once: the gateway has not
	// seen it when the first of many tokens arrives.
	idp.publish(t, before, after)
	c.advance(unknownEvery)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			token := after.token(t, claimsOf(idp.URL, members{"jti": fmt.Sprint(i)}), nil)
			if _, err := verify(v, token, t0); err != nil {
				t.Errorf("new key: %v", err)
			}
		})
	}
	wg.Wait()
	if _, hit, err := v.Verify(context.Background(), old, client, t0); err != nil || !hit {
		t.Errorf("old key: hit %v, %v", hit, err)
	}
	if n := idp.fetches.Load(); n > 3 {
		t.Errorf("%d fetches for one rotation", n)
	}
}

func TestRotationSoonAfterTheFirstKeysCostsNoRequest(t *testing.T) {
	before, after := newSigning(t, "a", "ES256"), newSigning(t, "b", "ES256")
	idp, c := newProvider(t, before), newClock()
	v := external(t, c, newRing(), trusting(idp, "ES256"))
	if _, err := verify(v, before.token(t, claimsOf(idp.URL, nil), nil), t0); err != nil {
		t.Fatal(err)
	}
	idp.publish(t, after)
	if _, err := verify(v, after.token(t, claimsOf(idp.URL, nil), nil), t0); err != nil {
		t.Errorf("new key: %v", err)
	}
}

func TestCachedTokenDiesWithItsKey(t *testing.T) {
	before, after := newSigning(t, "a", "ES256"), newSigning(t, "b", "ES256")
	same := newSigning(t, "a", "ES256") // another key under the old name
	for name, next := range map[string]signing{"removed": after, "exchanged": same} {
		t.Run("own/"+name, func(t *testing.T) {
			r := newRing(before)
			v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: r})
			token := before.token(t, claimsOf(ownIssuer, nil), nil)
			for range 2 {
				if _, err := verify(v, token, t0); err != nil {
					t.Fatal(err)
				}
			}
			r.set(before, after) // generation moves, the key stays
			if _, hit, err := v.Verify(context.Background(), token, client, t0); err != nil || !hit {
				t.Errorf("hit %v, %v; want a hit", hit, err)
			}
			r.set(next)
			if _, err := verify(v, token, t0); code(t, err) != plugins.TokenInvalid {
				t.Errorf("got %v", err)
			}
		})
		t.Run("external/"+name, func(t *testing.T) {
			idp, c := newProvider(t, before), newClock()
			v := external(t, c, newRing(), trusting(idp, "ES256"))
			token := before.token(t, claimsOf(idp.URL, nil), nil)
			if _, err := verify(v, token, t0); err != nil {
				t.Fatal(err)
			}
			idp.publish(t, next)
			// Any unknown key makes the set be fetched.
			c.advance(unknownEvery)
			stranger := newSigning(t, "stranger", "ES256")
			if _, err := verify(v, stranger.token(t, claimsOf(idp.URL, nil), nil), t0); code(t, err) != plugins.TokenInvalid {
				t.Errorf("stranger: %v", err)
			}
			if _, err := verify(v, token, t0); code(t, err) != plugins.TokenInvalid {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestUnknownKeyFloodCostsOneFetch(t *testing.T) {
	k, mine := newSigning(t, "a", "ES256"), newSigning(t, "mine", "ES256")
	idp, c := newProvider(t, k), newClock()
	v := external(t, c, newRing(), trusting(idp, "ES256"))
	if _, err := verify(v, k.token(t, claimsOf(idp.URL, nil), nil), t0); err != nil {
		t.Fatal(err)
	}
	first := idp.fetches.Load()
	c.advance(unknownEvery)
	var refused, limited atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 100 {
				token := mine.token(t, claimsOf(idp.URL, members{"jti": fmt.Sprint(worker, i)}), members{"kid": fmt.Sprint("k", worker, "-", i)})
				switch _, err := verify(v, token, t0); code(t, err) {
				case plugins.TokenInvalid:
					refused.Add(1)
				case plugins.RateLimited:
					limited.Add(1)
				default:
					t.Errorf("got %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := idp.fetches.Load() - first; n > 1 {
		t.Errorf("%d fetches, want at most 1", n)
	}
	if limited.Load() == 0 || refused.Load() > 3*floodBurst {
		t.Errorf("refused %d, limited %d: the address was not limited", refused.Load(), limited.Load())
	}
	if s := v.Status()[0]; s.UnknownKeys == 0 || s.Keys != 1 {
		t.Errorf("status %+v", s)
	}
	// The good key still works, from another address.
	if _, hit, err := v.Verify(context.Background(), k.token(t, claimsOf(idp.URL, nil), nil), client.Next(), t0); err != nil {
		t.Errorf("good token: hit %v, %v", hit, err)
	}
}

func TestUnknownOwnKeyRefreshesOnce(t *testing.T) {
	before, after := newSigning(t, "a", "ES256"), newSigning(t, "b", "ES256")
	r, c := newRing(before), newClock()
	r.onRefresh = func(r *ring) { r.keys["b"] = after; r.gen++ }
	v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: r, Now: c.now})
	if _, err := verify(v, after.token(t, claimsOf(ownIssuer, nil), nil), t0); err != nil {
		t.Errorf("rotated by another replica: %v", err)
	}
	for i := range 20 {
		verify(v, before.token(t, claimsOf(ownIssuer, nil), members{"kid": fmt.Sprint("x", i)}), t0)
	}
	if r.refreshes != 1 {
		t.Errorf("%d refreshes, want 1", r.refreshes)
	}
}

func TestIssuerAwayKeepsItsLastKeys(t *testing.T) {
	k := newSigning(t, "a", "ES256")
	idp, c := newProvider(t, k), newClock()
	v := external(t, c, newRing(), trusting(idp, "ES256"))
	if _, err := verify(v, k.token(t, claimsOf(idp.URL, nil), nil), t0); err != nil {
		t.Fatal(err)
	}
	idp.answer(http.StatusInternalServerError)
	c.advance(unknownEvery)
	verify(v, newSigning(t, "z", "ES256").token(t, claimsOf(idp.URL, nil), nil), t0)
	until(t, "a failed fetch", func() bool { return v.Status()[0].Failures > 0 })
	if _, err := verify(v, k.token(t, claimsOf(idp.URL, members{"jti": "other"}), nil), t0); err != nil {
		t.Errorf("issuer away: %v", err)
	}
}

func TestIssuerAwayAtStartAnswers503UntilItsKeysCome(t *testing.T) {
	k := newSigning(t, "a", "ES256")
	idp, c := newProvider(t, k), newClock()
	idp.answer(http.StatusServiceUnavailable)
	v := external(t, c, newRing(), trusting(idp, "ES256"))
	token := k.token(t, claimsOf(idp.URL, nil), nil)
	_, err := verify(v, token, t0)
	if code(t, err) != plugins.KeysUnavailable || err.(*plugins.Error).Status != 503 {
		t.Fatalf("got %v", err)
	}
	idp.answer(http.StatusOK)
	until(t, "keys after the issuer came back", func() bool {
		_, err := verify(v, token, t0)
		return err == nil
	})
}

func TestIssuersChangeByReload(t *testing.T) {
	ka, kb := newSigning(t, "a", "ES256"), newSigning(t, "b", "ES256")
	a, b, c := newProvider(t, ka), newProvider(t, kb), newClock()
	v := external(t, c, newRing(), trusting(a, "ES256"))
	ta, tb := ka.token(t, claimsOf(a.URL, nil), nil), kb.token(t, claimsOf(b.URL, nil), nil)
	if _, err := verify(v, ta, t0); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(v, tb, t0); code(t, err) != plugins.IssuerUntrusted {
		t.Errorf("got %v", err)
	}
	// b joins; a keeps its keys without a fetch.
	if err := v.SetIssuers([]routes.Issuer{trusting(a, "ES256"), trusting(b, "ES256")}); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(v, tb, t0); err != nil {
		t.Errorf("new issuer: %v", err)
	}
	if _, hit, err := v.Verify(context.Background(), ta, client, t0); !hit || err != nil {
		t.Errorf("unchanged issuer: hit %v, %v", hit, err)
	}
	if n := a.fetches.Load(); n != 1 {
		t.Errorf("unchanged issuer was fetched %d times", n)
	}
	// a's terms change: its cached token is judged by the new ones.
	other := trusting(a, "RS256")
	if err := v.SetIssuers([]routes.Issuer{other}); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(v, ta, t0); code(t, err) != plugins.TokenInvalid {
		t.Errorf("changed issuer: %v", err)
	}
	if _, err := verify(v, tb, t0); code(t, err) != plugins.IssuerUntrusted {
		t.Errorf("removed issuer: %v", err)
	}
}

func TestSetIssuersRefusesWhatWouldBeUnsafe(t *testing.T) {
	v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: newRing()})
	f := func(name, want string, issuers ...routes.Issuer) {
		t.Helper()
		err := v.SetIssuers(issuers)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	at := func(algorithms ...string) routes.Issuer {
		return routes.Issuer{Issuer: "https://idp.example", Algorithms: algorithms}
	}
	f("none", `algorithm "none"`, at("none"))
	f("HS256", `algorithm "HS256"`, at("RS256", "HS256"))
	f("the own issuer", "own one", routes.Issuer{Issuer: ownIssuer})
	f("twice", "twice", at(), at())
	f("no URL", "not an http or https URL", routes.Issuer{Issuer: "idp"})
	f("jwks_uri", "not an http or https URL", routes.Issuer{Issuer: "https://idp.example", JWKSURI: "file:///etc/passwd"})
	f("empty audience", "audience is empty", routes.Issuer{Issuer: "https://idp.example", Audiences: []string{""}})
	if err := v.CheckIssuers([]routes.Issuer{at("RS256")}); err != nil || len(v.Status()) != 0 {
		t.Errorf("check: %v, %d issuers", err, len(v.Status()))
	}
	f("identity type", "gives to services", routes.Issuer{Issuer: "https://idp.example", TokenTypes: []string{"gatehouse-identity+jwt"}})
}

func TestKeySetReadStrictly(t *testing.T) {
	es, rs, ed := newSigning(t, "es", "ES256"), newSigning(t, "rs", "RS256"), newSigning(t, "ed", "EdDSA")
	with := func(k signing, more members) members {
		m := jwkOf(t, k)
		for name, v := range more {
			m[name] = v
		}
		return m
	}
	f := func(name string, want string, keys ...members) {
		t.Helper()
		body, err := json.Marshal(members{"keys": keys})
		if err != nil {
			t.Fatal(err)
		}
		set, err := parseKeys(body, []string{"ES256", "RS256", "PS256", "EdDSA"})
		got := ""
		if err != nil {
			got = "error"
		} else {
			for _, kid := range []string{"es", "rs", "ed"} {
				if _, ok := set.keys[kid]; ok {
					got += kid + " "
				}
			}
		}
		if got != want {
			t.Errorf("%s: %q (%v), want %q", name, got, err, want)
		}
	}
	f("three kinds", "es rs ed ", jwkOf(t, es), jwkOf(t, rs), jwkOf(t, ed))
	f("without alg and use", "es rs ", with(es, members{"alg": "", "use": ""}), with(rs, members{"alg": "", "use": ""}))
	f("two keys with one kid", "error", jwkOf(t, es), with(rs, members{"kid": "es"}))
	f("encryption key", "es ", jwkOf(t, es), with(rs, members{"use": "enc"}))
	f("encryption key of the same kid", "es ", jwkOf(t, es), with(rs, members{"use": "enc", "kid": "es"}))
	f("key for signing only", "es ", jwkOf(t, es), with(rs, members{"key_ops": []string{"sign"}}))
	f("algorithm that is not allowed", "es ", jwkOf(t, es), with(rs, members{"alg": "RS512"}))
	f("algorithm of another kind", "es ", jwkOf(t, es), with(rs, members{"alg": "ES256"}))
	f("symmetric key", "es ", jwkOf(t, es), members{"kty": "oct", "kid": "rs", "k": "AAAA", "alg": "HS256"})
	f("published private key", "es ", jwkOf(t, es), with(rs, members{"d": "AAAA"}))
	f("broken key", "es ", jwkOf(t, es), with(ed, members{"x": "AA"}))
	f("point off the curve", "rs ", jwkOf(t, rs), with(es, members{"x": strings.Repeat("A", 43)}))
	f("without kid", "es ", jwkOf(t, es), with(rs, members{"kid": ""}))
	f("nothing usable", "error", members{"kty": "oct", "kid": "k", "k": "AAAA"})
	f("empty", "error")
	small := members{"kty": "RSA", "kid": "rs", "use": "sig", "e": "AQAB", "n": strings.Repeat("_", 170)}
	f("RSA of 1024 bits", "es ", jwkOf(t, es), small)
}

func TestDiscoveryMustNameTheIssuerExactly(t *testing.T) {
	k := newSigning(t, "a", "ES256")
	f := func(name string, metadata members, ok bool) {
		t.Helper()
		idp := newProvider(t, k)
		idp.metadata = metadata
		_, err := discover(context.Background(), newClient(), idp.URL)
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	f("as it should be", nil, true)
	f("another issuer", members{"issuer": "https://other.example"}, false)
	f("trailing slash", members{"issuer": "http://127.0.0.1/"}, false)
	f("no jwks_uri", members{"jwks_uri": ""}, false)
	f("file", members{"jwks_uri": "file:///etc/passwd"}, false)
}

func TestDiscoveryOfAnIssuerWithPathByRFC8414(t *testing.T) {
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server/tenant", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(members{"issuer": server.URL + "/tenant", "jwks_uri": server.URL + "/keys"})
	})
	uri, err := discover(context.Background(), newClient(), server.URL+"/tenant")
	if err != nil || uri != server.URL+"/keys" {
		t.Errorf("%q, %v", uri, err)
	}
}

func TestFetchIsBounded(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("a redirect to another host was followed")
	}))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"keys":[],"x":"` + strings.Repeat("x", fetchMost) + `"}`))
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/404", http.NotFound)
	server := httptest.NewServer(mux)
	defer server.Close()
	for _, path := range []string{"/huge", "/away", "/loop", "/404"} {
		if _, _, err := fetchKeys(context.Background(), newClient(), server.URL+path, asymmetric); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

func TestFreshnessOfKeysIsBounded(t *testing.T) {
	f := func(value string, want time.Duration) {
		t.Helper()
		h := http.Header{}
		if value != "" {
			h.Set("Cache-Control", value)
		}
		if got := freshness(h); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	f("", time.Hour)
	f("max-age=7200", 2*time.Hour)
	f("public, max-age=10", 5*time.Minute)
	f("max-age=99999999", 24*time.Hour)
	f("no-store", 5*time.Minute)
	f(`MAX-AGE="600"`, 10*time.Minute)
	f("max-age=-5", 5*time.Minute)
	f("max-age=x", time.Hour)
}

func TestRunEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	v := NewVerifier(VerifierConfig{})
	if err := v.SetIssuers([]routes.Issuer{{Issuer: server.URL}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- v.Run(ctx) }()
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("Run did not end")
	}
}
