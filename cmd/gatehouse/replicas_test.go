package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/authserver/keys"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// replica runs another process of r: the same file, but for its addresses. It
// returns where it listens.
func (r running) replica(t *testing.T) (addr string) {
	t.Helper()
	for range 5 { // another process may take a port first
		p, addr, err := r.another(t)
		if err != nil && strings.Contains(err.Error(), "address already in use") {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		eventually(t, "the replica is ready", p.ready.Load)
		return addr
	}
	t.Fatal("no free port")
	return ""
}

func (r running) another(t *testing.T) (p *process, addr string, err error) {
	t.Helper()
	var admin string
	if err := errors.Join(freeAddress(18280, &addr), freeAddress(19701, &admin)); err != nil {
		return nil, "", err
	}
	text, err := os.ReadFile(r.config)
	if err != nil {
		return nil, "", err
	}
	own := func(base string) string { return `address: "` + strings.TrimPrefix(base, "http://") + `"` }
	changed := strings.NewReplacer(own(r.issuer), own(addr), own(r.admin), own(admin)).Replace(string(text))
	config := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(config, []byte(changed), 0o600); err != nil {
		return nil, "", err
	}
	file, err := load(config, false)
	if err != nil {
		return nil, "", err
	}
	p, err = newProcess(t.Context(), file, true, slog.New(slog.DiscardHandler))
	return p, addr, err
}

func TestRevokedTokenIsInactiveOnEveryReplica(t *testing.T) {
	f := func(name string, dsn func() string) {
		t.Run(name, func(t *testing.T) {
			r, _ := startGatehouse(t, dsn(), keys.NewKekText())
			first, second := strings.TrimPrefix(r.issuer, "http://"), r.replica(t)
			ask := func(addr, path string, form url.Values) map[string]any {
				t.Helper()
				req, err := http.NewRequest(http.MethodPost, "http://"+addr+path, strings.NewReader(form.Encode()))
				if err != nil {
					t.Fatal(err)
				}
				req.Host = first
				req.SetBasicAuth("batch", "batch-secret-batch-secret-batch-secret")
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				var answer map[string]any
				if resp.StatusCode != http.StatusOK {
					t.Fatalf("%s%s: %s", addr, path, resp.Status)
				}
				_ = json.NewDecoder(resp.Body).Decode(&answer) // a revocation has no content
				return answer
			}
			token, _ := ask(first, "/oauth/token", url.Values{"grant_type": {"client_credentials"}})["access_token"].(string)
			active := func(addr string) bool {
				return ask(addr, "/oauth/introspect", url.Values{"token": {token}})["active"] == true
			}
			if !active(first) || !active(second) {
				t.Fatal("a live token is not active")
			}
			ask(first, "/oauth/revoke", url.Values{"token": {token}})
			if active(first) {
				t.Error("the replica that revoked the token says that it is active")
			}
			eventually(t, "the other replica knows of it", func() bool { return !active(second) })
		})
	}
	f("sqlite", func() string { return "sqlite:" + filepath.Join(t.TempDir(), "state.db") })
	f("postgres", func() string { return servers.Postgres(t) })
}
