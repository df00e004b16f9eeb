package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
	"github.com/gatehouse/gatehouse/authserver/grants"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// proof is a good DPoP proof for an endpoint with some members changed.
func (e *env) proof(k clientKey, method, path string, header, m members) string {
	e.t.Helper()
	h := members{"typ": "dpop+jwt", "jwk": k.public(e.t), "kid": nil}
	maps.Copy(h, header)
	c := members{"jti": rand.Text(), "htm": method, "htu": e.config.Issuer + path, "iat": e.clock.now().Unix()}
	maps.Copy(c, m)
	return k.sign(e.t, h, c)
}

// tokenWith sends a token request with header fields, as a client unless the
// id is "".
func (e *env) tokenWith(client, secret string, f url.Values, header ...string) reply {
	e.t.Helper()
	if client != "" {
		header = append(header, "Authorization", basic(url.QueryEscape(client), url.QueryEscape(secret)))
	}
	return e.raw("POST", "/oauth/token", urlencoded, f.Encode(), header...)
}

func confirmation(t testing.TB, r reply) map[string]any {
	t.Helper()
	cnf, _ := claims(t, r.str("access_token"), 1)["cnf"].(map[string]any)
	return cnf
}

func TestOAuth50_ProofBindsTheTokenAndCountsOnce(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		stores := openStores(t, dsn, 2)
		e := startOn(t, stores[0], nil)
		other := startOn(t, stores[1], e)
		key := newClientKey(t, "ES256", "")
		f := func(name, code string, header, m members) {
			t.Helper()
			r := e.tokenWith("other", webSecret, clientCredentials, "DPoP", e.proof(key, "POST", "/oauth/token", header, m))
			if code == "" && r.status != 200 || code != "" && (r.status != 400 || r.str("error") != code) {
				t.Errorf("%s: %d %s", name, r.status, r.body)
			}
		}
		f("right", "", nil, nil)
		const invalid = "invalid_dpop_proof"
		f("htm", invalid, nil, members{"htm": "GET"})
		f("htu", invalid, nil, members{"htu": "https://evil.example.com/oauth/token"})
		f("htu of another endpoint", invalid, nil, members{"htu": e.config.Issuer + "/oauth/par"})
		f("ath without a token", invalid, nil, members{"ath": "x"})
		f("typ", invalid, members{"typ": "JWT"}, nil)
		f("alg", invalid, members{"alg": "HS256"}, nil)
		f("iat behind", invalid, nil, members{"iat": e.clock.now().Add(-62 * time.Second).Unix()})
		f("iat ahead", invalid, nil, members{"iat": e.clock.now().Add(62 * time.Second).Unix()})
		f("private key", invalid, members{"jwk": merge(key.public(t), members{"d": strings.Repeat("A", 43)})}, nil)

		proof := e.proof(key, "POST", "/oauth/token", nil, nil)
		r := e.tokenWith("other", webSecret, clientCredentials, "DPoP", proof).want(t, 200, "")
		if r.str("token_type") != "DPoP" || len(confirmation(t, r)["jkt"].(string)) != 43 {
			t.Errorf("answer %s", r.body)
		}
		for _, at := range []*env{e, other} {
			at.tokenWith("other", webSecret, clientCredentials, "DPoP", proof).want(t, 400, invalid)
		}
		e.tokenWith("other", webSecret, clientCredentials, "DPoP", e.proof(key, "POST", "/oauth/token", nil, nil),
			"DPoP", e.proof(key, "POST", "/oauth/token", nil, nil)).want(t, 400, invalid)
	})
}

func merge(a, b members) members {
	m := maps.Clone(a)
	maps.Copy(m, b)
	return m
}

func TestOAuth50_NoncesAreDemandedAndSharedByReplicas(t *testing.T) {
	demand := func(c *authserver.Config) { c.DPoPNonce = true }
	stores := openStores(t, tables.SQLite(t), 2)
	e := startOn(t, stores[0], nil, demand)
	other := startOn(t, stores[1], e, demand)
	key := newClientKey(t, "EdDSA", "")
	try := func(at *env, nonce any) reply {
		return at.tokenWith("other", webSecret, clientCredentials, "DPoP", e.proof(key, "POST", "/oauth/token", nil, members{"nonce": nonce}))
	}
	r := try(e, nil).want(t, 400, "use_dpop_nonce")
	nonce := r.header.Get("DPoP-Nonce")
	if nonce == "" {
		t.Fatal("no nonce")
	}
	if r := try(other, nonce).want(t, 200, ""); r.header.Get("DPoP-Nonce") == "" {
		t.Error("a good answer brings no nonce for the next proof")
	}
	try(e, "made up").want(t, 400, "use_dpop_nonce")
	e.clock.advance(10 * time.Minute)
	try(e, nonce).want(t, 400, "use_dpop_nonce")
	// Without a proof nothing changes.
	e.token("other", webSecret, clientCredentials).want(t, 200, "")
}

