package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// said is an answer of a gateway.
type said struct {
	status int
	header http.Header
	// Reason is of a refusal at a route, Error of the token endpoint.
	Reason, Error string
	Token         string `json:"access_token"`
}

func ask(t *testing.T, client *http.Client, method, target string, form url.Values, fields ...string) (s said) {
	t.Helper()
	req, err := http.NewRequest(method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(fields); i += 2 {
		if fields[i] == "Host" {
			req.Host = fields[i+1]
		}
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal(body, &s) // an answer of a service is no JSON
	s.status, s.header = resp.StatusCode, resp.Header
	return s
}

func (s said) want(t *testing.T, status int, code string) said {
	t.Helper()
	if s.status != status || s.Reason+s.Error != code {
		t.Fatalf("got %d %s%s, want %d %s", s.status, s.Reason, s.Error, status, code)
	}
	return s
}

// OAUTH 51: a client's certificate reaches the token endpoint from the handshake,
// and from a balancer that may tell it, binds the token, and has to be shown again.
func TestOAuth51_CertificateOfTheHandshakeAuthenticatesAndBinds(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer backend.Close()
	ca, partners, dir := certstest.NewCA(t, "CA"), certstest.NewCA(t, "Partners"), t.TempDir()
	for _, name := range []string{"api", "shop"} {
		ca.Issue(t, certstest.Wanted{Names: []string{"localhost", name + ".example"}}).Write(t, filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	}
	partners.Write(t, filepath.Join(dir, "clients.pem"))
	ports := freePorts(t, 3)
	runProcess(t, dir, fmt.Sprintf(mtlsConfig, ports[0], ports[1], ports[2], filepath.Join(dir, "x.db"), ports[0], backend.URL, backend.URL))

	own, other := partners.Issue(t, certstest.Wanted{Names: []string{"certified"}}), partners.Issue(t, certstest.Wanted{Names: []string{"stranger"}})
	client := func(certificates ...tls.Certificate) *http.Client {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: certificates}}}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	with, without, stranger := client(own.TLS()), client(), client(other.TLS())
	issuer := fmt.Sprintf("https://localhost:%d", ports[0])
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"certified"}}
	token := func(c *http.Client, at string, fields ...string) said {
		t.Helper()
		return ask(t, c, "POST", at+"/oauth/token", form, fields...)
	}
	got := token(with, issuer).want(t, 200, "").Token
	token(without, issuer).want(t, 401, "invalid_client")
	token(stranger, issuer).want(t, 401, "invalid_client")
	told := ":" + base64.StdEncoding.EncodeToString(own.Cert.Raw) + ":"
	token(without, issuer, "Client-Cert", told).want(t, 401, "invalid_client") // only a balancer may say so
	behind, mute := fmt.Sprintf("http://127.0.0.1:%d", ports[1]), fmt.Sprintf("http://127.0.0.1:%d", ports[2])
	host := strings.TrimPrefix(issuer, "https://")
	relayed := token(without, behind, "Host", host, "Client-Cert", told).want(t, 200, "").Token
	token(without, mute, "Host", host, "Client-Cert", told).want(t, 401, "invalid_client")

	for _, bound := range []string{got, relayed} {
		bearer := []string{"Authorization", "Bearer " + bound}
		ask(t, with, "GET", issuer+"/bound", nil, bearer...).want(t, 200, "")
		ask(t, with, "GET", issuer+"/unasked", nil, bearer...).want(t, 200, "")
		ask(t, stranger, "GET", issuer+"/bound", nil, bearer...).want(t, 401, "token_binding_mismatch")
		ask(t, without, "GET", issuer+"/unasked", nil, bearer...).want(t, 401, "token_binding_mismatch")
		ask(t, without, "GET", behind+"/bound", nil, append(bearer, "Client-Cert", told)...).want(t, 200, "")
		ask(t, without, "GET", mute+"/unasked", nil, append(bearer, "Client-Cert", told)...).want(t, 401, "token_binding_mismatch")
	}
}

