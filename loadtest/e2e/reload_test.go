package e2e

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const edited = `
routes:
  - {name: edited, path: /edited/**, service: orders, auth: {scopes: [read:orders]}}
`

// both reports whether it is true of both gateways.
func (c *cluster) both(f func(*gateway) bool) func() bool {
	return func() bool { return f(c.a) && f(c.b) }
}

func editsGoLiveUnderLoad(t *testing.T, c *cluster) {
	token := c.a.token(t, "reader")
	c.a.call("GET", "/edited/1", token).want(t, 404, "no_route")
	calls := load{next: mixedReads(token), to: []*gateway{c.a, c.b}, callers: 6, pace: 5 * time.Millisecond}.start(t)
	time.Sleep(300 * time.Millisecond)
	began := time.Now()
	writeFile(t, c.extra("edited"), edited)
	eventually(t, "the new route answers at both gateways", c.both(func(g *gateway) bool {
		return g.call("GET", "/edited/1", token).status == http.StatusOK
	}))
	live := time.Since(began)
	writeFile(t, c.extra("edited"), strings.Replace(edited, "read:orders", "write:orders", 1))
	eventually(t, "the changed route asks for another scope", c.both(func(g *gateway) bool {
		return g.call("GET", "/edited/1", token).reason == "scope_missing"
	}))
	if err := os.Remove(c.extra("edited")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the route is gone", c.both(func(g *gateway) bool {
		return g.call("GET", "/edited/1", token).reason == "no_route"
	}))
	answers := calls.lasts(300 * time.Millisecond)
	allOK(t, answers)
	t.Logf("live at both after %v; %d requests meanwhile, none failed", live, len(answers))
}

// mixedReads has some answers take long enough to meet a reload.
func mixedReads(token string) func(int64) request {
	return func(n int64) request {
		if n%5 == 0 {
			return request{"GET", "/orders/1?delay=100ms", token}
		}
		return request{"GET", "/orders/1", token}
	}
}

func brokenEditsChangeNothing(t *testing.T, c *cluster) {
	token := c.a.token(t, "reader")
	calls := load{next: fixed("GET", "/orders/1", token), to: []*gateway{c.a, c.b}, callers: 4, pace: 5 * time.Millisecond}.start(t)
	successful := func(want float64) func(*gateway) bool {
		return func(g *gateway) bool {
			v, ok := g.metric(t, "gateway_config_last_reload_successful")
			return ok && v == want
		}
	}
	for _, broken := range []string{
		"routes: [{name: edited, path: /edited/**, service: ordrs, auth: {}}]\n",                               // no such service
		"routes: [{name: edited, path: /edited/**, service: orders}]\n",                                        // neither auth nor public
		"routes: [{name: edited, path: /orders/**, methods: [GET, HEAD], service: orders, public: true}]\n",    // opens another route
		"routes: [{name: edited, path: /edited/**, service: orders, auth: {}\n",                                // no YAML
		"tests: [{as: {client: reader}, request: \"GET " + c.issuer + "/orders/1\", expect: scope_missing}]\n", // an expectation that fails
		"consul: {address: \"http://127.0.0.1:1\"}\n",                                                          // defined twice
		"routes: [{name: edited, path: /edited/**, service: orders, auth: {}, revocation: strict}]\n",          // a key without behaviour
	} {
		writeFile(t, c.extra("edited"), broken)
		eventually(t, "the broken edit is reported", c.both(successful(0)))
		for _, g := range []*gateway{c.a, c.b} {
			g.call("GET", "/orders/1", token).want(t, 200, "")
			g.call("GET", "/orders/1", "").want(t, 401, "token_missing")
			g.call("GET", "/edited/1", token).want(t, 404, "no_route")
			if log := g.log.String(); !strings.Contains(log, "not reloaded") || !strings.Contains(log, "edited.yaml:") {
				t.Error("the log does not say where the mistake is")
			}
		}
		if err := os.Remove(c.extra("edited")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the repaired configuration is reported", c.both(successful(1)))
	}
	allOK(t, calls.stop())
}

func hangupReloads(t *testing.T, c *cluster) {
	generation := func(g *gateway) float64 {
		v, ok := g.metric(t, "gateway_config_generation")
		if !ok {
			t.Fatal("no gateway_config_generation")
		}
		return v
	}
	before := generation(c.a)
	c.a.signal(syscall.SIGHUP)
	eventually(t, "a configuration went live", func() bool { return generation(c.a) > before })
	if v, _ := c.a.metric(t, "gateway_config_last_reload_successful"); v != 1 {
		t.Errorf("gateway_config_last_reload_successful %v", v)
	}
	c.a.call("GET", "/status", "").want(t, 200, "")
}