func TestOAuth50_BoundTokenIsWorthNothingAsBearer(t *testing.T) {
	e := start(t)
	key, thief := newClientKey(t, "ES256", ""), newClientKey(t, "ES256", "")
	b := e.browser()
	got := e.tokenWith("web", webSecret, redemption(b.mustCode(request())), "DPoP", e.proof(key, "POST", "/oauth/token", nil, nil)).want(t, 200, "")
	token := got.str("access_token")
	ath := members{"ath": challenge(token)}
	info := func(scheme string, header ...string) reply {
		return e.get("/oauth/userinfo", append([]string{"Authorization", scheme + " " + token}, header...)...)
	}
	info("DPoP", "DPoP", e.proof(key, "GET", "/oauth/userinfo", nil, ath)).want(t, 200, "")
	f := func(name, code string, r reply) {
		t.Helper()
		challenge := r.header.Get("WWW-Authenticate")
		if r.status != 401 || !strings.HasPrefix(challenge, "DPoP ") || !strings.Contains(challenge, `error="`+code+`"`) || !strings.Contains(challenge, `algs="ES256 `) {
			t.Errorf("%s: %d %q", name, r.status, challenge)
		}
	}
	f("as Bearer", "invalid_token", info("Bearer"))
	f("without a proof", "invalid_dpop_proof", info("DPoP"))
	f("proof without ath", "invalid_dpop_proof", info("DPoP", "DPoP", e.proof(key, "GET", "/oauth/userinfo", nil, nil)))
	f("of another key", "invalid_token", info("DPoP", "DPoP", e.proof(thief, "GET", "/oauth/userinfo", nil, ath)))
	f("for another method", "invalid_dpop_proof", info("DPoP", "DPoP", e.proof(key, "POST", "/oauth/userinfo", nil, ath)))

	told := e.post("/oauth/introspect", "rs", webSecret, form("token", token)).want(t, 200, "")
	cnf, _ := told.json["cnf"].(map[string]any)
	if told.str("token_type") != "DPoP" || cnf["jkt"] != confirmation(t, got)["jkt"] {
		t.Errorf("introspection %s", told.body)
	}
	// A bearer token does not become more by a proof.
	bearer := e.grant().str("access_token")
	r := e.get("/oauth/userinfo", "Authorization", "DPoP "+bearer, "DPoP", e.proof(key, "GET", "/oauth/userinfo", nil, members{"ath": challenge(bearer)}))
	f("bearer token as DPoP", "invalid_token", r)
}

func TestOAuth31_CodeIsBoundToAKey(t *testing.T) {
	e := start(t)
	key, thief := newClientKey(t, "ES256", ""), newClientKey(t, "ES256", "")
	r := e.tokenWith("other", webSecret, clientCredentials, "DPoP", e.proof(key, "POST", "/oauth/token", nil, nil)).want(t, 200, "")
	jkt, _ := confirmation(t, r)["jkt"].(string)
	redeem := func(code string, k *clientKey) reply {
		if k == nil {
			return e.redeem(code)
		}
		return e.tokenWith("web", webSecret, redemption(code), "DPoP", e.proof(*k, "POST", "/oauth/token", nil, nil))
	}
	b := e.browser()
	code := b.mustCode(request("dpop_jkt", jkt))
	redeem(code, nil).want(t, 400, "invalid_grant")
	redeem(code, &thief).want(t, 400, "invalid_grant")
	redeem(code, &key).want(t, 200, "")

	// The proof of a pushed request binds too.
	par := func(f url.Values, k clientKey) reply {
		return e.raw("POST", "/oauth/par", urlencoded, f.Encode(), "Authorization", basic("web", webSecret), "DPoP", e.proof(k, "POST", "/oauth/par", nil, nil))
	}
	uri := par(request(), key).want(t, 201, "").str("request_uri")
	code = b.mustCode(pushedRequest(uri))
	redeem(code, &thief).want(t, 400, "invalid_grant")
	redeem(code, &key).want(t, 200, "")
	par(request("dpop_jkt", jkt), thief).want(t, 400, "invalid_dpop_proof")
	b.sent(b.get(authorizeURL(request("dpop_jkt", "short"))), "invalid_request")
}

