package authserver_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver"
)

func TestOAuth43_AccessTokensAreOfRFC9068(t *testing.T) {
	e := start(t)
	r := e.grant()
	h := claims(t, r.str("access_token"), 0)
	if h["typ"] != "at+jwt" || h["alg"] != "ES256" || h["kid"] == "" {
		t.Errorf("header %v", h)
	}
	c := claims(t, r.str("access_token"), 1)
	for _, name := range []string{"iss", "aud", "exp", "iat", "jti", "sub", "client_id", "scope", "sid", "grant", "auth_time", "acr"} {
		if c[name] == nil {
			t.Errorf("claim %s is missing", name)
		}
	}
	if c["aud"] != e.config.Issuer || c["iss"] != e.config.Issuer || !strings.HasPrefix(fmt.Sprint(c["sub"]), "usr_") {
		t.Errorf("claims %v", c)
	}
	id := claims(t, r.str("id_token"), 1)
	if claims(t, r.str("id_token"), 0)["typ"] != "JWT" || id["aud"] != "web" || id["sid"] != c["sid"] || id["sub"] != c["sub"] {
		t.Errorf("ID token %v", id)
	}
	sum := sha256.Sum256([]byte(r.str("access_token")))
	if id["at_hash"] != base64.RawURLEncoding.EncodeToString(sum[:16]) {
		t.Errorf("at_hash %v", id["at_hash"])
	}
	e.get("/oauth/userinfo", "Authorization", "Bearer "+r.str("id_token")).want(t, 401, "invalid_token")
	identity, err := e.keys.Sign("identity", "at+jwt", []byte(fmt.Sprintf(`{"iss":%q,"sub":"usr_x","aud":%q,"exp":%d,"iat":%d,"jti":"j","client_id":"web","scope":"openid"}`,
		e.config.Issuer, e.config.Issuer, time.Now().Add(time.Minute).Unix(), time.Now().Unix())))
	if err != nil {
		t.Fatal(err)
	}
	e.get("/oauth/userinfo", "Authorization", "Bearer "+identity).want(t, 401, "invalid_token")
}

func TestOAuth44_AccessTokensLiveShortAndSayNothingPersonal(t *testing.T) {
	e := start(t)
	r := e.grant("scope", "openid profile email read:orders")
	c := claims(t, r.str("access_token"), 1)
	if exp, _ := c["exp"].(float64); exp-c["iat"].(float64) != 900 || r.json["expires_in"] != float64(900) {
		t.Errorf("life %v", exp-c["iat"].(float64))
	}
	allowed := []string{"iss", "aud", "exp", "iat", "jti", "sub", "client_id", "scope", "sid", "grant", "auth_time", "acr"}
	for name := range c {
		if !slices.Contains(allowed, name) {
			t.Errorf("claim %s is not on the list", name)
		}
	}
	for _, ttl := range []time.Duration{time.Second, 61 * time.Minute} {
		bad := e.config
		bad.AccessTokenTTL = ttl
		if _, err := authserver.New(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "access_token_ttl") {
			t.Errorf("access_token_ttl %v: %v", ttl, err)
		}
	}
}

