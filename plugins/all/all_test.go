package all

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/breaker"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/retry"
	"github.com/gatehouse/gatehouse/routes"
)

func newDeps() Deps {
	return Deps{
		Auth:      auth.New(auth.Config{}),
		RateLimit: ratelimit.New(ratelimit.Config{}),
		Retry:     retry.New(nil),
		Breaker:   breaker.New(),
	}
}

// chain builds all steps of the file's first route around a handler.
func chain(t *testing.T, d Deps, file string, last plugins.Handler) plugins.Handler {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gatehouse.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := routes.Load(path, routes.Options{Plugins: Names()})
	if err != nil {
		t.Fatal(err)
	}
	var steps []plugins.Step
	for _, p := range All(d) {
		step, err := p.Build(f.Routes[0])
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	return plugins.Chain(last, steps...)
}

func code(err error) string {
	var e *plugins.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestOrder(t *testing.T) {
	var names []string
	for _, p := range All(newDeps()) {
		names = append(names, p.Name())
	}
	want := []string{
		"ip_allow", "cors", "headers", "redirect", "body_limit", "rate_limit", "mtls", "api_key", "auth",
		"condition", "rate_limit", "forward_auth", "compress", "canary", "headers", "rewrite", "cache", "mirror", "retry", "breaker",
	}
	for i := range max(len(names), len(want)) {
		if i >= len(names) || i >= len(want) || names[i] != want[i] {
			t.Fatalf("order %v, want %v", names, want)
		}
	}
}

const protected = `
listeners: [{address: 127.0.0.1:8080}]
services:
  orders: {targets: [http://127.0.0.1:8080]}
issuers:
  - {issuer: https://idp.example, jwks_uri: https://idp.example/jwks, audiences: [https://api.example.com]}
routes:
  - path: /orders
    service: orders
    auth: {}
    rate_limit: {limit: 3, per: 1h, by: BY}
`

func TestAddressLimitSlowsDownWhoGuessesTokens(t *testing.T) {
	h := chain(t, newDeps(), replaceBy("ip"), plugintest.OK)
	for i := range 5 {
		want := plugins.TokenMissing
		if i >= 3 {
			want = plugins.RateLimited
		}
		if got := code(h(plugintest.New("GET", "api.example.com", "/orders"))); got != want {
			t.Errorf("request %d: %q, want %q", i, got, want)
		}
	}
}

func TestRouteLimitIsNotUsedUpWithoutAToken(t *testing.T) {
	h := chain(t, newDeps(), replaceBy("route"), plugintest.OK)
	for range 10 {
		if got := code(h(plugintest.New("GET", "api.example.com", "/orders"))); got != plugins.TokenMissing {
			t.Errorf("%q, want %q", got, plugins.TokenMissing)
		}
	}
}

func replaceBy(by string) string {
	return string([]byte(protected[:len(protected)-len("BY}\n")])) + by + "}\n"
}

func TestEveryAttemptIsCountedByTheBreaker(t *testing.T) {
	d := newDeps()
	attempts := 0
	h := chain(t, d, `
listeners: [{address: 127.0.0.1:8080}]
services:
  orders:
    targets: [http://127.0.0.1:8080]
    breaker: {min_requests: 4, failures: 50%, window: 10s, open: 2s}
routes:
  - {path: /orders, service: orders, public: true}
`, func(x *plugins.Exchange) error {
		attempts++
		x.Replay = plugins.ReplaySafe
		return &plugins.Error{Status: 502, Code: plugins.UpstreamConnect}
	})
	call := func() string {
		x := plugintest.New("GET", "api.example.com", "/orders")
		x.Time, x.ClientIP = time.Now(), netip.MustParseAddr("192.0.2.1")
		return code(h(x))
	}
	for range 2 {
		if got := call(); got != plugins.UpstreamConnect {
			t.Fatal(got)
		}
	}
	if got := call(); got != plugins.BreakerOpen || attempts != 4 {
		t.Errorf("%q after %d attempts, want %q after 4", got, attempts, plugins.BreakerOpen)
	}
}

// Every sample and every page names keys by Names, so a plugin that reads
// settings of its own must be there.
func TestNamesAreThoseOfPlugins(t *testing.T) {
	known := map[string]bool{}
	for _, p := range All(newDeps()) {
		known[p.Name()] = true
	}
	for _, name := range Names() {
		if !known[name] {
			t.Errorf("no plugin is called %s", name)
		}
	}
}
