package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gatehouse/gatehouse/authserver/keys"
)

const operateToken = "operators-token-operators-token-0123"

// running is a gatehouse in this process for tests of what operators do.
type running struct {
	admin, issuer, dsn, config string
	accesses                   string // file of the access log; "": off
	logs                       *lockedBuffer
}

// startGatehouse runs a gatehouse on a database until the test ends, or until
// stop is called.
func startGatehouse(t *testing.T, dsn, kek string) (r running, stop func()) {
	t.Helper()
	for range 5 { // another process may take a port first
		var err error
		if r, stop, err = tryGatehouse(t, dsn, kek); err == nil {
			return r, stop
		} else if !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
	t.Fatal("no free port")
	return r, stop
}

func tryGatehouse(t *testing.T, dsn, kek string) (running, func(), error) {
	t.Helper()
	var gateway, admin string
	if err := freeAddress(18080, &gateway); err != nil {
		return running{}, nil, err
	}
	if err := freeAddress(19901, &admin); err != nil {
		return running{}, nil, err
	}
	r := running{admin: "http://" + admin, issuer: "http://" + gateway, dsn: dsn, logs: &lockedBuffer{}}
	r.config = filepath.Join(t.TempDir(), "gatehouse.yaml")
	text := fmt.Sprintf(`
listeners: [{address: %q}]
admin: {address: %q, token: %s}
store: %q
authserver:
  issuer: %s
  key_encryption_key: %s
  scopes: {"read:orders": Read your orders}
  client_registration: {scopes: [openid]}
  smtp: {address: "127.0.0.1:1", from: a@example.com, tls: none} # nobody is there: mail waits
  clients:
    - {id: batch, secret: batch-secret-batch-secret-batch-secret, grants: [client_credentials], scopes: ["read:orders"]}
    - {id: deployer, secret: deployer-secret-deployer-secret-deployer, grants: [client_credentials], scopes: ["gatehouse:admin"]}
    - {id: auditor, secret: auditor-secret-auditor-secret-auditor-se, grants: [client_credentials], scopes: ["gatehouse:read"]}
  users:
    - {name: declared, password: a declared password}
services: {orders: {targets: ["http://127.0.0.1:1"]}}
routes: [{path: /orders/**, service: orders, auth: {scopes: ["read:orders"]}}]
`, gateway, admin, operateToken, dsn, r.issuer, kek)
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		return r, nil, err
	}
	file, err := load(r.config, false)
	if err != nil {
		return r, nil, err
	}
	p, err := newProcess(t.Context(), file, true, slog.New(slog.NewJSONHandler(r.logs, nil)))
	if err != nil {
		return r, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	eventually(t, "the gatehouse is ready", func() bool {
		resp, err := http.Get(r.admin + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return r, stop, nil
}

// command runs a command as a user would and returns its output.
func (r running) command(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command("gatehouse", args...)
	cmd.Env = append(os.Environ(), "GATEHOUSE_ADMIN="+r.admin, "GATEHOUSE_ADMIN_TOKEN="+operateToken)
	cmd.Stdin = strings.NewReader(stdin)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("gatehouse %s: %v: %s", strings.Join(args, " "), err, &problems)
	}
	return out.String()
}

// TestOperateScripts runs testdata/operate, and then testdata/everything, over one
// running gatehouse. The scripts of a folder run side by side.
func TestOperateScripts(t *testing.T) {
	kek := keys.NewKekText()
	r, _ := startGatehouse(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db"), kek)
	scripts := func(dir string) {
		t.Run(dir, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir: filepath.Join("testdata", dir),
				Setup: func(env *testscript.Env) error {
					env.Setenv("GATEHOUSE_ADMIN", r.admin)
					env.Setenv("GATEHOUSE_ADMIN_TOKEN", operateToken)
					env.Setenv("ISSUER", r.issuer)
					env.Setenv("CONFIG", r.config)
					return nil
				},
				Cmds: operateCommands,
			})
		})
	}
	scripts("operate")
	scripts("everything") // after the others, whose tokens it revokes
	wantNoSecret(t, r)
}

var operateCommands = map[string]func(*testscript.TestScript, bool, []string){
	"exits": exits,
	// refused WORD…: a command that is refused soon, for its token was revoked.
	"refused": func(ts *testscript.TestScript, _ bool, args []string) {
		for end := time.Now().Add(30 * time.Second); ts.Exec(args[0], args[1:]...) == nil; {
			if time.Now().After(end) {
				ts.Fatalf("still admitted")
			}
		}
	},
	// keep NAME PATTERN: the first group in the output is $NAME from now on.
	"keep": func(ts *testscript.TestScript, _ bool, args []string) {
		found := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout"))
		if len(found) < 2 {
			ts.Fatalf("no %s in the output", args[1])
		}
		ts.Setenv(args[0], found[1])
	},
	// write FILE WORD…: a file with these words, for stdin.
	"write": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(args[1:], " ")+"\n"), 0o600))
	},
	// registers TOKEN: a client is registered with an initial access token.
	"registers": func(ts *testscript.TestScript, neg bool, args []string) {
		req, err := http.NewRequest(http.MethodPost, ts.Getenv("ISSUER")+"/oauth/register", strings.NewReader(`{"redirect_uris":["https://new.example.com/cb"]}`))
		ts.Check(err)
		req.Header.Set("Authorization", "Bearer "+args[0])
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		ts.Check(err)
		resp.Body.Close()
		if (resp.StatusCode == http.StatusCreated) == neg {
			ts.Fatalf("registration answers %s", resp.Status)
		}
	},
	// token CLIENT SECRET [SCOPE]: an access token is $TOKEN from now on.
	"token": func(ts *testscript.TestScript, neg bool, args []string) {
		token, err := accessToken(http.DefaultClient, ts.Getenv("ISSUER"), args[0], args[1], strings.Join(args[2:], " "))
		if (err == nil) == neg {
			ts.Fatalf("the token endpoint: %v", err)
		}
		ts.Setenv("TOKEN", token)
	},
}

