package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

var b64url = base64.RawURLEncoding.EncodeToString

// jwk is the public part of a P-256 key, and its thumbprint.
func (s signing) jwk(t testing.TB) (members, string) {
	t.Helper()
	point, err := s.private.Public().(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	x, y := b64url(point[1:33]), b64url(point[33:])
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, x, y))
	return members{"kty": "EC", "crv": "P-256", "x": x, "y": y}, b64url(sum[:])
}

var proofs int

// proof is a good proof for GET https://api.example.com/orders with a token.
func (s signing) proof(t testing.TB, token string, m members) string {
	t.Helper()
	jwk, _ := s.jwk(t)
	sum := sha256.Sum256([]byte(token))
	proofs++
	c := members{"jti": fmt.Sprint("proof-", proofs), "htm": "GET", "htu": "https://api.example.com/orders", "iat": t0.Unix(), "ath": b64url(sum[:])}
	maps.Copy(c, m)
	for name, v := range c {
		if v == nil {
			delete(c, name)
		}
	}
	return string(s.token(t, c, members{"typ": "dpop+jwt", "jwk": jwk, "kid": nil}))
}

func orders(header ...string) *plugins.Exchange {
	x := plugintest.New("GET", "api.example.com", "/orders", header...)
	x.TLS = true
	return x
}

// told is what err tells: "" for none, reason and challenge.
func told(t testing.TB, err error) (reason, challenge string) {
	t.Helper()
	if err == nil {
		return "", ""
	}
	var e *plugins.Error
	if !errors.As(err, &e) || e.Status != 401 {
		t.Fatalf("%v", err)
	}
	for _, h := range e.Header {
		if h[0] == "WWW-Authenticate" {
			challenge = h[1]
		}
	}
	return e.Code, challenge
}

func TestOAuth50_BoundTokenNeedsAFreshProofOfItsKey(t *testing.T) {
	d := newDesk(t)
	holder, thief := newSigning(t, "", "ES256"), newSigning(t, "", "ES256")
	_, jkt := holder.jwk(t)
	token := strings.TrimPrefix(d.bearer(members{"cnf": members{"jkt": jkt}}), "Authorization: Bearer ")
	unbound := strings.TrimPrefix(d.bearer(nil), "Authorization: Bearer ")
	next := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{}})
	f := func(name, reason, code string, header ...string) {
		t.Helper()
		x := orders(header...)
		got, challenge := told(t, next(x))
		if got != reason {
			t.Errorf("%s: %q, want %q", name, got, reason)
		}
		if reason != "" && (!strings.HasPrefix(challenge, `DPoP algs="ES256 `) || !strings.Contains(challenge, `error="`+code+`"`)) {
			t.Errorf("%s: challenge %q", name, challenge)
		}
		for _, field := range x.Fields {
			if reason == "" && !field.Drop {
				t.Errorf("%s: %s passes the gateway", name, field.Name)
			}
		}
	}
	bound := "Authorization: DPoP " + token
	proof := func(m members) string { return "DPoP: " + holder.proof(t, token, m) }
	f("right", "", "", bound, proof(nil))
	f("scheme in lower case", "", "", "authorization: dpop "+token, "dpop: "+holder.proof(t, token, nil))
	f("query does not count", "", "", bound, proof(members{"htu": "https://API.example.com:443/orders?x=y"}))
	f("path in another spelling", "", "", bound, proof(members{"htu": "https://api.example.com/%6Frders"}))
	f("59 s off", "", "", bound, proof(members{"iat": t0.Unix() - 59}))
	const bad, invalid = plugins.ProofInvalid, "invalid_dpop_proof"
	f("no proof", bad, invalid, bound)
	f("two proofs", bad, invalid, bound, proof(nil), proof(nil))
	f("another method", bad, invalid, bound, proof(members{"htm": "POST"}))
	f("another path", bad, invalid, bound, proof(members{"htu": "https://api.example.com/orders/1"}))
	f("another host", bad, invalid, bound, proof(members{"htu": "https://evil.example.com/orders"}))
	f("another scheme", bad, invalid, bound, proof(members{"htu": "http://api.example.com/orders"}))
	f("61 s off", bad, invalid, bound, proof(members{"iat": t0.Unix() - 61}))
	f("of another token", bad, invalid, bound, "DPoP: "+holder.proof(t, unbound, nil))
	f("without the token's hash", bad, invalid, bound, proof(members{"ath": nil}))
	f("of another key", plugins.BindingMismatch, "invalid_token", bound, "DPoP: "+thief.proof(t, token, nil))
	f("as Bearer", plugins.BindingMismatch, "invalid_token", "Authorization: Bearer "+token)
	f("as Bearer with a proof", plugins.BindingMismatch, "invalid_token", "Authorization: Bearer "+token, proof(nil))
	f("unbound token as DPoP", plugins.BindingMismatch, "invalid_token", "Authorization: DPoP "+unbound, "DPoP: "+holder.proof(t, unbound, nil))
	f("bad token as DPoP", plugins.TokenInvalid, "invalid_token", "Authorization: DPoP x", proof(nil))

	once := proof(nil)
	f("once", "", "", bound, once)
	f("twice", bad, invalid, bound, once)
}

