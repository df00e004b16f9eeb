package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

const (
	ownIssuer   = "https://api.example.com"
	ownAudience = "https://api.example.com"
)

var (
	t0     = plugintest.Time
	client = netip.MustParseAddr("192.0.2.1")
)

// signing is a key pair with its place in a set.
type signing struct {
	kid, alg, use string
	private       crypto.Signer
}

func newSigning(t testing.TB, kid, alg string) signing {
	t.Helper()
	s := signing{kid: kid, alg: alg, use: keyUse}
	var err error
	switch alg {
	case "ES256":
		s.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		s.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "EdDSA":
		_, s.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		s.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// token signs claims; header members override the usual ones, nil removes.
func (s signing) token(t testing.TB, claims any, header map[string]any) []byte {
	t.Helper()
	h := map[string]any{"alg": s.alg, "kid": s.kid, "typ": "at+jwt"}
	maps.Copy(h, header)
	for name, v := range h {
		if v == nil {
			delete(h, name)
		}
	}
	return s.sign(t, encoded(t, h)+"."+encoded(t, claims))
}

func (s signing) sign(t testing.TB, text string) []byte {
	t.Helper()
	sig, err := jwt.GetSigningMethod(s.alg).Sign(text, s.private)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(text + "." + base64.RawURLEncoding.EncodeToString(sig))
}

// encoded is a segment: raw JSON as it is, anything else marshalled.
func encoded(t testing.TB, v any) string {
	t.Helper()
	raw, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		raw = string(b)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(raw))
}

type members = map[string]any

// claimsOf are good claims at t0; members override, nil removes.
func claimsOf(issuer string, m members) members {
	c := members{
		"iss": issuer, "aud": ownAudience, "sub": "usr_1", "client_id": "web", "jti": "j1",
		"scope": "read:orders openid", "sid": "s1", "grant": "g1",
		"iat": t0.Unix() - 10, "exp": t0.Unix() + 600,
	}
	maps.Copy(c, m)
	for name, v := range c {
		if v == nil {
			delete(c, name)
		}
	}
	return c
}

// ring is a KeySource in memory.
type ring struct {
	mu        sync.Mutex
	keys      map[string]signing
	gen       uint64
	refreshes int
	onRefresh func(r *ring)
}

func newRing(keys ...signing) *ring {
	r := &ring{keys: make(map[string]signing)}
	for _, k := range keys {
		r.keys[k.kid] = k
	}
	return r
}

func (r *ring) PublicKey(kid string) (crypto.PublicKey, string, string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.keys[kid]
	if !ok {
		return nil, "", "", false
	}
	return k.private.Public(), k.alg, k.use, true
}

func (r *ring) Generation() uint64 { r.mu.Lock(); defer r.mu.Unlock(); return r.gen }

func (r *ring) Refresh(context.Context, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refreshes++
	if r.onRefresh != nil {
		r.onRefresh(r)
	}
}

func (r *ring) set(keys ...signing) {
	fresh := newRing(keys...)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = fresh.keys
	r.gen++
}

// provider is an external issuer on loopback.
type provider struct {
	*httptest.Server
	mu        sync.Mutex
	keys      []any
	status    int
	cache     string
	metadata  members // overrides
	fetches   atomic.Int64
	discovers atomic.Int64
}

func newProvider(t testing.TB, keys ...signing) *provider {
	t.Helper()
	p := &provider{status: http.StatusOK}
	p.publish(t, keys...)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		p.discovers.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		m := members{"issuer": p.URL, "jwks_uri": p.URL + "/jwks"}
		maps.Copy(m, p.metadata)
		json.NewEncoder(w).Encode(m)
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.cache != "" {
			w.Header().Set("Cache-Control", p.cache)
		}
		w.WriteHeader(p.status)
		json.NewEncoder(w).Encode(members{"keys": p.keys})
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) publish(t testing.TB, keys ...signing) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = nil
	for _, k := range keys {
		p.keys = append(p.keys, jwkOf(t, k))
	}
}

func (p *provider) answer(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = status
}

func jwkOf(t testing.TB, k signing) members {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	m := members{"kid": k.kid, "alg": k.alg, "use": "sig"}
	switch public := k.private.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := public.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		n := (len(point) - 1) / 2
		m["kty"], m["crv"] = "EC", public.Curve.Params().Name
		m["x"], m["y"] = b64(point[1:1+n]), b64(point[1+n:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(public)
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", b64(public.N.Bytes()), "AQAB"
	}
	return m
}

// clock is a settable now.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(t0.UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// external is a Verifier that trusts p too and runs until the test ends.
func external(t testing.TB, c *clock, own KeySource, issuers ...routes.Issuer) *Verifier {
	t.Helper()
	v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: ownAudience, Keys: own, Now: c.now})
	if err := v.SetIssuers(issuers); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return v
}

func trusting(p *provider, algorithms ...string) routes.Issuer {
	return routes.Issuer{Issuer: p.URL, Audiences: []string{ownAudience}, Algorithms: algorithms}
}

// until polls cond.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// code is the reason code of err, "" for nil.
func code(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	e, ok := err.(*plugins.Error)
	if !ok {
		t.Fatalf("error %v is not a *plugins.Error", err)
	}
	return e.Code
}

// verify is Verify at t0 without the details.
func verify(v *Verifier, token []byte, now time.Time) (*Token, error) {
	tok, _, err := v.Verify(context.Background(), token, client, now)
	return tok, err
}
