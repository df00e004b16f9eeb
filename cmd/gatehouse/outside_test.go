package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"golang.org/x/crypto/argon2"

	"github.com/gatehouse/gatehouse/gateway/certs/certstest"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// The promises here are those of clients that others wrote, unmodified, against
// a whole gatehouse over TLS: see tools/clients.

const outsideClients = "../../tools/clients"

// outsideConfig demands a nonce of every DPoP proof, so that every flow with
// proofs goes through the demand.
const outsideConfig = `
listeners:
  - address: 127.0.0.1:%[1]d
    tls: {cert: api.crt, key: api.key, client_ca: clients.pem, client_auth: request}
admin: {address: "127.0.0.1:%[2]d", token: %[3]s}
access_log: {enabled: true, path: %[11]s}
store: sqlite:%[4]s
authserver:
  issuer: https://localhost:%[1]d
  key_encryption_key: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=
  scopes: {"read:orders": Read your orders, "write:orders": Place orders}
  require_dpop_nonce: true
  fetch_networks: [127.0.0.0/8]
  client_registration: {scopes: [openid, "read:orders"]}
  clients:
    - id: web
      secret: &secret 0123456789012345678901234567890123456789
      grants: &people [authorization_code, refresh_token]
      scopes: &all [openid, profile, email, offline_access, "read:orders", "write:orders"]
      redirect_uris: &back ["https://app.example.com/callback"]
      post_logout_redirect_uris: ["https://app.example.com/bye"]
      backchannel_logout_uri: %[5]s/logout
    - id: signer
      token_endpoint_auth_method: private_key_jwt
      jwks: &keys {keys: [%[6]s]}
      grants: [authorization_code, refresh_token, client_credentials]
      scopes: *all
      redirect_uris: *back
    - id: fapi
      token_endpoint_auth_method: private_key_jwt
      jwks: *keys
      grants: [authorization_code, refresh_token, client_credentials]
      scopes: *all
      redirect_uris: *back
      require_par: true
      dpop_bound_access_tokens: true
    - {id: tv, name: TV, grants: [device_code, refresh_token], scopes: *all}
    - {id: rs, secret: *secret, scopes: ["gatehouse:introspect"]}
    - {id: exchanger, secret: *secret, grants: [token-exchange], scopes: ["read:orders"], exchange: {subject_tokens_from: [web]}}
    - id: certified
      token_endpoint_auth_method: tls_client_auth
      tls_client_auth_subject_dn: CN=certified
      tls_client_certificate_bound_access_tokens: true
      grants: [client_credentials]
      scopes: ["read:orders"]
    - id: self-signed
      token_endpoint_auth_method: self_signed_tls_client_auth
      jwks: {keys: [%[7]s]}
      tls_client_certificate_bound_access_tokens: true
      grants: [client_credentials]
      scopes: ["read:orders"]
    - id: spa
      grants: *people
      scopes: *all
      redirect_uris: ["http://127.0.0.1:%[8]d/callback", "http://127.0.0.1:%[8]d/silent"]
      post_logout_redirect_uris: ["http://127.0.0.1:%[8]d/bye"]
  users: [{name: alice, email: alice@example.com, password_hash: "%[9]s"}]
services: {orders: {targets: ["%[10]s"]}}
routes:
  - {path: /orders/**, service: orders, auth: {scopes: ["read:orders"]}, cors: {origins: ["http://127.0.0.1:%[8]d"], headers: [Authorization]}}
  - {path: /proven, service: orders, auth: {scopes: ["read:orders"], dpop: required}, cors: {origins: ["http://127.0.0.1:%[8]d"], headers: [Authorization, DPoP], expose: [DPoP-Nonce, WWW-Authenticate]}}
  - {path: /certified, service: orders, auth: {scopes: ["read:orders"], mtls: required}}
`

const outsidePassword = "correct horse battery staple"

// cheapHash is of a password, at a cost that tests can pay often.
func cheapHash(password string) string {
	salt := []byte("salt for testing")
	b64 := base64.RawStdEncoding
	return "$argon2id$v=19$m=64,t=1,p=1$" + b64.EncodeToString(salt) + "$" + b64.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 64, 1, 32))
}

// outside is a gatehouse with what its clients have to know.
type outside struct {
	running
	dir string
	// application is where the browser's one is, once it is started.
	application *httptest.Server
	given       map[string]any
}

