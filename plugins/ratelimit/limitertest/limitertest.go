// Package limitertest is what every store of plugins/ratelimit is tested with:
// a suite for its promises, a Twin of the Redis store with faults, and a Meter
// that finds over-admission in any log of admitted requests.
//
// It owns no policy and starts no server.
//
//	limitertest.Run(t, func(t *testing.T) *ratelimit.Plugin { … })
package limitertest

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/routes"
)

// Meter is a leaky bucket over the merged log of all replicas: Over stays at or
// below zero exactly when in every window at most burst + rate·window + slack
// requests were admitted.
type Meter struct {
	// Rate is in tokens per second.
	Rate, Burst, Slack float64
	// Over is the largest number of tokens above what is allowed.
	Over float64

	level float64
	last  time.Time
}

// Admit notes n tokens admitted at a time; times do not go back.
func (m *Meter) Admit(at time.Time, n float64) {
	if !m.last.IsZero() {
		m.level = max(0, m.level-m.Rate*at.Sub(m.last).Seconds())
	}
	m.level += n
	m.last = at
	m.Over = max(m.Over, m.level-m.Burst-m.Slack)
}

// Route makes a route with limits, protected unless it says otherwise.
func Route(name string, limits ...*routes.RateLimit) *routes.Route {
	return &routes.Route{Name: name, Path: "/" + name, RateLimits: limits}
}

// Handler builds all of a route's steps in their order around a handler that
// answers 200.
func Handler(t testing.TB, p *ratelimit.Plugin, r *routes.Route) plugins.Handler {
	t.Helper()
	early, err := p.ByAddress().Build(r)
	if err != nil {
		t.Fatal(err)
	}
	late, err := p.Build(r)
	if err != nil {
		t.Fatal(err)
	}
	return plugins.Chain(plugintest.OK, early, late)
}

// Call makes one request of a client and returns its response lines and error.
func Call(h plugins.Handler, client string) (string, error) {
	x := plugintest.New("GET", "api.example.com", "/")
	x.Principal = &plugins.Principal{ClientID: client, Subject: "user-of-" + client, Issuer: "https://issuer.example"}
	err := h(x)
	return string(x.ResponseFields()), err
}

