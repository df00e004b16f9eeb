package canary

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

// build returns a handler that tells where the exchange went.
func build(t testing.TB, access, setting string) func(x *plugins.Exchange) string {
	t.Helper()
	r := plugintest.Routes(t, New(), `
routes:
  - {path: /orders, service: orders, `+access+`, canary: `+setting+`}
`)[0]
	branches := New().Branches(r)
	if len(branches) != 1 || branches[0].Service != "orders-v2" || branches[0].Upstream.Name != "orders-v2" || branches[0].Canary != nil {
		t.Fatalf("branches %+v", branches)
	}
	where := ""
	step, err := New().BuildBranches(r, []plugins.Handler{func(*plugins.Exchange) error { where = "canary"; return nil }})
	if err != nil {
		t.Fatal(err)
	}
	handler := step(func(*plugins.Exchange) error { where = "stable"; return nil })
	return func(x *plugins.Exchange) string {
		if err := handler(x); err != nil {
			t.Fatal(err)
		}
		return where
	}
}

func TestCallersChoose(t *testing.T) {
	send := build(t, "public: true", "{service: orders-v2, header: X-Canary, cookie: canary}")
	f := func(header, want string) {
		t.Helper()
		x := plugintest.New("GET", "api.example.com", "/orders", strings.Split(header, "|")...)
		if got := send(x); got != want {
			t.Errorf("%s: %s, want %s", header, got, want)
		}
	}
	f("A: 1", "stable")
	f("X-Canary: true", "canary")
	f("x-canary: always", "canary")
	f("X-Canary: false", "stable")
	f("X-Canary: maybe", "stable")
	f("X-Canary: true|X-Canary: true", "stable")
	f("Cookie: a=b; canary=1; c=d", "canary")
	f("Cookie: a=b|Cookie: canary=always", "canary")
	f("Cookie: xcanary=1", "stable")
	f("Cookie: canary=true|X-Canary: never", "stable")
}

func TestAShareOfTheCallersStaysThere(t *testing.T) {
	const callers = 20_000
	for _, by := range []string{"subject", "client"} {
		send := build(t, "auth: {}", "{service: orders-v2, weight: 5%, by: "+by+"}")
		n := 0
		for i := range callers {
			x := plugintest.New("GET", "api.example.com", "/orders")
			x.Principal = &plugins.Principal{Issuer: "https://idp.example", Subject: fmt.Sprint("user-", i), ClientID: fmt.Sprint("client-", i)}
			first := send(x)
			if first == "canary" {
				n++
			}
			if again := send(x); again != first {
				t.Fatalf("caller %d went to %s, then to %s", i, first, again)
			}
		}
		if n < callers*4/100 || n > callers*6/100 {
			t.Errorf("by %s: %d of %d callers, want about 5 %%", by, n, callers)
		}
	}
}

func TestAShareOfTheAddressesStaysThere(t *testing.T) {
	send := build(t, "public: true", "{service: orders-v2, weight: 50%}")
	n := 0
	for i := range 4000 {
		x := plugintest.New("GET", "api.example.com", "/orders")
		x.ClientIP = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		if send(x) == "canary" {
			n++
		}
	}
	if n < 1800 || n > 2200 {
		t.Errorf("%d of 4000, want about half", n)
	}
}

func TestEveryOrNoCaller(t *testing.T) {
	all := build(t, "public: true", "{service: orders-v2, weight: 100%, header: X-Canary}")
	none := build(t, "public: true", "{service: orders-v2, weight: 0%}")
	for i := range 200 {
		x := plugintest.New("GET", "api.example.com", "/orders")
		x.ClientIP = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		if a, b := all(x), none(x); a != "canary" || b != "stable" {
			t.Fatal(a, b)
		}
	}
	if got := all(plugintest.New("GET", "api.example.com", "/orders", "X-Canary: false")); got != "stable" {
		t.Errorf("who declines goes to %s", got)
	}
}

func TestTheRecordNamesTheService(t *testing.T) {
	send := build(t, "public: true", "{service: orders-v2, weight: 100%}")
	x := plugintest.New("GET", "api.example.com", "/orders")
	if send(x); x.Record.Service != "orders-v2" {
		t.Errorf("service %q", x.Record.Service)
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	send := build(t, "public: true", "{service: orders-v2, weight: 50%, header: X-Canary, cookie: canary}")
	x := plugintest.New("GET", "api.example.com", "/orders", "Cookie: a=b; canary=1")
	if n := testing.AllocsPerRun(1000, func() { send(x) }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
