package redirect

import (
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestClientsAreSentToTheOtherURL(t *testing.T) {
	f := func(setting, target string, tls bool, status int, location string) {
		t.Helper()
		steps := plugintest.Steps(t, New(), `
routes:
  - {path: /old/**, service: orders, public: true, redirect: `+setting+`}
  - {path: /v2, service: orders-v2, public: true}
`)
		if steps[1] != nil {
			t.Error("a route without redirect has a step")
		}
		x := plugintest.New("GET", "api.example.com:8080", target)
		x.Host, x.TLS = []byte("api.example.com"), tls
		if err := steps[0](plugintest.OK)(x); err != nil {
			t.Fatal(err)
		}
		c := plugintest.Client(x)
		want := "Content-Length: 0\r\nLocation: " + location + "\r\n"
		if location == "" {
			want = ""
		}
		if c.Status != status || c.Fields != want || !c.Finished {
			t.Errorf("%s: %d %q, want %d %q", setting, c.Status, c.Fields, status, location)
		}
	}
	f(`{to: "https://www.example.com{uri}"}`, "/old/a?b=c", false, 307, "https://www.example.com/old/a?b=c")
	f(`{to: "https://www.example.com{path}", status: 301}`, "/old/a?b=c", true, 301, "https://www.example.com/old/a")
	f(`{to: /new, status: 302}`, "/old/a", true, 302, "/new")
	f(`{https: true}`, "/old/a?b", false, 308, "https://api.example.com/old/a?b")
	f(`{https: true, port: 8443, status: 307}`, "/old/a", false, 307, "https://api.example.com:8443/old/a")
	f(`{https: true}`, "/old/a", true, 200, "")
}

func TestARouteThatRedirectsEverythingNeedsNoService(t *testing.T) {
	steps := plugintest.Steps(t, New(), `
routes:
  - {path: /old/**, public: true, redirect: {to: /new}}
  - {path: /v1, service: orders, public: true}
  - {path: /v2, service: orders-v2, public: true}
`)
	x := plugintest.New("GET", "api.example.com", "/old")
	if err := steps[0](plugintest.OK)(x); err != nil || !strings.Contains(plugintest.Client(x).Fields, "Location: /new") {
		t.Errorf("%v, %q", err, plugintest.Client(x).Fields)
	}
}

func TestUnreadContentEndsTheConnection(t *testing.T) {
	steps := plugintest.Steps(t, New(), `
routes:
  - {path: /old/**, service: orders, public: true, redirect: {to: /new}}
  - {path: /v2, service: orders-v2, public: true}
`)
	x := plugintest.WithBody(plugintest.New("POST", "api.example.com", "/old"), "content")
	if err := steps[0](func(*plugins.Exchange) error { return nil })(x); err != nil || !plugintest.Client(x).Head.Close {
		t.Errorf("%v, close %v", err, plugintest.Client(x).Head.Close)
	}
}