func TestOAuth51_RefreshNeedsTheSameKey(t *testing.T) {
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil)
		key, thief := newClientKey(t, "ES256", ""), newClientKey(t, "ES256", "")
		spa := []string{"client_id", "spa", "redirect_uri", "https://spa.example.com/cb"}
		code := e.browser().mustCode(request(spa...))
		with := func(k *clientKey, f url.Values) reply {
			if k == nil {
				return e.tokenWith("", "", f)
			}
			return e.tokenWith("", "", f, "DPoP", e.proof(*k, "POST", "/oauth/token", nil, nil))
		}
		got := with(&key, redemption(code, spa...)).want(t, 200, "")
		refresh := form("grant_type", "refresh_token", "client_id", "spa", "refresh_token", got.str("refresh_token"))
		with(&thief, refresh).want(t, 400, "invalid_grant")
		with(nil, refresh).want(t, 400, "invalid_grant")
		got = with(&key, refresh).want(t, 200, "") // nothing was spent
		if got.str("token_type") != "DPoP" {
			t.Errorf("answer %s", got.body)
		}
		// A client that proves who it is may change its key.
		got = e.tokenWith("web", webSecret, redemption(e.browser().mustCode(request())), "DPoP", e.proof(key, "POST", "/oauth/token", nil, nil)).want(t, 200, "")
		again := e.tokenWith("web", webSecret, form("grant_type", "refresh_token", "refresh_token", got.str("refresh_token")),
			"DPoP", e.proof(thief, "POST", "/oauth/token", nil, nil)).want(t, 200, "")
		if confirmation(t, again)["jkt"] == confirmation(t, got)["jkt"] {
			t.Error("the new token is bound to the old key")
		}
	})
}

func TestClientMayDemandBoundTokens(t *testing.T) {
	e := start(t, func(c *authserver.Config) {
		for i := range c.Declared.Clients {
			if c.Declared.Clients[i].ID == "other" {
				c.Declared.Clients[i].DPoPBound = true
			}
		}
	})
	key := newClientKey(t, "ES256", "")
	e.token("other", webSecret, clientCredentials).want(t, 400, "invalid_dpop_proof")
	e.tokenWith("other", webSecret, clientCredentials, "DPoP", e.proof(key, "POST", "/oauth/token", nil, nil)).want(t, 200, "")
}

// certificate makes a client certificate.
func certificate(t testing.TB, change func(*x509.Certificate)) (*x509.Certificate, clientKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "batch, one", Organization: []string{"Example"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, clientKey{alg: "ES256", private: key}
}

// over sends a form over a connection whose client certificate the listener
// verified.
func (e *env) over(cert *x509.Certificate, path string, f url.Values, header ...string) reply {
	e.t.Helper()
	req := httptest.NewRequest("POST", path, strings.NewReader(f.Encode()))
	req.Header.Set("Content-Type", urlencoded)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	if cert != nil {
		req.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}}}
	}
	w := httptest.NewRecorder()
	e.server.Handler().ServeHTTP(w, req)
	r := reply{status: w.Code, header: w.Header(), body: w.Body.String()}
	_ = json.Unmarshal(w.Body.Bytes(), &r.json)
	e.secret(r.str("access_token"), r.str("refresh_token"))
	return r
}

