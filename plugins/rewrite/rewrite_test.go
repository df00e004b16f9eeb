package rewrite

import (
	"errors"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func step(t testing.TB, setting string) plugins.Step {
	t.Helper()
	return plugintest.Steps(t, New(), `
routes:
  - {path: /v1/**, service: orders, public: true, rewrite: `+setting+`}
  - {path: /v2/**, service: orders, public: true, rewrite: {strip_prefix: /v2}}
  - {path: /v3/**, service: orders, public: true, rewrite: {strip_prefix: /v3}}
  - {path: /free, service: orders, public: true}
`)[0]
}

func TestTheServiceReceivesTheRewrittenPath(t *testing.T) {
	f := func(setting, path, want string) {
		t.Helper()
		x := plugintest.New("GET", "api.example.com", path)
		before := string(x.Path)
		err := step(t, setting)(func(*plugins.Exchange) error { return nil })(x)
		var refusal *plugins.Error
		if want == "" {
			if !errors.As(err, &refusal) || refusal.Code != plugins.BadRequest {
				t.Errorf("%s of %s: error %v, target %q; want a refusal", setting, path, err, x.Target())
			}
			return
		}
		if err != nil || string(x.Target()) != want {
			t.Errorf("%s of %s: got %q, %v; want %q", setting, path, x.Target(), err, want)
		}
		if string(x.Path) != before {
			t.Errorf("%s of %s: what was authorised became %q", setting, path, x.Path)
		}
	}
	f("{strip_prefix: /v1}", "/v1/a/b", "/a/b")
	f("{strip_prefix: /v1}", "/v1", "/")
	f("{strip_prefix: /v1}", "/v1/", "/")
	f("{strip_prefix: /v1}", "/v10/a", "/v10/a")
	f("{add_prefix: /api}", "/v1/a", "/api/v1/a")
	f("{strip_prefix: /v1, add_prefix: /api}", "/v1/a", "/api/a")
	f("{strip_prefix: /v1, add_prefix: /api}", "/v1", "/api/")
	f(`{regex: "/v1/users/([^/]+)", to: "/people/{1}"}`, "/v1/users/7", "/people/7")
	f(`{regex: "/v1/users/([^/]+)", to: "/people/{1}"}`, "/v1/users/7/x", "/v1/users/7/x")
	f(`{regex: "/v1/(?P<kind>[a-z]+)/(.*)", to: "/{2}/of/{kind}"}`, "/v1/books/7", "/7/of/books")
	f(`{strip_prefix: /v1, regex: "/users(/.*)?", to: "/people{1}", add_prefix: /api}`, "/v1/users", "/api/people")
	// What would mean another path to the service than it looks like.
	f(`{regex: "/v1/(.*)", to: "/{1}/../admin"}`, "/v1/a", "")
	f(`{regex: "/v1/(.*)/(.*)", to: "/x/{1}{2}/y"}`, "/v1/./.", "")
	f(`{regex: "/v1/(.*)", to: "/x//{1}"}`, "/v1/a", "")
	f(`{regex: "/v1/(.*)-(.*)", to: "/x/%{1}{2}"}`, "/v1/2-F", "")
	f(`{regex: "/v1/(.*)-(.*)", to: "/x/%{1}{2}"}`, "/v1/4-1", "")
}