func TestRouteMayDemandBoundTokens(t *testing.T) {
	d := newDesk(t)
	holder := newSigning(t, "", "ES256")
	_, jkt := holder.jwk(t)
	token := strings.TrimPrefix(d.bearer(members{"cnf": members{"jkt": jkt}}), "Authorization: Bearer ")
	route := &routes.Route{Name: "r", Auth: &routes.Auth{DPoP: "required"}}
	next := d.step(route)
	if err := next(orders("Authorization: DPoP "+token, "DPoP: "+holder.proof(t, token, nil))); err != nil {
		t.Error(err)
	}
	if reason, challenge := told(t, next(orders(d.bearer(nil)))); reason != plugins.ProofRequired || !strings.HasPrefix(challenge, "DPoP ") {
		t.Errorf("a bearer token: %s %s", reason, challenge)
	}
	if reason, challenge := told(t, next(orders())); reason != plugins.TokenMissing || !strings.HasPrefix(challenge, "DPoP ") || strings.Contains(challenge, "error=") {
		t.Errorf("nothing: %s %s", reason, challenge)
	}
	// The offline judgement knows it too.
	claims := raw(t, claimsOf(ownIssuer, nil))
	assumed, err := d.verify.Assume([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	var e *plugins.Error
	if err := d.plugin.Judge(route, assumed, t0); !errors.As(err, &e) || e.Code != plugins.ProofRequired {
		t.Errorf("judged %v", err)
	}
}

func TestEdgeDemandsNonces(t *testing.T) {
	d := newDesk(t)
	nonces := dpop.NewNonces([]byte(strings.Repeat("k", 32)))
	d.plugin = New(Config{Verifier: d.verify, Denied: d.denied, Nonces: nonces})
	next := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{}})
	holder := newSigning(t, "", "ES256")
	_, jkt := holder.jwk(t)
	token := strings.TrimPrefix(d.bearer(members{"cnf": members{"jkt": jkt}}), "Authorization: Bearer ")
	f := func(nonce any, reason string) {
		t.Helper()
		x := orders("Authorization: DPoP "+token, "DPoP: "+holder.proof(t, token, members{"nonce": nonce}))
		if got, _ := told(t, next(x)); got != reason {
			t.Errorf("%v: %q, want %q", nonce, got, reason)
		}
		if !strings.Contains(string(x.ResponseFields()), "DPoP-Nonce: "+nonces.Current(t0)+"\r\n") {
			t.Errorf("%v: no nonce in the answer: %s", nonce, x.ResponseFields())
		}
	}
	f(nil, plugins.ProofNonce)
	f("made up", plugins.ProofNonce)
	f(nonces.Current(t0), "")
}

func TestForwardedTokenKeepsItsProof(t *testing.T) {
	d := newDesk(t)
	holder := newSigning(t, "", "ES256")
	_, jkt := holder.jwk(t)
	token := strings.TrimPrefix(d.bearer(members{"cnf": members{"jkt": jkt}}), "Authorization: Bearer ")
	x := orders("Authorization: DPoP "+token, "DPoP: "+holder.proof(t, token, nil))
	if err := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{ForwardToken: true}})(x); err != nil {
		t.Fatal(err)
	}
	for _, f := range x.Fields {
		if f.Drop {
			t.Errorf("%s is dropped", f.Name)
		}
	}
}

