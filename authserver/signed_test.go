package authserver_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/fetch"
	"github.com/gatehouse/gatehouse/authserver/store"
)

var b64url = base64.RawURLEncoding.EncodeToString

type members = map[string]any

// clientKey is a key pair of a client.
type clientKey struct {
	alg, kid string
	private  crypto.Signer
}

func newClientKey(t testing.TB, alg, kid string) clientKey {
	t.Helper()
	k := clientKey{alg: alg, kid: kid}
	var err error
	switch alg {
	case "ES256":
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// public is the key as a JWK.
func (k clientKey) public(t testing.TB) members {
	t.Helper()
	var m members
	switch p := k.private.Public().(type) {
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		m = members{"kty": "EC", "crv": "P-256", "x": b64url(point[1:33]), "y": b64url(point[33:])}
	case ed25519.PublicKey:
		m = members{"kty": "OKP", "crv": "Ed25519", "x": b64url(p)}
	case *rsa.PublicKey:
		m = members{"kty": "RSA", "n": b64url(p.N.Bytes()), "e": b64url(big.NewInt(int64(p.E)).Bytes())}
	}
	if k.kid != "" {
		m["kid"] = k.kid
	}
	return m
}

func jwks(t testing.TB, keys ...clientKey) json.RawMessage {
	t.Helper()
	list := []members{}
	for _, k := range keys {
		list = append(list, k.public(t))
	}
	raw, err := json.Marshal(members{"keys": list})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sign makes a JWT; header members override the usual ones, nil removes.
func (k clientKey) sign(t testing.TB, header, claims members) string {
	t.Helper()
	segment := func(m members) string {
		m = maps.Clone(m)
		maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b64url(raw)
	}
	h := members{"alg": k.alg, "kid": k.kid}
	if k.kid == "" {
		delete(h, "kid")
	}
	maps.Copy(h, header)
	text := segment(h) + "." + segment(claims)
	alg := k.alg
	if named, ok := h["alg"].(string); ok && named == "none" {
		return text + "."
	}
	sig, err := jwt.GetSigningMethod(alg).Sign(text, k.private)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + b64url(sig)
}

// assertion is a good client assertion with some members changed.
func (e *env) assertion(k clientKey, client string, header, m members) string {
	e.t.Helper()
	c := members{"iss": client, "sub": client, "aud": e.config.Issuer, "jti": rand.Text(),
		"iat": e.clock.now().Unix(), "exp": e.clock.now().Add(time.Minute).Unix()}
	maps.Copy(c, m)
	s := k.sign(e.t, header, c)
	e.secret(s)
	return s
}

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

func asserted(assertion string, pairs ...string) url.Values {
	return with(form("client_assertion_type", assertionType, "client_assertion", assertion), pairs...)
}

// signingClients adds the client "signer", which signs with keys.
func signingClients(s store.ClientSettings) func(*authserver.Config) {
	return func(c *authserver.Config) {
		c.Declared.Clients = append(c.Declared.Clients, authserver.Client{
			ID: "signer", Grants: []string{"authorization_code", "refresh_token", "client_credentials"},
			Scopes:       []string{"openid", "read:orders", "write:orders", "gatehouse:introspect"},
			RedirectURIs: []string{callback}, ClientSettings: s,
		})
	}
}

func TestOAuth27_ClientAssertionIsStrictAndCountsOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		key, stranger := newClientKey(t, "ES256", "k1"), newClientKey(t, "ES256", "k1")
		settings := signingClients(store.ClientSettings{AuthMethod: "private_key_jwt", JWKS: jwks(t, key)})
		stores := openStores(t, dsn, 2)
		e := startOn(t, stores[0], nil, settings)
		other := startOn(t, stores[1], e, settings)
		f := func(name string, ok bool, header, m members) {
			t.Helper()
			r := e.token("", "", asserted(e.assertion(key, "signer", header, m), "grant_type", "client_credentials"))
			if ok && r.status != 200 || !ok && (r.status != 401 || r.str("error") != "invalid_client") {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
		now := func(d time.Duration) int64 { return e.clock.now().Add(d).Unix() }
		f("right", true, nil, nil)
		f("audience in a list of one", true, nil, members{"aud": []string{e.config.Issuer}})
		f("no kid", true, members{"kid": nil}, nil)
		f("audience is the token endpoint", false, nil, members{"aud": e.config.Issuer + "/oauth/token"})
		f("audience among others", false, nil, members{"aud": []string{e.config.Issuer, "https://other.example.com"}})
		f("audience twice", false, nil, members{"aud": []string{e.config.Issuer, e.config.Issuer}})
		f("no audience", false, nil, members{"aud": nil})
		f("expires in 10 min", false, nil, members{"exp": now(10 * time.Minute)})
		f("expired", false, nil, members{"exp": now(-time.Minute)})
		f("no end", false, nil, members{"exp": nil})
		f("not yet", false, nil, members{"nbf": now(2 * time.Minute)})
		f("made in the future", false, nil, members{"iat": now(2 * time.Minute)})
		f("no jti", false, nil, members{"jti": nil})
		f("iss differs from sub", false, nil, members{"iss": "web"})
		f("another client's", false, nil, members{"iss": "web", "sub": "web"})
		f("unknown client", false, nil, members{"iss": "x", "sub": "x"})
		f("alg none", false, members{"alg": "none"}, nil)
		f("HS256", false, members{"alg": "HS256"}, nil)
		f("unknown kid", false, members{"kid": "k9"}, nil)
		f("crit", false, members{"crit": []string{"x"}}, nil)
		e.token("", "", asserted(e.assertion(stranger, "signer", nil, nil), "grant_type", "client_credentials")).want(t, 401, "invalid_client")

		// Once, over replicas.
		once := e.assertion(key, "signer", nil, nil)
		request := asserted(once, "grant_type", "client_credentials")
		e.token("", "", request).want(t, 200, "")
		other.token("", "", request).want(t, 401, "invalid_client")
		e.token("", "", request).want(t, 401, "invalid_client")

		// No other way in, and not two at once.
		e.token("signer", webSecret, clientCredentials).want(t, 401, "invalid_client")
		e.token("", "", with(clientCredentials, "client_id", "signer")).want(t, 401, "invalid_client")
		e.token("web", webSecret, asserted(e.assertion(key, "signer", nil, nil), "grant_type", "client_credentials")).want(t, 400, "invalid_request")
		e.token("", "", asserted(e.assertion(key, "signer", nil, nil), "grant_type", "client_credentials", "client_assertion_type", "x")).want(t, 401, "invalid_client")
		e.token("", "", asserted(e.assertion(key, "signer", nil, nil), "grant_type", "client_credentials", "client_id", "web")).want(t, 401, "invalid_client")
	})
}

func TestOAuth27_AssertionsWorkAtEveryEndpoint(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA", "PS256", "RS256"} {
		key := newClientKey(t, alg, "")
		e := start(t, signingClients(store.ClientSettings{AuthMethod: "private_key_jwt", JWKS: jwks(t, key)}))
		token := e.token("", "", asserted(e.assertion(key, "signer", nil, nil), "grant_type", "client_credentials")).want(t, 200, "").str("access_token")
		r := e.post("/oauth/introspect", "", "", asserted(e.assertion(key, "signer", nil, nil), "token", token)).want(t, 200, "")
		if r.json["active"] != true {
			t.Errorf("%s: %s", alg, r.body)
		}
		e.post("/oauth/revoke", "", "", asserted(e.assertion(key, "signer", nil, nil), "token", token)).want(t, 200, "")
		e.post("/oauth/par", "", "", merged(request("client_id", "signer", "scope", "openid"), asserted(e.assertion(key, "signer", nil, nil)))).want(t, 201, "")
	}
}

func merged(a, b url.Values) url.Values {
	m := with(a)
	maps.Copy(m, b)
	return m
}

func TestKeysThatAClientPublishesAreFetchedWithinBounds(t *testing.T) {
	key, next := newClientKey(t, "ES256", "k1"), newClientKey(t, "ES256", "k2")
	var fetches atomic.Int32
	set := atomic.Value{}
	set.Store([]byte(jwks(t, key)))
	down := atomic.Bool{}
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fetches.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(set.Load().([]byte))
	}))
	defer site.Close()
	loopback := fetch.New(fetch.Config{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	e := start(t, signingClients(store.ClientSettings{AuthMethod: "private_key_jwt", JWKSURI: site.URL}),
		func(c *authserver.Config) { c.Fetch = loopback })
	use := func(k clientKey) reply {
		return e.token("", "", asserted(e.assertion(k, "signer", nil, nil), "grant_type", "client_credentials"))
	}
	for range 3 {
		use(key).want(t, 200, "")
	}
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d fetches for three uses", n)
	}
	use(next).want(t, 401, "invalid_client")
	use(next).want(t, 401, "invalid_client")
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d fetches: an unknown key id makes us ask again and again", n)
	}
	set.Store([]byte(jwks(t, key, next)))
	e.clock.advance(11 * time.Second)
	use(next).want(t, 200, "") // a rotation costs nothing
	down.Store(true)
	e.clock.advance(10 * time.Minute)
	use(key).want(t, 200, "") // while the site is away the last keys serve
	e.clock.advance(2 * time.Hour)
	use(key).want(t, 503, "temporarily_unavailable")

	// Without the exception, loopback is not asked at all.
	before := fetches.Load()
	closed := start(t, signingClients(store.ClientSettings{AuthMethod: "private_key_jwt", JWKSURI: site.URL}))
	closed.token("", "", asserted(closed.assertion(key, "signer", nil, nil), "grant_type", "client_credentials")).want(t, 503, "temporarily_unavailable")
	if fetches.Load() != before {
		t.Error("a private address was fetched from")
	}
}