const replicaConfig = `
listeners: [{address: "127.0.0.1:%[1]d"}]
redis: redis://%[2]s/0
store: sqlite:%[3]s
trusted_proxies: []
authserver:
  issuer: http://localhost:%[4]d
  key_encryption_key: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
  scopes: {"read:a": Read}
  require_dpop_nonce: true
  clients: [{id: batch, secret: 0123456789012345678901234567890123456789, grants: [client_credentials], scopes: ["read:a"], dpop_bound_access_tokens: true}]
services: {a: {targets: ["%[5]s"]}}
routes: [{path: /a, service: a, auth: {scopes: ["read:a"], dpop: required}}]
`

// prover makes DPoP proofs.
type prover struct {
	key   *ecdsa.PrivateKey
	nonce string
}

func (p *prover) proof(t *testing.T, method, target, token string) string {
	t.Helper()
	public := clientJWK(t, &p.key.PublicKey, false)
	claims := jwt.MapClaims{"jti": rand.Text(), "htm": method, "htu": target, "iat": time.Now().Unix()}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if p.nonce != "" {
		claims["nonce"] = p.nonce
	}
	proof := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	proof.Header["typ"], proof.Header["jwk"] = "dpop+jwt", public
	text, err := proof.SignedString(p.key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// OAUTH 50: two gateways over one Redis and one store take a proof once between
// them, at the token endpoint and at routes, and each takes the other's nonces.
func TestOAuth50_ReplicasTakeAProofOnceAndEachOthersNonces(t *testing.T) {
	redis := servers.Redis(t)
	backend := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer backend.Close()
	state, ports := filepath.Join(t.TempDir(), "x.db"), freePorts(t, 2)
	var at []string
	var replicas []*process
	for _, port := range ports {
		replicas = append(replicas, runProcess(t, t.TempDir(), fmt.Sprintf(replicaConfig, port, redis.Addr, state, ports[0], backend.URL)))
		at = append(at, fmt.Sprintf("http://127.0.0.1:%d", port))
	}
	host := fmt.Sprintf("localhost:%d", ports[0])
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &prover{key: key}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"batch"}, "client_secret": {"0123456789012345678901234567890123456789"}}
	token := func(at, proof string) said {
		t.Helper()
		return ask(t, http.DefaultClient, "POST", at+"/oauth/token", form, "Host", host, "DPoP", proof)
	}
	endpoint := "http://" + host + "/oauth/token"
	p.nonce = token(at[0], p.proof(t, "POST", endpoint, "")).want(t, 400, "use_dpop_nonce").header.Get("DPoP-Nonce")
	proof := p.proof(t, "POST", endpoint, "")
	got := token(at[1], proof).want(t, 200, "").Token // with the nonce of the other
	for _, replica := range at {
		token(replica, proof).want(t, 400, "invalid_dpop_proof")
	}

	call := func(at, proof string) said {
		t.Helper()
		return ask(t, http.DefaultClient, "GET", at+"/a", nil, "Host", host, "Authorization", "DPoP "+got, "DPoP", proof)
	}
	target := "http://" + host + "/a"
	// A gateway waits 22 ms for Redis and goes on alone then, which it counts: a
	// busy machine makes that happen.
	rounds := 0
	eventually(t, "four proofs that both replicas know of", func() bool {
		alone := counted(t, replicas, "gateway_dpop_local_total")
		proof := p.proof(t, "GET", target, got)
		call(at[rounds%2], proof).want(t, 200, "")
		again := call(at[1-rounds%2], proof)
		if counted(t, replicas, "gateway_dpop_local_total") == alone {
			again.want(t, 401, "dpop_proof_invalid")
			rounds++
		}
		return rounds == 4
	})
	p.nonce = ""
	p.nonce = call(at[0], p.proof(t, "GET", target, got)).want(t, 401, "dpop_nonce_required").header.Get("DPoP-Nonce")
	call(at[1], p.proof(t, "GET", target, got)).want(t, 200, "")
}

// counted is the sum of a metric over processes.
func counted(t *testing.T, of []*process, name string) (sum float64) {
	t.Helper()
	for _, p := range of {
		families, err := p.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == name {
				for _, m := range family.GetMetric() {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}