func TestOAuth45_ForgedTokensAreRefused(t *testing.T) {
	e := start(t)
	good := e.grant().str("access_token")
	parts := strings.Split(good, ".")
	b64 := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	kid := fmt.Sprint(claims(t, good, 0)["kid"])
	key, _, _, ok := e.keys.PublicKey(kid)
	if !ok {
		t.Fatal("no key")
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(secret []byte) string {
		in := b64(`{"alg":"HS256","typ":"at+jwt","kid":"`+kid+`"}`) + "." + parts[1]
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(in))
		return in + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(header string) string {
		in := b64(header) + "." + parts[1]
		sum := sha256.Sum256([]byte(in))
		r, s, err := ecdsa.Sign(rand.Reader, own, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		s.FillBytes(sig[32:])
		return in + "." + base64.RawURLEncoding.EncodeToString(sig)
	}
	f := func(name, token string) {
		t.Helper()
		e.get("/oauth/userinfo", "Authorization", "Bearer "+token).want(t, 401, "invalid_token")
		if r := e.post("/oauth/introspect", "web", webSecret, form("token", token)); r.body != `{"active":false}` {
			t.Errorf("%s: introspection says %s", name, r.body)
		}
	}
	f("none", b64(`{"alg":"none","typ":"at+jwt","kid":"`+kid+`"}`)+"."+parts[1]+".")
	f("HS256 with the PEM", hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	f("HS256 with the DER", hs256(der))
	f("ES384", b64(`{"alg":"ES384","typ":"at+jwt","kid":"`+kid+`"}`)+"."+parts[1]+"."+parts[2])
	f("no signature", parts[0]+"."+parts[1]+".")
	f("another signature", foreign(`{"alg":"ES256","typ":"at+jwt","kid":"`+kid+`"}`))
	f("own key in the header", foreign(`{"alg":"ES256","typ":"at+jwt","kid":"`+kid+`","jwk":{"kty":"EC"}}`))
	f("46: unknown kid", foreign(`{"alg":"ES256","typ":"at+jwt","kid":"../../etc/passwd"}`))
	f("46: huge kid", foreign(`{"alg":"ES256","typ":"at+jwt","kid":"`+strings.Repeat("k", 10000)+`"}`))
	f("changed claims", parts[0]+"."+b64(`{"sub":"usr_x"}`)+"."+parts[2])
	f("four parts", good+".x")
	f("60 kB", strings.Repeat("a", 60_000))
	f("empty parts", "..")

	if r := e.get("/oauth/userinfo"); r.status != 401 || r.header.Get("WWW-Authenticate") != `Bearer realm="`+e.config.Issuer+`"` {
		t.Errorf("without a token: %d %q", r.status, r.header.Get("WWW-Authenticate"))
	}
	noOpenID := e.grant("scope", "read:orders").str("access_token")
	r := e.get("/oauth/userinfo", "Authorization", "Bearer "+noOpenID).want(t, 403, "insufficient_scope")
	if !strings.Contains(r.header.Get("WWW-Authenticate"), `error="insufficient_scope"`) {
		t.Errorf("challenge %q", r.header.Get("WWW-Authenticate"))
	}
	client := e.token("other", webSecret, clientCredentials).str("access_token")
	e.get("/oauth/userinfo", "Authorization", "Bearer "+client).want(t, 403, "insufficient_scope")
}

func TestOAuth48_KeySetIsPublicCacheableAndHoldsNoPrivatePart(t *testing.T) {
	e := start(t)
	r := e.get("/oauth/jwks").want(t, 200, "")
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(r.body), &set); err != nil || len(set.Keys) == 0 {
		t.Fatalf("%v %s", err, r.body)
	}
	for _, k := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k"} {
			if k[private] != nil {
				t.Errorf("the key set holds %s", private)
			}
		}
		if k["use"] != "sig" || k["alg"] == nil || k["kid"] == nil {
			t.Errorf("key %v", k)
		}
	}
	if r.header.Get("Cache-Control") != "public, max-age=300" || r.header.Get("Pragma") != "" {
		t.Errorf("Cache-Control %q", r.header.Get("Cache-Control"))
	}
	if etag := r.header.Get("ETag"); etag == "" || e.get("/oauth/jwks", "If-None-Match", etag).status != 304 {
		t.Error("the ETag is not honoured")
	}
}