// object is a good request object of the client signer.
func (e *env) object(k clientKey, header, m members) string {
	e.t.Helper()
	c := members{"iss": "signer", "aud": e.config.Issuer, "exp": e.clock.now().Add(time.Minute).Unix(), "client_id": "signer",
		"redirect_uri": callback, "response_type": "code", "scope": "openid read:orders", "state": "signed-state",
		"code_challenge": challenge(verifier), "code_challenge_method": "S256", "max_age": 3600,
		"resource": []string{"https://orders.example.com", "https://billing.example.com"}}
	maps.Copy(c, m)
	s := k.sign(e.t, header, c)
	e.secret(s)
	return s
}

func TestOAuth16_SignedRequestsAreVerifiedAndNothingOutsideCounts(t *testing.T) {
	key, stranger := newClientKey(t, "ES256", "k1"), newClientKey(t, "ES256", "k1")
	e := start(t, signingClients(store.ClientSettings{AuthMethod: "private_key_jwt", JWKS: jwks(t, key), RequireSigned: true}))
	outside := func(object string, pairs ...string) url.Values {
		return with(form("client_id", "signer", "request", object), pairs...)
	}
	b := e.browser()
	r := b.run(outside(e.object(key, nil, nil), "scope", "write:orders", "state", "outside", "redirect_uri", "https://evil.example.com/"), "alice", "allow")
	if b.param(r, "state") != "signed-state" || b.code(r) == "" {
		t.Fatalf("answer %d %s", r.status, r.header.Get("Location"))
	}
	got := e.token("", "", merged(redemption(b.code(r)), asserted(e.assertion(key, "signer", nil, nil)))).want(t, 200, "")
	if got.str("scope") != "openid read:orders" || fmt.Sprint(claims(t, got.str("access_token"), 1)["aud"]) != "[https://orders.example.com https://billing.example.com]" {
		t.Errorf("what is outside of the object counted: %s", got.body)
	}
	f := func(name string, object string, pairs ...string) {
		t.Helper()
		r := e.browser().get(authorizeURL(outside(object, append(pairs, "redirect_uri", callback)...)))
		if b.param(r, "error") != "invalid_request_object" {
			t.Errorf("%s: %d %s", name, r.status, r.header.Get("Location"))
		}
		// Without a place of the client's outside there is none to send it to.
		e.browser().get(authorizeURL(outside(object, "redirect_uri", "https://evil.example.com/"))).page(t, 400)
	}
	at := func(d time.Duration) int64 { return e.clock.now().Add(d).Unix() }
	f("alg none", e.object(key, members{"alg": "none"}, nil))
	f("HS256", e.object(key, members{"alg": "HS256"}, nil))
	f("wrong key", e.object(stranger, nil, nil))
	f("good for more than an hour", e.object(key, nil, members{"exp": at(62 * time.Minute)}))
	f("expired", e.object(key, nil, members{"exp": at(-time.Minute)}))
	f("without end", e.object(key, nil, members{"exp": nil}))
	f("not yet", e.object(key, nil, members{"nbf": at(2 * time.Minute)}))
	f("for another server", e.object(key, nil, members{"aud": "https://other.example.com"}))
	f("of another client", e.object(key, nil, members{"iss": "web"}))
	f("names another client", e.object(key, nil, members{"client_id": "web"}))
	f("an assertion", e.assertion(key, "signer", nil, nil))
	f("refers on", e.object(key, nil, members{"request_uri": "urn:x"}))
	f("of another type", e.object(key, members{"typ": "at+jwt"}, nil))
	f("garbage", "x.y.z")
	// A client that signs does so always.
	r = e.browser().get(authorizeURL(request("client_id", "signer", "scope", "openid")))
	if b.param(r, "error") != "invalid_request" {
		t.Errorf("an unsigned request: %s", r.header.Get("Location"))
	}
	// An error inside goes to the address inside.
	r = e.browser().get(authorizeURL(outside(e.object(key, nil, members{"scope": "nonsense"}))))
	if b.param(r, "error") != "invalid_scope" || b.param(r, "state") != "signed-state" {
		t.Errorf("an error of the inner request: %s", r.header.Get("Location"))
	}
	// By reference only what was pushed.
	for _, uri := range []string{"https://127.0.0.1/x", "https://10.0.0.1/x", "http://app.example.com/r", "file:///etc/passwd"} {
		r := e.browser().get(authorizeURL(form("client_id", "signer", "request_uri", uri, "redirect_uri", callback)))
		if b.param(r, "error") != "request_uri_not_supported" {
			t.Errorf("%s: %d %s", uri, r.status, r.header.Get("Location"))
		}
	}
}