func TestOAuth51_CertificateBoundTokenNeedsItsCertificate(t *testing.T) {
	d := newDesk(t)
	own, other := plugins.ClientCertificate{Thumbprint: [32]byte{1}}, plugins.ClientCertificate{Thumbprint: [32]byte{2}}
	bearer := d.bearer(members{"cnf": members{"x5t#S256": b64url(own.Thumbprint[:])}})
	next := d.step(&routes.Route{Name: "r", Auth: &routes.Auth{}})
	f := func(name string, cert *plugins.ClientCertificate, reason string, header ...string) {
		t.Helper()
		x := orders(append(header, bearer)...)
		x.ClientCert = cert
		got, challenge := told(t, next(x))
		if got != reason || reason != "" && !strings.HasPrefix(challenge, `Bearer error="invalid_token"`) {
			t.Errorf("%s: %q %q, want %q", name, got, challenge, reason)
		}
	}
	f("its own", &own, "")
	f("another", &other, plugins.BindingMismatch)
	f("none", nil, plugins.BindingMismatch)
	f("in a field", nil, plugins.BindingMismatch, "Client-Cert: :AQ==:", "X-SSL-Client-Cert: AQ")
	// Both bindings at once: both are asked for.
	holder := newSigning(t, "", "ES256")
	_, jkt := holder.jwk(t)
	token := strings.TrimPrefix(d.bearer(members{"cnf": members{"jkt": jkt, "x5t#S256": b64url(own.Thumbprint[:])}}), "Authorization: Bearer ")
	for cert, reason := range map[*plugins.ClientCertificate]string{&own: "", &other: plugins.BindingMismatch} {
		x := orders("Authorization: DPoP "+token, "DPoP: "+holder.proof(t, token, nil))
		x.ClientCert = cert
		if got, _ := told(t, next(x)); got != reason {
			t.Errorf("both: %q, want %q", got, reason)
		}
	}
}

// shared is a ProofStore of several replicas, which may be away.
type shared struct {
	mu   sync.Mutex
	seen map[string]bool
	away bool
	asks int
}

func (s *shared) Once(_ context.Context, key string, life time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asks++
	if s.away {
		return false, errors.New("away")
	}
	if life <= 0 || life > 2*dpop.Window {
		return false, fmt.Errorf("life %v", life)
	}
	fresh := !s.seen[key]
	s.seen[key] = true
	return fresh, nil
}

func TestProofCountsOnceOverReplicas(t *testing.T) {
	s := &shared{seen: map[string]bool{}}
	one, two := NewProofs(s), NewProofs(s)
	until := t0.Add(dpop.Window)
	f := func(p *Proofs, id string, at time.Time, want error) {
		t.Helper()
		if err := p.Spend(id, until, at); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", id, err, want)
		}
	}
	f(one, "a", t0, nil)
	f(one, "a", t0, errSpent)
	f(two, "a", t0, errSpent)
	// Without the store each replica still knows its own.
	s.away = true
	f(one, "b", t0, nil)
	f(one, "b", t0, errSpent)
	f(two, "b", t0, nil)
	asks := s.asks
	f(one, "c", t0.Add(time.Millisecond), nil) // and does not wait for it each time
	if s.asks != asks || one.Failed() != 2 {
		t.Errorf("%d asks, %d failed", s.asks-asks, one.Failed())
	}
	s.away = false
	f(one, "d", t0.Add(time.Second), nil)
	f(two, "d", t0.Add(time.Second), errSpent)
	// What cannot be replayed any more is forgotten.
	for i := range 10 {
		f(one, "e", t0.Add(time.Duration(i+1)*3*proofsTurn), nil)
		s.seen = map[string]bool{}
		if n := len(one.current) + len(one.previous); n > 2 {
			t.Fatalf("%d proofs are remembered", n)
		}
	}
}

func TestProofIsRememberedAsLongAsItIsGood(t *testing.T) {
	p := NewProofs(nil)
	for i := range 50 { // across every turn of the memory
		at := t0.Add(time.Duration(i) * 17 * time.Second)
		id := fmt.Sprint("id-", i)
		if err := p.Spend(id, at.Add(2*dpop.Window), at); err != nil {
			t.Fatal(err)
		}
		if err := p.Spend(id, at.Add(2*dpop.Window), at.Add(2*dpop.Window)); !errors.Is(err, errSpent) {
			t.Fatalf("%s was forgotten", id)
		}
	}
}
