package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

type signer struct {
	t    *testing.T
	mu   sync.Mutex
	n    int
	key  signing
	fail error
}

func (s *signer) Sign(use, typ string, claims any) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if use != "identity" || typ != "gatehouse-identity+jwt" {
		s.t.Errorf("use %q, typ %q", use, typ)
	}
	return string(s.key.token(s.t, claims, members{"typ": typ})), s.fail
}

func identified(service string) *routes.Route {
	return &routes.Route{Name: "r", Upstream: &routes.Service{Name: service, Identity: routes.Identity{JWT: true}}}
}

func TestServiceGetsItsIdentityJWT(t *testing.T) {
	s := &signer{t: t, key: newSigning(t, "i1", "ES256")}
	i := NewIdentity(s, ownIssuer)
	p := someone()
	p.Scopes = []string{"a", "b"}
	send := func(service string, p *plugins.Principal, after time.Duration) string {
		t.Helper()
		step, err := i.Build(identified(service))
		if err != nil {
			t.Fatal(err)
		}
		x := plugintest.New("GET", "h", "/")
		x.Principal, x.Time = p, t0.Add(after)
		if err := step(plugintest.OK)(x); err != nil {
			t.Fatal(err)
		}
		return string(x.IdentityLines)
	}
	line := send("orders", p, 0)
	token, ok := strings.CutPrefix(strings.TrimSuffix(line, "\r\n"), "X-Auth-Identity: ")
	if !ok || !strings.HasSuffix(line, "\r\n") {
		t.Fatalf("line %q", line)
	}
	claims := jwt.MapClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(token, claims); err != nil {
		t.Fatal(err)
	}
	got, _ := json.Marshal(claims)
	want := fmt.Sprintf(`{"aud":"orders","client_id":"web","exp":%d,"iat":%d,"iss":"%s","scope":"a b","sid":"s1","sub":"usr_1","token_iss":"%[3]s"}`,
		t0.Unix()+60, t0.Unix(), ownIssuer)
	if string(got) != want {
		t.Errorf("claims\n%s\nwant\n%s", got, want)
	}

	if send("orders", p, 29*time.Second) != line || s.n != 1 {
		t.Errorf("signed %d times within half its life", s.n)
	}
	if send("billing", p, 0) == line || s.n != 2 {
		t.Error("two services share an identity")
	}
	if send("orders", someone(), 0) == line || s.n != 3 {
		t.Error("two principals share an identity")
	}
	if send("orders", p, 30*time.Second) == line || s.n != 4 {
		t.Error("not renewed at half of its life")
	}
	if send("orders", nil, 0) != "" {
		t.Error("a request without principal got an identity")
	}
}

func TestIdentityRenewedByOneRequestWhileOthersGoOn(t *testing.T) {
	s := &signer{t: t, key: newSigning(t, "i1", "ES256")}
	i, p := NewIdentity(s, ownIssuer), someone()
	if _, err := i.line(p, "orders", t0); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := i.line(p, "orders", t0.Add(31*time.Second)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if s.n != 2 {
		t.Errorf("signed %d times, want 2", s.n)
	}
	s.fail = errors.New("no key")
	if _, err := i.line(p, "orders", t0.Add(62*time.Second)); err != nil {
		t.Errorf("the signer failed while the old identity was good: %v", err)
	}
	s.n, s.fail = 2, nil
	if b, err := i.line(p, "orders", t0.Add(5*time.Minute)); err != nil || len(b) == 0 || s.n != 3 {
		t.Errorf("an old identity was used: %d, %v", s.n, err)
	}
}

func TestServiceIsNotCalledWithoutTheIdentityItWants(t *testing.T) {
	s := &signer{t: t, key: newSigning(t, "i1", "ES256"), fail: errors.New("no key")}
	step, err := NewIdentity(s, ownIssuer).Build(identified("orders"))
	if err != nil {
		t.Fatal(err)
	}
	x := plugintest.New("GET", "h", "/")
	x.Principal = someone()
	if got := code(t, step(plugintest.OK)(x)); got != plugins.KeysUnavailable {
		t.Errorf("got %q", got)
	}
	if _, err := NewIdentity(nil, "").Build(identified("orders")); err == nil {
		t.Error("a service wants an identity that nobody can sign")
	}
	if step, err := NewIdentity(s, ownIssuer).Build(&routes.Route{Upstream: &routes.Service{}}); step != nil || err != nil {
		t.Errorf("a service that wants none: %v", err)
	}
}

// What the gateway hands to a service must not open the gateway.
func TestIdentityJWTRefusedAsBearerToken(t *testing.T) {
	token, id := newSigning(t, "k1", "ES256"), newSigning(t, "i1", "ES256")
	id.use = "identity"
	v := NewVerifier(VerifierConfig{Issuer: ownIssuer, Audience: "orders", Keys: newRing(token, id)})
	for name, key := range map[string]signing{"its own key": id, "the token key": token} {
		s := &signer{t: t, key: key}
		line, err := NewIdentity(s, ownIssuer).line(someone(), "orders", t0)
		if err != nil {
			t.Fatal(err)
		}
		bearer := strings.TrimSuffix(strings.TrimPrefix(string(line), identityLine), "\r\n")
		if _, err := verify(v, []byte(bearer), t0); code(t, err) != plugins.TokenInvalid {
			t.Errorf("signed by %s: %v", name, err)
		}
	}
}
