package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/upstream"
)

// idp is another provider, honest but for what a test changes.
type idp struct {
	*httptest.Server
	key *ecdsa.PrivateKey

	mu     sync.Mutex
	asked  url.Values // of the last authorization request
	change func(claims jwt.MapClaims)
	answer func(q url.Values)
	alg    jwt.SigningMethod
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	p := &idp{alg: jwt.SigningMethodES256}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	write := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		write(w, map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token",
			"jwks_uri": p.URL + "/jwks", "authorization_response_iss_parameter_supported": true})
	})
	mux.HandleFunc("/jwks", func(w http.ResponseWriter, _ *http.Request) {
		point, err := p.key.PublicKey.Bytes()
		if err != nil {
			t.Error(err)
		}
		b64 := base64.RawURLEncoding
		write(w, map[string]any{"keys": []any{map[string]string{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig",
			"x": b64.EncodeToString(point[1:33]), "y": b64.EncodeToString(point[33:])}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		id, secret, _ := r.BasicAuth()
		if id != "gatehouse" || secret != webSecret || r.FormValue("code") != "the-code" || challenge(r.FormValue("code_verifier")) != p.asked.Get("code_challenge") {
			w.WriteHeader(http.StatusBadRequest)
			write(w, map[string]string{"error": "invalid_grant"})
			return
		}
		c := jwt.MapClaims{"iss": p.URL, "sub": "person-7", "aud": "gatehouse", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
			"nonce": p.asked.Get("nonce"), "email": "pat@example.com", "email_verified": true, "name": "Pat P", "preferred_username": "pat", "groups": []string{"admins"}}
		if p.change != nil {
			p.change(c)
		}
		token := jwt.NewWithClaims(p.alg, c)
		token.Header["kid"] = "k"
		var signer any = p.key
		switch p.alg {
		case jwt.SigningMethodHS256:
			signer = []byte(webSecret)
		case jwt.SigningMethodNone:
			signer = jwt.UnsafeAllowNoneSignatureType
		}
		signed, err := token.SignedString(signer)
		if err != nil {
			t.Error(err)
		}
		write(w, map[string]any{"access_token": "at", "token_type": "Bearer", "id_token": signed})
	})
	return p
}

// with lets the provider behave as a test wants it.
func (p *idp) with(alg jwt.SigningMethod, change func(jwt.MapClaims), answer func(url.Values)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alg, p.change, p.answer = alg, change, answer
}

// visit is what the browser does at the provider: it comes back with an answer.
func (p *idp) visit(t *testing.T, to string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, p.URL+"/authorize?") {
		t.Fatalf("not a way to the provider: %s", to)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = u.Query()
	q := url.Values{"code": {"the-code"}, "state": {p.asked.Get("state")}, "iss": {p.URL}}
	if p.answer != nil {
		p.answer(q)
	}
	return "/oauth/upstream/callback?" + q.Encode()
}

func withUpstream(p *idp, linking bool) func(*authserver.Config) {
	return func(c *authserver.Config) {
		c.Upstream = []upstream.Provider{{Name: "partner", Title: "Partner & Co", Issuer: p.URL, ClientID: "gatehouse", ClientSecret: webSecret,
			Scopes: []string{"email"}, LinkByEmail: linking, GroupsClaim: "groups", Roles: map[string][]string{"admins": {"admin"}}}}
		for i := range c.Declared.Clients {
			if c.Declared.Clients[i].ID == "web" {
				c.Declared.Clients[i].Claims = map[string]string{"roles": "user.roles", "groups": "user.groups"}
			}
		}
	}
}

// toProvider follows an authorization request to the login page and from there
// to the provider, and returns where that leads.
func (b *browser) toProvider(pairs ...string) string {
	b.e.t.Helper()
	page := b.run(request(pairs...), "", "")
	if !strings.Contains(page.body, "Sign in with Partner &amp; Co") {
		b.e.t.Fatalf("the login page does not offer the provider: %s", page.body)
	}
	r := b.get("/oauth/upstream?provider=partner&i=" + url.QueryEscape(fields(page.body).Get("i")))
	if r.status != http.StatusSeeOther {
		b.e.t.Fatalf("start: %d %s", r.status, r.body)
	}
	return r.header.Get("Location")
}

// finish goes on after the callback to the client.
func (b *browser) finish(r reply) reply {
	b.e.t.Helper()
	for range 6 {
		switch {
		case r.status == http.StatusSeeOther && strings.HasPrefix(r.header.Get("Location"), "/oauth/"):
			r = b.get(r.header.Get("Location"))
		case strings.Contains(r.body, `action="/oauth/consent"`):
			r = b.post("/oauth/consent", with(fields(r.body), "decision", "allow"))
		default:
			return r
		}
	}
	return r
}

func TestUpstreamLoginMakesAUserAndFindsItAgain(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		p := newIDP(t)
		e := startOn(t, openStores(t, dsn, 1)[0], nil, withUpstream(p, false))
		subject := ""
		for range 2 {
			b := e.browser()
			to := b.toProvider()
			asked, _ := url.Parse(to)
			for name, want := range map[string]string{"response_type": "code", "client_id": "gatehouse", "code_challenge_method": "S256",
				"redirect_uri": e.config.Issuer + "/oauth/upstream/callback", "scope": "openid email"} {
				if have := asked.Query().Get(name); have != want {
					t.Errorf("%s is %q, want %q", name, have, want)
				}
			}
			code := b.code(b.finish(b.get(p.visit(t, to))))
			says := claims(t, e.redeem(code).want(t, 200, "").str("access_token"), 1)
			if subject != "" && says["sub"] != subject {
				t.Error("the same person is another user the second time")
			}
			subject = says["sub"].(string)
			if !strings.HasPrefix(subject, "usr_") || fmt.Sprint(says["roles"], says["groups"]) != "[admin] [admins]" || says["email"] != nil {
				t.Errorf("claims %v", says)
			}
		}
		user := e.admin("GET", "/api/v1/users/"+subject, "").want(t, 200, "")
		if user.str("name") != "pat" || user.str("email") != "pat@example.com" || user.str("display_name") != "Pat P" {
			t.Errorf("user %s", user.body)
		}
		if ev := e.events("user.added", 1); len(ev) != 1 || ev[0].Reason != "partner" {
			t.Errorf("audit %+v", ev)
		}
	})
}