func startOutside(t *testing.T) *outside {
	t.Helper()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) }))
	t.Cleanup(backend.Close)
	told := receiveLogouts(t)
	application := httptest.NewUnstartedServer(nil)
	t.Cleanup(application.Close)
	dir, ports := t.TempDir(), freePorts(t, 2)
	file := func(name string) string { return filepath.Join(dir, name) }
	ca, partners := certstest.NewCA(t, "CA"), certstest.NewCA(t, "Partners")
	ca.Issue(t, certstest.Wanted{Names: []string{"localhost"}}).Write(t, file("api.crt"), file("api.key"))
	ca.Write(t, file("ca.pem"))
	partners.Issue(t, certstest.Wanted{Names: []string{"certified"}}).Write(t, file("certified.crt"), file("certified.key"))
	self := certstest.SelfSigned(t, certstest.Wanted{Names: []string{"self-signed"}})
	self.Write(t, file("self.crt"), file("self.key"))
	// A certificate that nobody issued is believed because it is in the file.
	selfPEM, _ := self.PEM(t)
	if err := os.WriteFile(file("clients.pem"), append(partners.PEM(), selfPEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text := func(k any) string {
		raw, err := json.Marshal(k)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	o := &outside{dir: dir, application: application, running: running{
		admin: fmt.Sprintf("http://127.0.0.1:%d", ports[1]), issuer: fmt.Sprintf("https://localhost:%d", ports[0]),
		config: file("gatehouse.yaml"), accesses: file("access.log"), logs: &lockedBuffer{},
	}}
	runLogged(t, dir, fmt.Sprintf(outsideConfig, ports[0], ports[1], operateToken, file("state.db"), told,
		text(clientJWK(t, key, false)), text(clientJWK(t, self.Cert.PublicKey, false)), application.Listener.Addr().(*net.TCPAddr).Port, cheapHash(outsidePassword), backend.URL, o.accesses), o.logs)
	const secret = "0123456789012345678901234567890123456789"
	o.given = map[string]any{
		"issuer": o.issuer, "api": o.issuer, "told": told, "callback": "https://app.example.com/callback",
		"bye": "https://app.example.com/bye", "user": []string{"alice", outsidePassword}, "key": clientJWK(t, key, true),
		"clients":      map[string]string{"web": secret, "rs": secret, "exchanger": secret},
		"certificates": map[string][]string{"certified": {file("certified.crt"), file("certified.key")}, "self-signed": {file("self.crt"), file("self.key")}},
	}
	var initial struct{ Token string }
	if err := json.Unmarshal([]byte(o.command(t, "", "client", "registration-token", "add", "--uses", "5", "-o", "json")), &initial); err != nil {
		t.Fatal(err)
	}
	o.given["initial"] = initial.Token
	return o
}

// receiveLogouts is an application's back-channel logout endpoint, which shows
// what it was sent.
func receiveLogouts(t *testing.T) (url string) {
	t.Helper()
	var mu sync.Mutex
	tokens := []string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method == http.MethodPost {
			tokens = append(tokens, r.PostFormValue("logout_token"))
			return
		}
		_ = json.NewEncoder(w).Encode(tokens)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// clientJWK is a key of a client.
func clientJWK(t *testing.T, key any, private bool) jwkset.JWKMarshal {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{
		Marshal: jwkset.JWKMarshalOptions{Private: private}, Metadata: jwkset.JWKMetadataOptions{KID: "client-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return jwk.Marshal()
}

// flows are what a client has to do; a script may do more.
var flows = []string{
	"discovery", "code", "refresh", "client credentials", "private_key_jwt", "pushed request", "signed request",
	"signed and pushed request", "DPoP", "mutual TLS", "device", "token exchange", "introspection", "signed introspection",
	"revocation", "registration", "logout",
}

// runFlows has a script of tools/clients run every flow against one gatehouse,
// makes each a subtest, and looks for what the flows kept secret in all logs
// (OAUTH 59).
func runFlows(t *testing.T, script string) {
	node := servers.Need(t, "node", "node")
	if _, err := os.Stat(filepath.Join(outsideClients, "node_modules", "oauth4webapi")); err != nil {
		servers.Missing(t, "the npm clients are not installed: npm ci in tools/clients: %v", err)
	}
	o := startOutside(t)
	given, err := json.Marshal(o.given)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, script, string(given))
	cmd.Dir, cmd.Env = outsideClients, append(os.Environ(), "NODE_EXTRA_CA_CERTS="+filepath.Join(o.dir, "ca.pem"))
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", script, err, out, &problems)
	}
	went, secrets := map[string]string{}, []string(nil)
	for line := range bytes.Lines(out) {
		var said struct {
			Flow, Error string
			Secrets     []string
		}
		if err := json.Unmarshal(line, &said); err != nil {
			t.Fatalf("%s says %q", script, line)
		}
		if said.Flow != "" {
			went[said.Flow] = said.Error
		}
		secrets = append(secrets, said.Secrets...)
	}
	for _, flow := range flows {
		t.Run(flow, func(t *testing.T) {
			if problem, ran := went[flow]; !ran || problem != "" {
				t.Errorf("it ran: %v %s", ran, problem)
			}
		})
	}
	if t.Failed() {
		t.Log(problems.String())
	}
	if len(secrets) < 50 {
		t.Errorf("only %d secrets were seen", len(secrets))
	}
	wantNoSecret(t, o.running, append(secrets, outsidePassword)...)
}

func TestOutsideOpenIDClient(t *testing.T) { runFlows(t, "openid-client-flows.mjs") }

func TestOutsideOAuth4WebAPI(t *testing.T) { runFlows(t, "oauth4webapi-flows.mjs") }