func TestOAuth49_MetadataSaysExactlyWhatWorks(t *testing.T) {
	for _, path := range []string{"", "/auth", "/a/b"} {
		e := start(t, func(c *authserver.Config) { c.Issuer += path })
		oidc := e.get(path+"/.well-known/openid-configuration").want(t, 200, "")
		rfc := e.get("/.well-known/oauth-authorization-server"+path).want(t, 200, "")
		if oidc.body != rfc.body {
			t.Errorf("%s: the documents differ", path)
		}
		if etag := oidc.header.Get("ETag"); etag == "" || etag != rfc.header.Get("ETag") ||
			e.get(path+"/.well-known/openid-configuration", "If-None-Match", `"x", W/`+etag).status != 304 {
			t.Errorf("%s: the ETag %s is not honoured", path, etag)
		}
		if oidc.str("issuer") != e.config.Issuer {
			t.Errorf("issuer %q, want %q", oidc.str("issuer"), e.config.Issuer)
		}
		for name, v := range oidc.json {
			if !strings.HasSuffix(name, "_endpoint") && name != "jwks_uri" {
				continue
			}
			place, ok := strings.CutPrefix(fmt.Sprint(v), e.url)
			if r := e.get(place); !ok || r.status == 404 {
				t.Errorf("%s is %v: %d", name, v, r.status)
			}
		}
		if l := fmt.Sprint(oidc.json["grant_types_supported"]); l != "[authorization_code refresh_token client_credentials "+deviceGrant+" "+exchangeGrant+"]" {
			t.Errorf("grants %s", l)
		}
		if l := fmt.Sprint(oidc.json["scopes_supported"]); !strings.Contains(l, "read:orders") || strings.Contains(l, "gatehouse:") {
			t.Errorf("scopes %s", l)
		}
		for _, name := range []string{"request_uri_parameter_supported", "claims_parameter_supported"} {
			if oidc.json[name] != false {
				t.Errorf("%s = %v; absent would mean something else", name, oidc.json[name])
			}
		}
		// What comes later is not there, and not advertised.
		for _, later := range []string{"nonsense"} {
			if r := e.get(path + "/oauth/" + later); r.status != 404 {
				t.Errorf("/oauth/%s: %d", later, r.status)
			}
			if strings.Contains(oidc.body, "/oauth/"+later+`"`) {
				t.Errorf("%s is advertised", later)
			}
		}
		if path != "" {
			for _, wrong := range []string{"/oauth/token", "/.well-known/openid-configuration", path + "/.well-known/oauth-authorization-server"} {
				if r := e.get(wrong); r.status != 404 {
					t.Errorf("%s answers %d though the issuer has a path", wrong, r.status)
				}
			}
		}
		patterns, err := authserver.Patterns(e.config.Issuer)
		if err != nil || !slices.Equal(patterns, []string{path + "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server" + path, path + "/oauth/"}) {
			t.Errorf("patterns %v %v", patterns, err)
		}
	}
}

func TestIssuerWithAPathWorksThroughout(t *testing.T) {
	e := start(t, func(c *authserver.Config) { c.Issuer += "/auth" })
	b := e.browser()
	b.origin = e.url
	r := b.get("/auth/oauth/authorize?" + request().Encode())
	r = b.get(r.header.Get("Location"))
	r = b.post("/auth/oauth/login", with(fields(r.body), "username", "alice", "password", password))
	r = b.get(r.header.Get("Location"))
	r = b.get(r.header.Get("Location"))
	r = b.post("/auth/oauth/consent", with(fields(r.body), "decision", "allow"))
	r = b.get(r.header.Get("Location"))
	got := e.post("/auth/oauth/token", "web", webSecret, redemption(b.code(r))).want(t, 200, "")
	if claims(t, got.str("access_token"), 1)["iss"] != e.url+"/auth" {
		t.Error("another issuer")
	}
}

