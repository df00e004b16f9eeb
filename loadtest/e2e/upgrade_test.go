package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// previousProgram builds the gatehouse from before the newest migration of the
// schema, out of the repository's history.
func previousProgram(t *testing.T) string {
	t.Helper()
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
		return strings.TrimSpace(string(out)), err
	}
	newest, err := git("log", "-1", "--format=%H", "--diff-filter=A", "--", "authserver/store/sqlstore/migrations")
	if err != nil || newest == "" {
		servers.Missing(t, "there is no history to build an older version from: %v", err)
	}
	before, err := git("rev-parse", "--verify", newest+"^")
	if err != nil {
		servers.Missing(t, "the history does not go back to before the newest migration: %v", err)
	}
	source, path := filepath.Join(builds.dir, "previous"), filepath.Join(builds.dir, "gatehouse-previous")
	mkdir(t, source)
	for _, command := range []string{
		"git -C ../.. archive " + before + " | tar -x -C " + source,
		"cd " + source + " && go build -buildvcs=false -o " + path + " ./cmd/gatehouse",
	} {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	return path
}

var upgradeFile = template.Must(template.New("").Parse(`
store: {{.Store}}
server: {drain_delay: 0s}
authserver:
  issuer: {{.Issuer}}
  key_encryption_key: {{.KEK}}
  refresh_token: {grace: 0s}
  scopes: {read:orders: Read your orders}
  clients:
    - {id: batch, secret: {{.BatchSecret}}, grants: [client_credentials], scopes: [read:orders]}
    - {id: inspector, secret: {{.BatchSecret}}, scopes: [gatehouse:introspect]}
    - {id: web, secret: {{.WebSecret}}, redirect_uris: [{{.Callback}}], grants: [authorization_code, refresh_token], scopes: [openid, read:orders]}
  users: [{name: alice, password_hash: "{{.PasswordHash}}"}]
services: {orders: {targets: ["{{.Orders}}"]}}
routes: [{path: /orders/**, service: orders, auth: {scopes: [read:orders]}}]
`))

// TestPreviousVersionWorksOnTheMigratedSchema rolls the program forward over one
// database: the version before runs on while this one has migrated the schema,
// each goes on with what the other gave out, and the version before does not
// start again.
func TestPreviousVersionWorksOnTheMigratedSchema(t *testing.T) {
	older := previousProgram(t)
	orders := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "order") }))
	defer orders.Close()
	f := func(t *testing.T, store string, together bool) {
		kek := make([]byte, 32)
		_, _ = rand.Read(kek) // never fails
		folder := t.TempDir()
		old, fresh := newGateway(t, folder, "old"), newGateway(t, folder, "new")
		c := &cluster{issuer: old.url, folder: filepath.Join(folder, "shared")}
		mkdir(t, c.folder)
		writeFile(t, filepath.Join(c.folder, "gatehouse.yaml"), render(t, upgradeFile, map[string]string{
			"Store": store, "Issuer": c.issuer, "KEK": base64.StdEncoding.EncodeToString(kek), "BatchSecret": batchSecret,
			"WebSecret": webSecret, "Callback": callback, "PasswordHash": hashPassword(t), "Orders": orders.URL,
		}))
		old.run(t, older)
		old.awaitReady(t)
		before := c.login(t, old, "openid read:orders")
		own := old.token(t, "batch")
		if !together {
			old.stop()
		}
		fresh.run(t, program(t))
		fresh.awaitReady(t)

		fresh.call("GET", "/orders/1", before.Access).want(t, 200, "")
		fresh.call("GET", "/orders/1", own).want(t, 200, "")
		next := refreshed(t, fresh, before.Refresh)
		if together {
			next = refreshed(t, old, next.Refresh) // on the schema that it does not know
			fresh.call("GET", "/orders/1", next.Access).want(t, 200, "")
			later := c.login(t, old, "openid read:orders")
			refreshed(t, fresh, later.Refresh)
			newest := c.login(t, fresh, "openid read:orders")
			old.call("GET", "/orders/1", newest.Access).want(t, 200, "")
			refreshed(t, old, newest.Refresh)
			old.revoke(t, "web", webSecret, next.Refresh)
			if status, _ := refresh(t, fresh, next.Refresh); status != http.StatusBadRequest {
				t.Errorf("what the version before revoked is refreshed: %d", status)
			}
			old.stop()
		}
		old.process = start(t, "gateway old again", older, nil, "run", "-c", old.file)
		<-old.done
		if log := old.log.String(); !strings.Contains(log, "newer software migrated it") {
			t.Errorf("the version before starts, or does not say why it does not: %s", end(log, 500))
		}
	}
	t.Run("postgres", func(t *testing.T) { f(t, servers.Postgres(t), true) })
	t.Run("sqlite", func(t *testing.T) { f(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db"), false) })
}

func refresh(t *testing.T, g *gateway, token string) (int, tokens) {
	t.Helper()
	return g.tokenEndpoint(t, "web", webSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}})
}

func refreshed(t *testing.T, g *gateway, token string) tokens {
	t.Helper()
	status, next := refresh(t, g, token)
	if status != http.StatusOK {
		t.Fatalf("refresh at %s: %d %s", g.name, status, next.Error)
	}
	return next
}