// Code is the reason code of an error of the plugins, "" for nil.
func Code(err error) string {
	var e *plugins.Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// Run checks the promises that hold with every store. newPlugin returns a
// running Plugin over fresh buckets; time is real.
func Run(t *testing.T, newPlugin func(t *testing.T) *ratelimit.Plugin) {
	for name, test := range map[string]func(*testing.T, *ratelimit.Plugin){
		"BurstThenRefusal":                 burstThenRefusal,
		"TokensComeBackAtTheRate":          tokensComeBack,
		"ClientsDoNotShareABucket":         clientsApart,
		"IssuersDoNotShareAClient":         issuersApart,
		"SharedLimitSpansRoutes":           sharedLimit,
		"EveryLimitOfARouteHolds":          severalLimits,
		"RefusedRequestsCostTheOtherNone":  refusedCostsNone,
		"CostIsCounted":                    costCounts,
		"AddressesByFamily":                addresses,
		"ExactModeAdmitsTheBurst":          exactBurst,
		"LocalModeAdmitsTheBurst":          localBurst,
		"ClaimIsCountedAndFallsBackToUser": claims,
	} {
		t.Run(name, func(t *testing.T) { test(t, newPlugin(t)) })
	}
}

// admitted makes n calls and returns how many passed.
func admitted(t *testing.T, h plugins.Handler, client string, n int) int {
	t.Helper()
	passed := 0
	for range n {
		_, err := Call(h, client)
		switch Code(err) {
		case "":
			passed++
		case plugins.RateLimited:
		default:
			t.Fatalf("call: %v", err)
		}
	}
	return passed
}

func wantAdmitted(t *testing.T, h plugins.Handler, client string, n, want int) {
	t.Helper()
	if got := admitted(t, h, client, n); got != want {
		t.Fatalf("%d of %d calls of %s were admitted, want %d", got, n, client, want)
	}
}

// slow is a limit whose tokens do not come back during a test.
func slow(burst int) *routes.RateLimit {
	return &routes.RateLimit{Limit: burst, Per: time.Hour}
}

func burstThenRefusal(t *testing.T, p *ratelimit.Plugin) {
	h := Handler(t, p, Route("burst", slow(100)))
	fields, err := Call(h, "a")
	if err != nil || !strings.Contains(fields, "RateLimit-Policy: \"burst\";q=100;w=3600\r\nRateLimit: \"burst\";r=") {
		t.Fatalf("first call: %q, %v", fields, err)
	}
	wantAdmitted(t, h, "a", 150, 99)
	fields, err = Call(h, "a")
	if Code(err) != plugins.RateLimited || !strings.Contains(fields, ";r=0;t=") || !strings.Contains(fields, "Retry-After: ") {
		t.Fatalf("call over the limit: %q, %v", fields, err)
	}
}

func tokensComeBack(t *testing.T, p *ratelimit.Plugin) {
	h := Handler(t, p, Route("back", &routes.RateLimit{Limit: 200, Per: 2 * time.Second}))
	start := time.Now()
	passed := admitted(t, h, "a", 400)
	for time.Since(start) < time.Second {
		passed += admitted(t, h, "a", 1)
		time.Sleep(2 * time.Millisecond)
	}
	bound := 200 + 100*time.Since(start).Seconds()
	if float64(passed) > bound+1 || float64(passed) < 0.8*bound {
		t.Fatalf("%d calls were admitted, want at most %.0f and most of them", passed, bound)
	}
}

func clientsApart(t *testing.T, p *ratelimit.Plugin) {
	h := Handler(t, p, Route("apart", slow(30)))
	wantAdmitted(t, h, "a", 40, 30)
	wantAdmitted(t, h, "b", 40, 30)
}

func issuersApart(t *testing.T, p *ratelimit.Plugin) {
	h := Handler(t, p, Route("issuers", slow(30)))
	wantAdmitted(t, h, "a", 40, 30)
	x := plugintest.New("GET", "api.example.com", "/")
	x.Principal = &plugins.Principal{ClientID: "a", Issuer: "https://other.example"}
	if err := h(x); err != nil {
		t.Fatalf("the same client id of another issuer: %v", err)
	}
}

func sharedLimit(t *testing.T, p *ratelimit.Plugin) {
	shared := slow(60)
	shared.Name = "gold"
	one, two := Handler(t, p, Route("one", shared)), Handler(t, p, Route("two", shared))
	wantAdmitted(t, one, "a", 40, 40)
	wantAdmitted(t, two, "a", 40, 20)
}

func severalLimits(t *testing.T, p *ratelimit.Plugin) {
	route := slow(50)
	route.By = "route"
	h := Handler(t, p, Route("several", slow(30), route))
	wantAdmitted(t, h, "a", 40, 30)
	wantAdmitted(t, h, "b", 40, 20)
}

func refusedCostsNone(t *testing.T, p *ratelimit.Plugin) {
	narrow, wide := slow(20), slow(40)
	narrow.By, wide.Name = "subject", "wide"
	both, only := Handler(t, p, Route("both", wide, narrow)), Handler(t, p, Route("only", wide))
	wantAdmitted(t, both, "a", 200, 20)
	if got := admitted(t, only, "a", 100); got < 15 {
		t.Fatalf("refused requests used up the wide limit: %d of 20 left", got)
	}
}

func costCounts(t *testing.T, p *ratelimit.Plugin) {
	limit := slow(100)
	limit.Cost = 10
	wantAdmitted(t, Handler(t, p, Route("cost", limit)), "a", 20, 10)
}

func addresses(t *testing.T, p *ratelimit.Plugin) {
	limit := slow(20)
	limit.By = "ip"
	r := Route("address", limit)
	r.Public = true
	h := Handler(t, p, r)
	call := func(addr string) string {
		x := plugintest.New("GET", "api.example.com", "/")
		x.ClientIP = netip.MustParseAddr(addr)
		return Code(h(x))
	}
	for range 20 {
		if code := call("2001:db8:1:2:3::4"); code != "" {
			t.Fatal(code)
		}
		if code := call("192.0.2.1"); code != "" {
			t.Fatal(code)
		}
	}
	for addr, want := range map[string]string{
		"2001:db8:1:2::ffff":   plugins.RateLimited, // the same /64
		"2001:db8:1:3::1":      "",
		"::ffff:192.0.2.1":     plugins.RateLimited, // the same IPv4 address
		"192.0.2.2":            "",
		"::1":                  "",
		"2001:db8:1:2:ffff::1": plugins.RateLimited,
	} {
		if code := call(addr); code != want {
			t.Errorf("%s: %q, want %q", addr, code, want)
		}
	}
}

func exactBurst(t *testing.T, p *ratelimit.Plugin) {
	limit := slow(50)
	limit.Mode = "exact"
	wantAdmitted(t, Handler(t, p, Route("exact", limit)), "a", 80, 50)
}

func localBurst(t *testing.T, p *ratelimit.Plugin) {
	limit := slow(50)
	limit.Mode = "local"
	wantAdmitted(t, Handler(t, p, Route("local", limit)), "a", 80, 50)
}

func claims(t *testing.T, p *ratelimit.Plugin) {
	limit := slow(30)
	limit.By = "claim:tenant"
	h := Handler(t, p, Route("claims", limit))
	call := func(client, tenant string) string {
		x := plugintest.New("GET", "api.example.com", "/")
		x.Principal = &plugins.Principal{ClientID: client, Issuer: "https://issuer.example"}
		if tenant != "" {
			x.Principal.Claims = []plugins.Claim{{Name: "tenant", Values: []string{tenant}}}
		}
		return Code(h(x))
	}
	for i := range 30 {
		if code := call([]string{"a", "b"}[i%2], "acme"); code != "" {
			t.Fatal(code)
		}
	}
	for _, c := range []struct{ client, tenant, want string }{
		{"c", "acme", plugins.RateLimited},
		{"c", "other", ""},
		{"c", "", ""},
		{"acme", "", ""}, // a client named like a tenant is not that tenant
	} {
		if code := call(c.client, c.tenant); code != c.want {
			t.Errorf("client %q of tenant %q: %q, want %q", c.client, c.tenant, code, c.want)
		}
	}
}