func TestUpstreamSignInIsAsFreshAsTheApplicationAsks(t *testing.T) {
	p := newIDP(t)
	e := start(t, withUpstream(p, false))
	for name, f := range map[string]struct {
		age  time.Duration // of the sign-in there; negative: it does not say
		want bool
	}{"fresh": {5 * time.Second, true}, "old": {10 * time.Minute, false}, "of no known age": {-1, false}} {
		p.with(jwt.SigningMethodES256, func(c jwt.MapClaims) {
			if f.age >= 0 {
				c["auth_time"] = e.clock.now().Add(-f.age).Unix()
			}
		}, nil)
		b := e.browser()
		to := b.toProvider("prompt", "login consent", "max_age", "120")
		if asked := must(url.Parse(to)).Query(); asked.Get("prompt") != "login" || asked.Get("max_age") != "120" {
			t.Errorf("asked with %v", asked)
		}
		r := b.finish(b.get(p.visit(t, to)))
		if in := b.code(r) != ""; in != f.want {
			t.Errorf("a sign-in that is %s: %d %s", name, r.status, r.header.Get("Location"))
		}
	}
	if asked := must(url.Parse(e.browser().toProvider())).Query(); asked.Has("prompt") || asked.Has("max_age") {
		t.Errorf("asked for more than the application did: %v", asked)
	}
}