// accessToken has a client get a token in its own name.
func accessToken(over *http.Client, issuer, client, secret, scope string) (string, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if scope != "" {
		form.Set("scope", scope)
	}
	req, err := http.NewRequest(http.MethodPost, issuer+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth(client, secret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := over.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
		return "", fmt.Errorf("it answers %s: %w", resp.Status, err)
	}
	return answer.Token, nil
}

// madeSecret matches what is a secret by its form: JWTs, hashes of passwords,
// refresh tokens and secrets that the server made.
var madeSecret = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{10,}\.eyJ|\$argon2id\$|gh[a-z]_[A-Za-z0-9_-]{20,}`)

// wantNoSecret looks for secrets, those of operate's configuration and more, in
// everything that was logged, counted or audited (OAUTH 59).
func wantNoSecret(t *testing.T, r running, more ...string) {
	t.Helper()
	resp, err := http.Get(r.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	kek, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	sealed := regexp.MustCompile(`key_encryption_key: (\S+)`).FindSubmatch(kek)[1]
	if _, err := base64.StdEncoding.DecodeString(string(sealed)); err != nil {
		t.Fatal(err)
	}
	places := map[string]string{
		"log": r.logs.String(), "metrics": string(metrics), "audit": r.command(t, "", "audit", "export"),
	}
	if r.accesses != "" {
		places["access log"] = mustRead(t, r.accesses)
	}
	for place, text := range places {
		if text == "" {
			t.Errorf("the %s is empty", place)
		}
		if found := madeSecret.FindString(text); found != "" {
			t.Errorf("a secret (%.8s…) is in the %s", found, place)
		}
		for _, secret := range append(more, operateToken, "batch-secret", "deployer-secret", "auditor-secret", "a declared password", "correct horse", string(sealed)) {
			if strings.Contains(text, secret) {
				t.Errorf("the secret %.6s… is in the %s", secret, place)
			}
		}
	}
}
