package plugintest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Load reads a configuration and builds p's step for each of its routes; nil
// where a route does not use p.
func Load(path string, p plugins.Plugin) ([]plugins.Step, error) {
	file, err := routes.Load(path, routes.Options{Plugins: []string{p.Name()}})
	if err != nil {
		return nil, err
	}
	var steps []plugins.Step
	var errs []error
	for _, r := range file.Routes {
		step, err := p.Build(r)
		steps, errs = append(steps, step), append(errs, err)
	}
	return steps, errors.Join(errs...)
}

// preamble makes a file of what Steps is given: services to name, and an issuer
// for routes with auth.
const preamble = `
listeners: [{address: 127.0.0.1:8080}]
services:
  orders: {targets: [http://127.0.0.1:9000]}
  orders-v2: {targets: [http://127.0.0.1:9001]}
issuers:
  - {issuer: https://idp.example, jwks_uri: https://idp.example/jwks, audiences: [https://api.example.com]}
`

// Steps builds p's steps for a file that holds the given sections, routes among
// them; the services orders and orders-v2 are there.
func Steps(t testing.TB, p plugins.Plugin, sections string) []plugins.Step {
	t.Helper()
	steps, err := Load(write(t, sections), p)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// Routes are the routes of such a file, on which p's settings may stand.
func Routes(t testing.TB, p plugins.Plugin, sections string) []*routes.Route {
	t.Helper()
	file, err := routes.Load(write(t, sections), routes.Options{Plugins: []string{p.Name()}})
	if err != nil {
		t.Fatal(err)
	}
	return file.Routes
}

func write(t testing.TB, sections string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(path, []byte(preamble+sections), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
