package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

const (
	batchSecret = "batch-secret-batch-secret-batch-secret"
	webSecret   = "web-secret-web-secret-web-secret-web"
	adminToken  = "admin-token-admin-token-admin-token"
	password    = "correct horse battery staple"
	callback    = "http://127.0.0.1:9/callback"
)

// gateway is one `gatehouse run`.
type gateway struct {
	*process
	addr  string // of its clients' listener
	url   string
	admin string
	file  string // its configuration
	// accesses is the file of its access log.
	accesses string
}

// cluster is two gateways over one Consul, Redis and PostgreSQL.
type cluster struct {
	consul   *servers.Server
	redis    *servers.Server
	postgres *servers.PostgresServer
	store    string // DSN
	kek      []byte
	issuer   string
	external *externalIssuer
	a, b     *gateway
	folder   string // of the configuration that both share
	orders   []*backend
}

// startCluster starts everything, and two backends of the service orders.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{consul: servers.StartConsul(t), redis: servers.Redis(t), postgres: servers.StartPostgres(t), external: newExternalIssuer(t)}
	c.store = c.postgres.Database()
	c.kek = make([]byte, 32)
	_, _ = rand.Read(c.kek) // never fails
	folder := t.TempDir()
	c.folder = filepath.Join(folder, "shared")
	c.a, c.b = newGateway(t, folder, "a"), newGateway(t, folder, "b")
	c.issuer = c.a.url
	c.writeShared(t)
	for _, g := range []*gateway{c.a, c.b} {
		g.run(t, program(t))
	}
	for i := range 2 {
		c.orders = append(c.orders, c.backend(t, "orders", i+1))
	}
	for _, g := range []*gateway{c.a, c.b} {
		g.awaitReady(t)
		g.awaitInstances(t, "orders", 2)
	}
	return c
}

var gatewayFile = template.Must(template.New("").Parse(`
include: [shared/*.yaml]
listeners: [{address: {{.Addr}}}]
admin: {address: {{.Admin}}, token: {{.Token}}}
access_log: {enabled: true, path: {{.Accesses}}}
`))

func newGateway(t *testing.T, folder, name string) *gateway {
	t.Helper()
	g := &gateway{addr: freeAddress(t), file: filepath.Join(folder, name+".yaml"), accesses: filepath.Join(folder, name+".access.log")}
	admin := freeAddress(t)
	g.url, g.admin = "http://"+g.addr, "http://"+admin
	writeFile(t, g.file, render(t, gatewayFile, map[string]string{"Addr": g.addr, "Admin": admin, "Token": adminToken, "Accesses": g.accesses}))
	t.Cleanup(func() {
		content, err := os.ReadFile(g.accesses)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		holdsNoSecret(t, "the access log of "+name, string(content))
	})
	return g
}

