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

// passes makes n calls, which return reason codes, and returns how many passed.
func passes(t *testing.T, n int, call func(i int) string) (passed int) {
	t.Helper()
	for i := range n {
		switch code := call(i); code {
		case "":
			passed++
		case plugins.RateLimited:
		default:
			t.Fatalf("call %d: %s", i, code)
		}
	}
	return passed
}

// wantPasses demands that want of n calls pass. Where this process was held up,
// leases may have ended unspent and answers of the store come too late: the
// plugin counts both, and only as many calls may be missing or too many.
func wantPasses(t *testing.T, p *ratelimit.Plugin, n, want int, call func(i int) string) {
	t.Helper()
	got := passes(t, n, call)
	s := p.Stats()
	late := int(s.Fallback)
	lost := max(0, int(s.Granted)-int(s.Allowed)) + late
	if got < want-lost || got > want+late {
		t.Fatalf("%d of %d calls passed, want %d (%d tokens lost, %d answers late)", got, n, want, lost, late)
	}
}

func by(h plugins.Handler, client string) func(int) string {
	return func(int) string {
		_, err := Call(h, client)
		return Code(err)
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
	wantPasses(t, p, 150, 99, by(h, "a"))
	fields, err = Call(h, "a")
	if Code(err) != plugins.RateLimited || !strings.Contains(fields, ";r=0;t=") || !strings.Contains(fields, "Retry-After: ") {
		t.Fatalf("call over the limit: %q, %v", fields, err)
	}
}

func tokensComeBack(t *testing.T, p *ratelimit.Plugin) {
	h := Handler(t, p, Route("back", &routes.RateLimit{Limit: 200, Per: 2 * time.Second}))
	start := time.Now()
	passed := passes(t, 400, by(h, "a"))
	for time.Since(start) < time.Second {
		passed += passes(t, 1, by(h, "a"))
		time.Sleep(2 * time.Millisecond)
	}
	bound := 200 + 100*time.Since(start).Seconds()
	if float64(passed) > bound+1 || passed < 220 {
		t.Fatalf("%d calls passed, want at most %.0f and more than the burst", passed, bound)
	}
}

func clientsApart(t *testing.T, p *ratelimit.Plugin) {
	h := Handler(t, p, Route("apart", slow(30)))
	wantPasses(t, p, 40, 30, by(h, "a"))
	wantPasses(t, p, 40, 30, by(h, "b"))
}

func issuersApart(t *testing.T, p *ratelimit.Plugin) {
	h := Handler(t, p, Route("issuers", slow(30)))
	wantPasses(t, p, 40, 30, by(h, "a"))
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
	wantPasses(t, p, 40, 40, by(one, "a"))
	wantPasses(t, p, 40, 20, by(two, "a"))
}

func severalLimits(t *testing.T, p *ratelimit.Plugin) {
	route := slow(50)
	route.By = "route"
	h := Handler(t, p, Route("several", slow(30), route))
	wantPasses(t, p, 40, 30, by(h, "a"))
	wantPasses(t, p, 40, 20, by(h, "b"))
}

func refusedCostsNone(t *testing.T, p *ratelimit.Plugin) {
	narrow, wide := slow(20), slow(40)
	narrow.By, wide.Name = "subject", "wide"
	both, only := Handler(t, p, Route("both", wide, narrow)), Handler(t, p, Route("only", wide))
	wantPasses(t, p, 200, 20, by(both, "a"))
	if got := passes(t, 100, by(only, "a")); got == 0 {
		t.Fatal("refused requests used up the wide limit")
	}
}

func costCounts(t *testing.T, p *ratelimit.Plugin) {
	limit := slow(100)
	limit.Cost = 10
	wantPasses(t, p, 20, 10, by(Handler(t, p, Route("cost", limit)), "a"))
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
	wantPasses(t, p, 30, 20, func(int) string { return call("2001:db8:1:2:3::4") })
	wantPasses(t, p, 30, 20, func(int) string { return call("192.0.2.1") })
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
	wantPasses(t, p, 80, 50, by(Handler(t, p, Route("exact", limit)), "a"))
}

func localBurst(t *testing.T, p *ratelimit.Plugin) {
	limit := slow(50)
	limit.Mode = "local"
	wantPasses(t, p, 80, 50, by(Handler(t, p, Route("local", limit)), "a"))
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
	wantPasses(t, p, 40, 30, func(i int) string { return call([]string{"a", "b"}[i%2], "acme") })
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
