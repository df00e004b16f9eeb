package edge

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// issuer makes tokens with whatever claims a test wants, and has a gateway of
// its own that trusts it.
type issuer struct {
	key    *ecdsa.PrivateKey
	url    string
	gw     *rig.Gateway
	origin *rig.Origin
}

const audience = "https://api.test"

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	return newIssuerOf(t, func(p *issuer) rig.Options {
		return rig.Options{Listeners: []string{"{address: 127.0.0.1:@PORT1@, protocol: h2c}"}, Config: fmt.Sprintf(`
server: {drain_delay: 1ms}
issuers: [{issuer: %q, jwks_uri: %q, audiences: [%q]}]
services: {a: {targets: ["http://%s"]}}
routes: [{path: /**, service: a, auth: {scopes: [read]}}]
`, p.url, p.url+"/jwks", audience, p.origin.Addr)}
	})
}

// newIssuerOf is newIssuer with another configuration of the gateway.
func newIssuerOf(t *testing.T, options func(*issuer) rig.Options) *issuer {
	t.Helper()
	p := &issuer{}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	point, err := p.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	jwks := fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"k","x":%q,"y":%q}]}`, encode(point[1:33]), encode(point[33:]))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(jwks))
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	if p.origin, err = rig.NewOrigin(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.origin.Close)
	p.gw = rig.Run(t, options(p))
	return p
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// token is an access token with these claims, and with those that it lacks to be
// a valid one.
func (p *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	for k, v := range map[string]any{"iss": p.url, "aud": audience, "iat": now, "exp": now + 600, "jti": rand.Text()} {
		if _, set := claims[k]; !set {
			claims[k] = v
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed := encode([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"k"}`)) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, p.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// get calls the protected route and returns the origin, which forgot whatever
// came before.
func (p *issuer) get(t *testing.T, token, fields string) *rig.Origin {
	t.Helper()
	p.origin.Reset(rig.Always(rig.OK))
	a := rig.Dial(t, p.gw.Addr).Ask("GET", "GET /a HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer "+token+"\r\n"+fields+"\r\n")
	if a.Status != 200 && a.Status != 401 && a.Status != 403 {
		t.Errorf("got %q%q", a.Head, a.Body)
	}
	return p.origin
}
