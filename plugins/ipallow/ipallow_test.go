package ipallow

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func step(t testing.TB, setting string) plugins.Step {
	t.Helper()
	steps := plugintest.Steps(t, New(), `
routes:
  - {path: /orders, service: orders, public: true, ip_allow: `+setting+`}
  - {path: /v2, service: orders-v2, public: true}
`)
	if steps[1] != nil {
		t.Error("a route without ip_allow has a step")
	}
	return steps[0]
}

func TestAddressesAreAdmittedByTheLists(t *testing.T) {
	f := func(setting, client string, want bool) {
		t.Helper()
		x := plugintest.New("GET", "api.example.com", "/orders")
		x.ClientIP = netip.Addr{}
		if client != "" {
			x.ClientIP = netip.MustParseAddr(client)
		}
		err := step(t, setting)(plugintest.OK)(x)
		var refused *plugins.Error
		if errors.As(err, &refused); (err == nil) != want || err != nil && (refused.Status != 403 || refused.Code != plugins.AddressDenied) {
			t.Errorf("%s: %s: %v, want %v", setting, client, err, want)
		}
	}
	const lists = `{allow: [10.0.0.0/8, "2001:db8::/32"], deny: [10.9.0.0/16]}`
	f(lists, "10.1.2.3", true)
	f(lists, "::ffff:10.1.2.3", true)
	f(lists, "10.9.2.3", false)
	f(lists, "::ffff:10.9.2.3", false)
	f(lists, "192.0.2.1", false)
	f(lists, "2001:db8::1", true)
	f(lists, "2001:db8::1%eth0", true)
	f(lists, "2001:db9::1", false)
	f(lists, "", false)
	f(`{deny: ["::ffff:10.9.0.0/112"]}`, "10.9.2.3", false)
	f(`{deny: [10.9.0.0/16]}`, "192.0.2.1", true)
	f(`{allow: [10.0.0.1/32]}`, "10.0.0.1", true)
	f(`{allow: [10.0.0.1/32]}`, "10.0.0.2", false)
}

func TestListsAllocateNothing(t *testing.T) {
	handler := step(t, `{allow: [192.0.2.0/24], deny: [10.0.0.0/8]}`)(func(*plugins.Exchange) error { return nil })
	x := plugintest.New("GET", "api.example.com", "/orders")
	if n := testing.AllocsPerRun(1000, func() { handler(x) }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