func render(t testing.TB, text *template.Template, v any) string {
	t.Helper()
	var b bytes.Buffer
	if err := text.Execute(&b, v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var sharedFile = template.Must(template.New("").Parse(`
store: {{.Store}}
redis: redis://{{.Redis}}/0
consul: {address: "http://{{.Consul}}"}
replicas: many
server: {drain_delay: 100ms, drain_timeout: 1m}
authserver:
  issuer: {{.Issuer}}
  key_encryption_key: {{.KEK}}
  refresh_token: {grace: 0s}
  scopes: {read:orders: Read your orders, write:orders: Place orders}
  clients:
    - {id: batch, secret: {{.BatchSecret}}, grants: [client_credentials], scopes: [read:orders, write:orders]}
    - {id: reader, secret: {{.BatchSecret}}, grants: [client_credentials], scopes: [read:orders]}
    - {id: leased, secret: {{.BatchSecret}}, grants: [client_credentials], scopes: [read:orders]}
    - {id: inspector, secret: {{.BatchSecret}}, scopes: [gatehouse:introspect]}
    - id: web
      secret: {{.WebSecret}}
      redirect_uris: [{{.Callback}}]
      grants: [authorization_code, refresh_token]
      scopes: [openid, profile, email, read:orders, write:orders]
  users: [{name: alice, password_hash: "{{.PasswordHash}}", email: alice@example.com, display_name: Alice}]
issuers:
  - {issuer: {{.External}}, audiences: [{{.Issuer}}]}
services:
  orders: {consul: {service: orders}}
  fleet: {consul: {service: fleet}}
  newcomer: {consul: {service: newcomer}}
routes:
  - {name: orders-read, path: /orders/**, methods: [GET, HEAD], service: orders, auth: {scopes: [read:orders]}}
  - {name: orders-write, path: /orders/**, methods: [POST], service: orders, auth: {scopes: [write:orders]}}
  - {name: fleet, path: /fleet/**, service: fleet, auth: {}}
  - {name: newcomer, path: /newcomer/**, service: newcomer, auth: {}}
  - {name: status, path: /status, service: orders, public: true}
  - {name: leased, path: /leased/**, service: orders, auth: {}, rate_limit: {limit: 100, per: 1s, by: client}}
  - {name: exact, path: /exact/**, service: orders, auth: {}, rate_limit: {limit: 50, per: 24h, by: client, mode: exact}}
  - {name: wide-leased, path: /wide/leased/**, service: orders, auth: {}, rate_limit: {limit: 20000, per: 1s, by: client}}
  - {name: wide-exact, path: /wide/exact/**, service: orders, auth: {}, rate_limit: {limit: 20000, per: 1s, by: client, mode: exact}}
`))

func (c *cluster) writeShared(t testing.TB) {
	t.Helper()
	mkdir(t, c.folder)
	writeFile(t, filepath.Join(c.folder, "gatehouse.yaml"), render(t, sharedFile, map[string]string{
		"Store": c.store, "Redis": c.redis.Addr, "Consul": c.consul.Addr, "Issuer": c.issuer,
		"KEK":         base64.StdEncoding.EncodeToString(c.kek),
		"BatchSecret": batchSecret, "WebSecret": webSecret, "Callback": callback, "PasswordHash": hashPassword(t),
		"External": c.external.url,
	}))
}

// hashPassword has the program hash the user's password, which costs less once
// than at every reload.
func hashPassword(t testing.TB) string {
	t.Helper()
	c := exec.Command(program(t), "hash-password")
	c.Stdin = strings.NewReader(password + "\n")
	out, err := c.Output()
	if err != nil {
		t.Fatalf("hash-password: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// extra is a file that both gateways include besides the shared one.
func (c *cluster) extra(name string) string { return filepath.Join(c.folder, name+".yaml") }

func (g *gateway) run(t testing.TB, path string) {
	t.Helper()
	g.process = start(t, "gateway "+filepath.Base(g.file), path, nil, "run", "-c", g.file)
}

func (g *gateway) awaitReady(t testing.TB) {
	t.Helper()
	eventually(t, "gateway ready", func() bool {
		if g.ended() {
			t.Fatalf("the gateway ended: %s", g.log)
		}
		status, _ := fetch(g.admin + "/readyz")
		return status == http.StatusOK
	})
}

// awaitInstances waits until the gateway knows n instances of a service.
func (g *gateway) awaitInstances(t testing.TB, service string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d instances of %s", n, service), func() bool {
		v, ok := g.metric(t, `gateway_discovery_instances{service="`+service+`",tag=""}`)
		return ok && v == float64(n)
	})
}

// metric reads one metric, written as Prometheus does, off the gateway.
func (g *gateway) metric(t testing.TB, name string) (float64, bool) {
	t.Helper()
	status, body := fetch(g.admin + "/metrics")
	if status != http.StatusOK {
		t.Fatalf("metrics: %d %s", status, body)
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v, true
		}
	}
	return 0, false
}

// backend is one `gatehouse demo-backend`.
type backend struct {
	*process
	id   string
	addr string
}

// backend starts an instance that registers itself in Consul.
func (c *cluster) backend(t testing.TB, service string, n int) *backend {
	t.Helper()
	return startBackend(t, service, n, "http://"+c.consul.Addr)
}

// startBackend starts an instance; without a registry it registers nowhere.
func startBackend(t testing.TB, service string, n int, registry string) *backend {
	t.Helper()
	b := &backend{id: service + "-" + strconv.Itoa(n), addr: freeAddress(t)}
	b.process = start(t, "backend "+b.id, program(t), nil,
		"demo-backend", "--service", service, "--id", b.id, "--listen", b.addr, "--registry", registry)
	eventually(t, "backend "+b.id+" answers", func() bool {
		status, _ := fetch("http://" + b.addr + "/healthz")
		return status == http.StatusOK
	})
	return b
}

// arrival is a line of a backend's log.
type arrival struct {
	Time   time.Time `json:"time"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
}

// arrivals is what reached the backend so far.
func (b *backend) arrivals(t testing.TB) (list []arrival) {
	t.Helper()
	for line := range strings.Lines(b.out.String()) {
		var a arrival
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			if strings.HasSuffix(line, "\n") {
				t.Fatalf("log of %s: %q: %v", b.id, line, err)
			}
			continue // half a line, for it was killed or is writing
		}
		list = append(list, a)
	}
	return list
}
