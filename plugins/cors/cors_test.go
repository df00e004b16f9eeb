package cors

import (
	"errors"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/routes"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	plugintest.Bad(t, "testdata/bad/*.yaml", func(path string) error {
		_, err := plugintest.Load(path, New())
		return err
	})
}

func step(t testing.TB, setting string) plugins.Step {
	t.Helper()
	steps := plugintest.Steps(t, New(), `
routes:
  - {path: /orders, service: orders, public: true, cors: `+setting+`}
  - {path: /v2, service: orders-v2, public: true}
`)
	if steps[1] != nil {
		t.Error("a route without cors has a step")
	}
	return steps[0]
}

func TestOriginsAreComparedAsAWhole(t *testing.T) {
	f := func(pattern, origin string, want bool) {
		t.Helper()
		var o Origin
		if err := o.UnmarshalText([]byte(pattern)); err != nil {
			t.Fatal(err)
		}
		if got := o.matches([]byte(origin)); got != want {
			t.Errorf("%s allows %s: %v, want %v", pattern, origin, got, want)
		}
	}
	f("https://app.example.com", "https://app.example.com", true)
	f("https://app.example.com", "https://app.example.com:8443", false)
	f("https://app.example.com", "http://app.example.com", false)
	f("https://app.example.com", "https://app.example.com.evil.example", false)
	f("https://app.example.com", "https://APP.example.com", false)
	f("https://*.example.com", "https://a.example.com", true)
	f("https://*.example.com", "https://a.b.example.com", true)
	f("https://*.example.com", "https://example.com", false)
	f("https://*.example.com", "https://.example.com", false)
	f("https://*.example.com", "https://evilexample.com", false)
	f("https://*.example.com", "https://evil.example/.example.com", false)
	f("https://*.example.com", "https://evil.example?.example.com", false)
	f("https://*.example.com", "https://user@a.example.com", false)
	f("https://*.example.com", "http://a.example.com", false)
	f("https://*.example.com:8443", "https://a.example.com:8443", true)
	f("https://*.example.com:8443", "https://a.example.com", false)
	f("http://localhost:3000", "http://localhost:3000", true)
	f("https://app.example.com", "null", false)
	f("*", "https://anything.example", true)
}

const list = `{origins: [https://app.example.com, "https://*.example.org"], credentials: true, expose: [X-Request-Id, ETag]}`

func TestAnswersCarryTheGatewaysRulesAndNotTheServices(t *testing.T) {
	f := func(setting, origin string, want ...string) {
		t.Helper()
		var header []string
		if origin != "" {
			header = []string{"Origin: " + origin}
		}
		x := plugintest.New("GET", "api.example.com", "/orders", header...)
		err := step(t, setting)(func(x *plugins.Exchange) error {
			fields := "Content-Type: text/plain\r\nAccess-Control-Allow-Origin: *\r\naccess-control-allow-credentials: true\r\n"
			return x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: []byte(fields)})
		})(x)
		if err != nil {
			t.Fatal(err)
		}
		got := plugintest.Client(x).Fields
		if whole := "Content-Type: text/plain\r\n" + strings.Join(want, "\r\n") + "\r\n"; got != whole {
			t.Errorf("%s: got\n%swant\n%s", origin, got, whole)
		}
	}
	f(list, "", "Vary: Origin")
	f(list, "https://evil.example", "Vary: Origin")
	f(list, "https://app.example.com", "Vary: Origin", "Access-Control-Allow-Origin: https://app.example.com",
		"Access-Control-Allow-Credentials: true", "Access-Control-Expose-Headers: X-Request-Id, ETag")
	f(list, "https://x.example.org", "Vary: Origin", "Access-Control-Allow-Origin: https://x.example.org",
		"Access-Control-Allow-Credentials: true", "Access-Control-Expose-Headers: X-Request-Id, ETag")
	f(`{origins: ["*"]}`, "https://evil.example", "Access-Control-Allow-Origin: *")
}

func TestRefusalsCarryTheRulesToo(t *testing.T) {
	x := plugintest.New("GET", "api.example.com", "/orders", "Origin: https://app.example.com")
	refusal := &plugins.Error{Status: 401, Code: plugins.TokenMissing}
	if err := step(t, list)(func(*plugins.Exchange) error { return refusal })(x); err != refusal {
		t.Fatal(err)
	}
	if got := string(x.ResponseFields()); !strings.Contains(got, "Access-Control-Allow-Origin: https://app.example.com\r\n") {
		t.Errorf("fields of the refusal: %q", got)
	}
}

// preflight asks for POST.
func preflight(t *testing.T, setting string, header ...string) (*plugintest.Recorder, error) {
	t.Helper()
	x := plugintest.New("OPTIONS", "api.example.com", "/orders", append(header, "Access-Control-Request-Method: POST")...)
	return plugintest.Client(x), handlerOf(t, setting)(x)
}

func handlerOf(t *testing.T, setting string) plugins.Handler {
	t.Helper()
	p := &capturing{Plugin: New()}
	plugintest.Steps(t, p, "\nroutes:\n  - {path: /orders, service: orders, public: true, cors: "+setting+"}\n")
	h, err := p.Preflight(p.route)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// capturing remembers the route that was built.
type capturing struct {
	*Plugin
	route *routes.Route
}

func (c *capturing) Build(r *routes.Route) (plugins.Step, error) {
	c.route = r
	return c.Plugin.Build(r)
}

func TestPreflightsAreAnswered(t *testing.T) {
	f := func(setting, origin, asked string, want ...string) {
		t.Helper()
		c, err := preflight(t, setting, "Origin: "+origin, "Access-Control-Request-Headers: "+asked)
		if err != nil {
			t.Fatal(err)
		}

		whole := strings.Join(want, "\r\n") + "\r\nVary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
		if c.Status != 204 || !c.Finished || c.Fields != whole {
			t.Errorf("%d\n%swant\n%s", c.Status, c.Fields, whole)
		}
	}
	f(list, "https://app.example.com", "authorization", "Access-Control-Allow-Origin: https://app.example.com",
		"Access-Control-Allow-Methods: POST", "Access-Control-Allow-Headers: Authorization, Content-Type",
		"Access-Control-Allow-Credentials: true", "Access-Control-Max-Age: 600")
	f(`{origins: ["*"], headers: ["*"], max_age: 1h, methods: [POST]}`, "https://x.example", "x-a, x-b",
		"Access-Control-Allow-Origin: *", "Access-Control-Allow-Methods: POST",
		"Access-Control-Allow-Headers: x-a, x-b", "Access-Control-Max-Age: 3600")
	f(`{origins: ["*"], headers: ["*"]}`, "https://x.example", "x-a\"evil",
		"Access-Control-Allow-Origin: *", "Access-Control-Allow-Methods: POST", "Access-Control-Max-Age: 600")
}

func TestPreflightsOfOthersAreRefused(t *testing.T) {
	f := func(setting string, header ...string) {
		t.Helper()
		_, err := preflight(t, setting, header...)
		var refusal *plugins.Error
		if !errors.As(err, &refusal) || refusal.Status != 403 || refusal.Code != plugins.OriginDenied {
			t.Errorf("%v: %v, want %s", header, err, plugins.OriginDenied)
		}
	}
	f(list, "Origin: https://evil.example")
	f(list, "Origin: https://app.example.com", "Origin: https://evil.example")
	f(`{origins: [https://app.example.com], methods: [GET]}`, "Origin: https://app.example.com")
}