func TestMutualTLSAuthenticatesByNameOrKey(t *testing.T) {
	f := func(name string, s store.ClientSettings, change func(*x509.Certificate), ok bool) {
		t.Helper()
		cert, key := certificate(t, change)
		if s.AuthMethod == "self_signed_tls_client_auth" && s.JWKS == nil {
			s.JWKS = jwks(t, key)
		} else if s.AuthMethod == "" {
			s.AuthMethod = "tls_client_auth"
		}
		e := start(t, signingClients(s), func(c *authserver.Config) { c.MutualTLS = true })
		asked := with(clientCredentials, "client_id", "signer")
		if r := e.over(cert, "/oauth/token", asked); (r.status == 200) != ok {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
		e.over(nil, "/oauth/token", asked).want(t, 401, "invalid_client")
		e.over(nil, "/oauth/token", asked, "Client-Cert", ":"+b64url(cert.Raw)+":", "X-Client-Cert", b64url(cert.Raw)).want(t, 401, "invalid_client")
		if l := e.get("/.well-known/openid-configuration").body; !strings.Contains(l, "tls_client_auth") {
			t.Errorf("%s: not advertised", name)
		}
	}
	f("subject", store.ClientSettings{TLSSubjectDN: `CN=batch\, one,O=Example`}, nil, true)
	f("subject written with spaces", store.ClientSettings{TLSSubjectDN: `cn=batch\, one, o=Example`}, nil, true)
	f("another subject", store.ClientSettings{TLSSubjectDN: "CN=batch,O=Example"}, nil, false)
	f("part of the subject", store.ClientSettings{TLSSubjectDN: `CN=batch\, one`}, nil, false)
	f("DNS name", store.ClientSettings{TLSSANDNS: "Batch.example.com"}, func(c *x509.Certificate) { c.DNSNames = []string{"x", "batch.example.com"} }, true)
	f("another DNS name", store.ClientSettings{TLSSANDNS: "batch.example.com"}, func(c *x509.Certificate) { c.DNSNames = []string{"*.example.com"} }, false)
	f("URI", store.ClientSettings{TLSSANURI: "spiffe://example/batch"}, func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/batch"}} }, true)
	f("address", store.ClientSettings{TLSSANIP: "10.0.0.1"}, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} }, true)
	f("mail", store.ClientSettings{TLSSANEmail: "batch@example.com"}, func(c *x509.Certificate) { c.EmailAddresses = []string{"batch@example.com"} }, true)
	f("no such name", store.ClientSettings{TLSSANEmail: "batch@example.com"}, nil, false)
	f("own key", store.ClientSettings{AuthMethod: "self_signed_tls_client_auth"}, nil, true)
	f("another key", store.ClientSettings{AuthMethod: "self_signed_tls_client_auth", JWKS: jwks(t, newClientKey(t, "ES256", ""))}, nil, false)
}

func TestOAuth51_TokenIsBoundToTheCertificate(t *testing.T) {
	cert, _ := certificate(t, nil)
	stolen, _ := certificate(t, nil)
	e := start(t, func(c *authserver.Config) {
		c.MutualTLS = true
		for i := range c.Declared.Clients {
			if id := c.Declared.Clients[i].ID; id == "other" || id == "spa" {
				c.Declared.Clients[i].CertificateBound = true
			}
		}
	})
	authorization := basic("other", webSecret)
	e.over(nil, "/oauth/token", clientCredentials, "Authorization", authorization).want(t, 400, "invalid_request")
	r := e.over(cert, "/oauth/token", clientCredentials, "Authorization", authorization).want(t, 200, "")
	sum := sha256.Sum256(cert.Raw)
	if confirmation(t, r)["x5t#S256"] != b64url(sum[:]) || r.str("token_type") != "Bearer" {
		t.Errorf("answer %s", r.body)
	}
	told := e.post("/oauth/introspect", "rs", webSecret, form("token", r.str("access_token"))).want(t, 200, "")
	if told.json["cnf"].(map[string]any)["x5t#S256"] != b64url(sum[:]) {
		t.Errorf("introspection %s", told.body)
	}
	spa := []string{"client_id", "spa", "redirect_uri", "https://spa.example.com/cb"}
	r = e.over(cert, "/oauth/token", redemption(e.browser().mustCode(request(spa...)), spa...)).want(t, 200, "")
	bearer := "Bearer " + r.str("access_token")
	e.over(cert, "/oauth/userinfo", nil, "Authorization", bearer).want(t, 200, "")
	e.over(stolen, "/oauth/userinfo", nil, "Authorization", bearer).want(t, 401, "invalid_token")
	e.over(nil, "/oauth/userinfo", nil, "Authorization", bearer).want(t, 401, "invalid_token")
	refresh := form("grant_type", "refresh_token", "client_id", "spa", "refresh_token", r.str("refresh_token"))
	e.over(stolen, "/oauth/token", refresh).want(t, 400, "invalid_grant")
	e.over(cert, "/oauth/token", refresh).want(t, 200, "")
}