func TestUpstreamAccountsAreLinkedByVerifiedAddressOnlyIfAsked(t *testing.T) {
	f := func(t *testing.T, linking, verified, want bool) {
		t.Helper()
		p := newIDP(t)
		e := start(t, withUpstream(p, linking))
		p.with(jwt.SigningMethodES256, func(c jwt.MapClaims) {
			c["email"], c["email_verified"] = "Alice@Example.com", verified
		}, nil)
		alice := claims(t, e.grant().str("access_token"), 1)["sub"]
		b := e.browser()
		r := b.finish(b.get(p.visit(t, b.toProvider())))
		sub := claims(t, e.redeem(b.code(r)).want(t, 200, "").str("access_token"), 1)["sub"]
		if (sub == alice) != want {
			t.Errorf("linking %v, verified %v: linked is %v", linking, verified, sub == alice)
		}
		if want {
			if ev := e.events("user.linked", 1); ev[0].Subject != alice {
				t.Errorf("audit %+v", ev)
			}
		}
	}
	f(t, true, true, true)
	f(t, true, false, false)
	f(t, false, true, false)
}

func TestHostileUpstreamGetsNobodyIn(t *testing.T) {
	p, other := newIDP(t), newIDP(t)
	e := start(t, withUpstream(p, true))
	claim := func(name string, value any) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) { c[name] = value }
	}
	param := func(name, value string) func(url.Values) {
		return func(q url.Values) { q.Set(name, value) }
	}
	f := func(name string, alg jwt.SigningMethod, change func(jwt.MapClaims), answer func(url.Values)) {
		t.Helper()
		p.with(alg, change, answer)
		b := e.browser()
		r := b.get(p.visit(t, b.toProvider()))
		if r.status < 400 || r.status >= 500 {
			t.Errorf("%s: %d %s", name, r.status, r.header.Get("Location"))
		}
		for _, c := range b.http.Jar.Cookies(must(url.Parse(e.url))) {
			if strings.Contains(c.Name, "session") {
				t.Errorf("%s: a session began", name)
			}
		}
	}
	es := jwt.SigningMethodES256
	f("wrong nonce", es, claim("nonce", "another"), nil)
	f("no nonce", es, func(c jwt.MapClaims) { delete(c, "nonce") }, nil)
	f("wrong issuer in the token", es, claim("iss", other.URL), nil)
	f("wrong audience", es, claim("aud", "somebody-else"), nil)
	f("several audiences, another party", es, func(c jwt.MapClaims) { c["aud"], c["azp"] = []string{"gatehouse", "x"}, "x" }, nil)
	f("expired", es, claim("exp", time.Now().Add(-time.Hour).Unix()), nil)
	f("no subject", es, claim("sub", ""), nil)
	f("unsigned", jwt.SigningMethodNone, nil, nil)
	f("signed with our secret", jwt.SigningMethodHS256, nil, nil)
	f("mix-up: another issuer answers", es, nil, param("iss", other.URL))
	f("mix-up: no issuer although promised", es, nil, param("iss", ""))
	f("another code", es, nil, param("code", "stolen"))
	f("an error", es, nil, func(q url.Values) { q.Del("code"); q.Set("error", "access_denied") })
	f("another state", es, nil, param("state", "made-up"))

	// A state is good once, and in its own browser only.
	p.with(es, nil, nil)
	b, thief := e.browser(), e.browser()
	back := p.visit(t, b.toProvider())
	thief.run(request(), "", "")
	if r := thief.get(back); r.status != http.StatusBadRequest {
		t.Errorf("another's state: %d", r.status)
	}
	if r := b.get(back); r.status != http.StatusSeeOther {
		t.Errorf("the owner: %d %s", r.status, r.body)
	}
	if r := b.get(back); r.status < 400 {
		t.Errorf("replayed state: %d", r.status)
	}
	if ev := e.events("login.failed", 10); !strings.HasPrefix(ev[0].Reason, "partner: ") {
		t.Errorf("audit %+v", ev[0])
	}
}

func TestUpstreamOutageConcernsItselfOnly(t *testing.T) {
	p := newIDP(t)
	e := start(t, withUpstream(p, false))
	p.Close()
	b := e.browser()
	page := b.run(request(), "", "")
	if r := b.get("/oauth/upstream?provider=partner&i=" + url.QueryEscape(fields(page.body).Get("i"))); r.status != http.StatusServiceUnavailable {
		t.Errorf("status %d", r.status)
	}
	if r := b.get("/oauth/upstream?provider=nobody"); r.status != http.StatusBadRequest {
		t.Errorf("an unknown provider: %d", r.status)
	}
	e.grant()
}

// must unwraps what cannot fail.
func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}
