// Package configs holds the samples that users start from. It owns no code but
// this test: every sample loads and builds, with the environment and the secret files that
// it names, and without a warning.
package configs

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins/all"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/breaker"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/retry"
	"github.com/gatehouse/gatehouse/routes"
)

// environment is what the samples expect of the process.
var environment = map[string]string{
	"ADMIN_TOKEN":   strings.Repeat("a", 32),
	"BATCH_SECRET":  strings.Repeat("b", 32),
	"DATABASE_URL":  "postgres://gatehouse:secret@127.0.0.1/gatehouse",
	"GATEHOUSE_KEK": base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))),
}

// files are the secrets and certificates that stand beside the samples.
var files = map[string]string{
	"secrets/kek":            base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32))) + "\n",
	"secrets/billing-batch":  strings.Repeat("s", 40) + "\n",
	"secrets/alice.argon2id": "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21l$RdescudvJCsgt3ub+b4dWRWJTmaaJObG\n",
	"secrets/tickets":        strings.Repeat("t", 40) + "\n",
	"tls/api.crt":            "certificate",
	"tls/api.key":            "key",
	"tls/partners.crt":       "certificate",
	"tls/partners.key":       "key",
	"tls/clients.pem":        "certificate",
}

// copySamples puts the samples and what they need into a new folder.
func copySamples(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"*.yaml", "teams/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			put(name, data)
		}
	}
	for name, text := range files {
		put(name, []byte(text))
	}
	return dir
}

func TestEverySampleLoads(t *testing.T) {
	dir := copySamples(t)
	samples, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(samples) < 2 {
		t.Fatal(samples, err)
	}
	env := func(name string) (string, bool) {
		value, ok := environment[name]
		return value, ok
	}
	steps := all.All(all.Deps{
		Auth: auth.New(auth.Config{}), RateLimit: ratelimit.New(ratelimit.Config{}),
		Retry: retry.New(nil), Breaker: breaker.New(),
	})
	for _, path := range samples {
		t.Run(filepath.Base(path), func(t *testing.T) {
			file, err := routes.Load(path, routes.Options{Plugins: all.Names(), Env: env})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range file.Warnings {
				t.Errorf("warning: %v", w)
			}
			if _, err := routes.NewTable(file.Routes); err != nil {
				t.Error(err)
			}
			for _, r := range file.Routes {
				for _, p := range steps {
					if _, err := p.Build(r); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

func TestSampleOfProductionMatchesItsComments(t *testing.T) {
	dir := copySamples(t)
	env := func(name string) (string, bool) { v, ok := environment[name]; return v, ok }
	file, err := routes.Load(filepath.Join(dir, "gatehouse.yaml"), routes.Options{Plugins: all.Names(), Env: env})
	if err != nil {
		t.Fatal(err)
	}
	table, err := routes.NewTable(file.Routes)
	if err != nil {
		t.Fatal(err)
	}
	f := func(method, path, want string) {
		t.Helper()
		m := table.Match([]byte("api.example.com"), []byte(method), []byte(path))
		got := m.Allow
		if m.Route != nil {
			got = m.Route.Name
		}
		if got != want {
			t.Errorf("%s %s: got %q, want %q", method, path, got, want)
		}
	}
	f("GET", "/orders", "orders-read")
	f("HEAD", "/orders/1/items", "orders-read")
	f("POST", "/orders", "orders-write")
	f("DELETE", "/orders", "GET, HEAD, POST")
	f("GET", "/status", "status")
	f("GET", "/status/", "")
	f("GET", "/reports/2026/sales", "reports")
	f("GET", "/reports/2026/sales/x", "")
}