func TestOAuth56_TokenIsForTheResourceAskedForOnly(t *testing.T) {
	const orders, billing = "https://orders.example.com", "https://billing.example.com"
	onEachStore(t, func(t *testing.T, dsn string) {
		e := startOn(t, openStores(t, dsn, 1)[0], nil, func(c *authserver.Config) {
			for i := range c.Declared.Clients {
				switch c.Declared.Clients[i].ID {
				case "batch:1":
					c.Declared.Clients[i].Resources = []string{orders}
				case "other":
					c.Declared.Clients[i].Resources = []string{orders, billing}
				}
			}
		})
		aud := func(r reply) any { return claims(t, r.want(t, 200, "").str("access_token"), 1)["aud"] }
		// Both at sign-in, one at a time afterwards, as RFC 8707, 2.2 has it.
		f := request()
		f["resource"] = []string{orders, billing}
		got := e.redeem(e.browser().mustCode(f), "resource", orders)
		if aud(got) != orders {
			t.Errorf("aud %v", aud(got))
		}
		got = e.refresh(got.str("refresh_token"), "resource", billing)
		if aud(got) != billing {
			t.Errorf("aud %v", aud(got))
		}
		e.refresh(got.str("refresh_token"), "resource", "https://evil.example.com").want(t, 400, "invalid_target")
		e.refresh(got.str("refresh_token"), "resource", e.config.Issuer).want(t, 400, "invalid_target") // known, but not granted
		b := e.browser()
		b.sent(b.get(authorizeURL(request("resource", "https://evil.example.com"))), "invalid_target")

		// The list of a client.
		if a := aud(e.token("batch:1", bSecret, clientCredentials)); a != orders {
			t.Errorf("aud %v, want the only one of the list", a)
		}
		e.token("batch:1", bSecret, with(clientCredentials, "resource", billing)).want(t, 400, "invalid_target")
		e.token("other", webSecret, clientCredentials).want(t, 400, "invalid_target")
		if a := aud(e.token("other", webSecret, with(clientCredentials, "resource", billing))); a != billing {
			t.Errorf("aud %v", a)
		}
	})
	_, err := authserver.New(t.Context(), func() authserver.Config {
		c := start(t).config
		c.Declared.Clients[0].Resources = []string{"https://nowhere.example.com"}
		return c
	}())
	if err == nil || !strings.Contains(err.Error(), "https://nowhere.example.com") {
		t.Errorf("a resource that no route has: %v", err)
	}
}

// budget lets each key take some.
type budget struct {
	mu    sync.Mutex
	most  int
	taken map[string]int
}

func (b *budget) Take(key string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken == nil {
		b.taken = map[string]int{}
	}
	if b.taken[key]++; b.taken[key] > b.most {
		return 1500 * time.Millisecond
	}
	return 0
}

func TestOAuth58_FloodOfOneCallerIsSlowedDownAlone(t *testing.T) {
	limits := func(address, client, subject int) func(*authserver.Config) {
		return func(c *authserver.Config) {
			c.Limits = grants.Limits{Address: &budget{most: address}, Client: &budget{most: client}, Subject: &budget{most: subject}}
		}
	}
	slowed := func(r reply) {
		t.Helper()
		if r.want(t, http.StatusTooManyRequests, "temporarily_unavailable"); r.header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q", r.header.Get("Retry-After"))
		}
	}
	e := start(t, limits(1000, 2, 1000))
	for range 5 { // whoever does not know the secret cannot use up the client's share
		e.token("other", "wrong secret wrong secret wrong secret", clientCredentials).want(t, 401, "invalid_client")
	}
	for range 2 {
		e.token("other", webSecret, clientCredentials).want(t, 200, "")
	}
	slowed(e.token("other", webSecret, clientCredentials))
	e.token("batch:1", bSecret, clientCredentials).want(t, 200, "")

	e = start(t, limits(3, 1000, 1000))
	for range 3 {
		e.token("other", "wrong secret wrong secret wrong secret", clientCredentials).want(t, 401, "invalid_client")
	}
	slowed(e.token("other", webSecret, clientCredentials))

	e = start(t, limits(1000, 1000, 2))
	r := e.grant()
	r = e.refresh(r.str("refresh_token")).want(t, 200, "")
	slowed(e.refresh(r.str("refresh_token")))
}