func TestOAuth57_UnsafeConfigurationsDoNotStart(t *testing.T) {
	e := start(t)
	f := func(want string, change func(*authserver.Config)) {
		t.Helper()
		c := e.config
		c.Declared = declared()
		change(&c)
		if _, err := authserver.New(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %q", err, want)
		}
	}
	f("http outside loopback", func(c *authserver.Config) { c.Issuer = "http://auth.example.com" })
	f("slash", func(c *authserver.Config) { c.Issuer = "https://auth.example.com/" })
	f("lower case", func(c *authserver.Config) { c.Issuer = "https://Auth.example.com" })
	f("query", func(c *authserver.Config) { c.Issuer = "https://auth.example.com?x" })
	f("plain path", func(c *authserver.Config) { c.Issuer = "https://auth.example.com/a/../b" })
	f("https URL", func(c *authserver.Config) { c.Issuer = "" })
	f("at least 32", func(c *authserver.Config) { c.Declared.Clients[0].Secret = "x" })
	f("grace", func(c *authserver.Config) { c.RefreshGrace = 2 * time.Minute })
	f("code_ttl", func(c *authserver.Config) { c.CodeTTL = 2 * time.Minute })
	f("declared twice", func(c *authserver.Config) { c.Declared.Clients[1].ID = "web" })
	f(`grant type "password"`, func(c *authserver.Config) { c.Declared.Clients[0].Grants = []string{"password"} })
	f("not declared", func(c *authserver.Config) { c.Declared.Clients[0].Scopes = []string{"nonsense"} })
	f("means something to the server", func(c *authserver.Config) { c.Declared.Scopes = map[string]string{"openid": "x"} })
	f("argon2id", func(c *authserver.Config) { c.Declared.Users[0].PasswordHash = "$2y$10$x" })
	f("exactly one of", func(c *authserver.Config) { c.Declared.Users[0].Password = "x" })
	c := e.config
	c.Issuer, c.Insecure = "http://auth.example.com", true
	if _, err := authserver.New(t.Context(), c); err != nil {
		t.Errorf("insecure: %v", err)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	e := start(t)
	d := declared()
	d.Clients = append(d.Clients, authserver.Client{ID: "new", Secret: webSecret, Grants: []string{"client_credentials"}, Scopes: []string{"read:orders", "typo"}})
	d.Users = append(d.Users, d.Users[0])
	err := e.server.Reload(t.Context(), d)
	if err == nil || !strings.Contains(err.Error(), `"typo"`) || !strings.Contains(err.Error(), `user "alice" is declared twice`) {
		t.Fatalf("not all problems at once: %v", err)
	}
	e.token("new", webSecret, clientCredentials).want(t, 401, "invalid_client")
	d = declared()
	d.Clients = append(d.Clients, authserver.Client{ID: "new", Secret: webSecret, Grants: []string{"client_credentials"}, Scopes: []string{"new:scope"}})
	d.Scopes["new:scope"] = "Something new"
	if err := e.server.Reload(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	e.token("new", webSecret, clientCredentials).want(t, 200, "")
	if !strings.Contains(e.get("/.well-known/openid-configuration").body, "new:scope") {
		t.Error("the new scope is not advertised")
	}
	// The same id declared and stored.
	e.admin("POST", "/api/v1/clients", `{"id":"stored","grants":["client_credentials"],"scopes":["read:orders"]}`).want(t, 201, "")
	e.admin("POST", "/api/v1/users", `{"name":"stored","password":"`+password+`"}`).want(t, 201, "")
	d.Clients = append(d.Clients, authserver.Client{ID: "stored", Secret: webSecret, Grants: []string{"client_credentials"}})
	d.Users = append(d.Users, d.Users[0])
	d.Users[len(d.Users)-1].Name = "stored"
	err = e.server.Reload(t.Context(), d)
	if err == nil || !strings.Contains(err.Error(), `client "stored" is declared in the configuration and stored too`) ||
		!strings.Contains(err.Error(), `user "stored" is declared in the configuration and stored too`) {
		t.Errorf("declared and stored: %v", err)
	}
	// Gone from the file: refused, and back with the same subject.
	subject := claims(t, e.grant().str("access_token"), 1)["sub"]
	d = declared()
	d.Clients, d.Users = d.Clients[1:], d.Users[1:]
	if err := e.server.Reload(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	e.browser().get(authorizeURL(request())).page(t, 400)
	if err := e.server.Reload(t.Context(), declared()); err != nil {
		t.Fatal(err)
	}
	if again := claims(t, e.grant().str("access_token"), 1)["sub"]; again != subject {
		t.Errorf("subject %v, was %v", again, subject)
	}
}

func TestOAuth62_ClocksMayDifferByThirtySeconds(t *testing.T) {
	e := start(t)
	token := e.grant().str("access_token")
	status := func() int { return e.get("/oauth/userinfo", "Authorization", "Bearer "+token).status }
	e.clock.advance(15*time.Minute + 25*time.Second)
	if status() != 200 {
		t.Error("refused 25 s after its end")
	}
	e.clock.advance(10 * time.Second)
	if status() != 401 {
		t.Error("accepted 35 s after its end")
	}
	e.clock.advance(-16 * time.Minute) // now before it was issued
	if status() != 200 {
		t.Error("refused by a clock that is 25 s behind")
	}
	e.clock.advance(-10 * time.Second)
	if status() != 401 {
		t.Error("accepted by a clock that is 35 s behind")
	}
}
