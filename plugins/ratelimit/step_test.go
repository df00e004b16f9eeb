package ratelimit_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/ratelimit/limitertest"
	"github.com/gatehouse/gatehouse/routes"
)

func TestMistakesInALimitAreNamed(t *testing.T) {
	p := ratelimit.New(ratelimit.Config{})
	pos := routes.Pos{File: "gatehouse.yaml", Line: 7, Column: 5}
	for want, rl := range map[string]routes.RateLimit{
		"limit: 0 is less than 1":                   {Per: time.Second},
		"per: 0s is less than":                      {Limit: 1},
		"by: unknown \"user\"":                      {Limit: 1, Per: time.Second, By: "user"},
		"by: unknown \"claim:\"":                    {Limit: 1, Per: time.Second, By: "claim:"},
		"mode: unknown \"strict\"":                  {Limit: 1, Per: time.Second, Mode: "strict"},
		"on_store_failure: unknown":                 {Limit: 1, Per: time.Second, OnStoreFailure: "panic"},
		"cost: 6 is more than the burst of 5":       {Limit: 5, Per: time.Second, Cost: 6},
		"write 29411 or 30303":                      {Limit: 30_000, Per: time.Second},
		"write at most 1000000":                     {Limit: 3_000_000, Per: time.Second},
		"takes more than 30 years":                  {Limit: 1, Per: 365 * 24 * time.Hour, Burst: 40},
		"burst: -1 is less than 1":                  {Limit: 1, Per: time.Second, Burst: -1},
		"a public route does not know who calls":    {Limit: 1, Per: time.Second},
		"by: subject: a public route does not know": {Limit: 1, Per: time.Second, By: "subject"},
	} {
		rl.Pos = pos
		r := limitertest.Route("orders", &rl)
		r.Public = strings.Contains(want, "public")
		for _, plugin := range []plugins.Plugin{p, p.ByAddress()} {
			step, err := plugin.Build(r)
			if step != nil || err == nil || !strings.HasPrefix(err.Error(), `gatehouse.yaml:7:5: route "orders": rate_limit: `) ||
				!strings.Contains(err.Error(), want) {
				t.Errorf("%+v: error %v, want %q", rl, err, want)
			}
		}
	}
}

func TestEveryMistakeOfARouteIsNamed(t *testing.T) {
	_, err := ratelimit.New(ratelimit.Config{}).Build(limitertest.Route("r",
		&routes.RateLimit{}, &routes.RateLimit{Limit: 1, Per: time.Second}, &routes.RateLimit{Limit: 1}))
	if n := strings.Count(fmt.Sprint(err), "\n") + 1; err == nil || n != 2 {
		t.Errorf("%d problems, want 2: %v", n, err)
	}
}

func TestRoutesWithoutLimitsHaveNoStep(t *testing.T) {
	p := ratelimit.New(ratelimit.Config{})
	byAddress := limitertest.Route("a", &routes.RateLimit{Limit: 1, Per: time.Second, By: "ip"})
	byClient := limitertest.Route("c", &routes.RateLimit{Limit: 1, Per: time.Second})
	for _, c := range []struct {
		plugin plugins.Plugin
		route  *routes.Route
		want   bool
	}{
		{p, limitertest.Route("none"), false},
		{p.ByAddress(), limitertest.Route("none"), false},
		{p, byAddress, false},
		{p.ByAddress(), byAddress, true},
		{p, byClient, true},
		{p.ByAddress(), byClient, false},
	} {
		if step, err := c.plugin.Build(c.route); err != nil || (step != nil) != c.want {
			t.Errorf("route %s: step %v, error %v; want a step: %v", c.route.Name, step != nil, err, c.want)
		}
	}
}

func TestResponseFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := ratelimit.New(ratelimit.Config{})
		for _, c := range []struct {
			limit routes.RateLimit
			calls int
			want  string
		}{
			{routes.RateLimit{Name: "gold", Limit: 100, Per: time.Minute}, 1,
				"RateLimit-Policy: \"gold\";q=100;w=60\r\nRateLimit: \"gold\";r=99;t=1\r\n"},
			{routes.RateLimit{Name: "burst", Limit: 100, Per: time.Minute, Burst: 5}, 3,
				"RateLimit-Policy: \"burst\";q=100;w=60\r\nRateLimit: \"burst\";r=2;t=2\r\n"},
			{routes.RateLimit{Name: "over", Limit: 2, Per: time.Minute}, 3,
				"RateLimit-Policy: \"over\";q=2;w=60\r\nRateLimit: \"over\";r=0;t=30\r\nRetry-After: 30\r\n"},
			{routes.RateLimit{Name: "subsecond", Limit: 5, Per: 500 * time.Millisecond}, 1,
				"RateLimit-Policy: \"subsecond\";q=10;w=1\r\nRateLimit: \"subsecond\";r=4;t=1\r\n"},
			{routes.RateLimit{Name: "cost", Limit: 100, Per: time.Minute, Cost: 10}, 4,
				"RateLimit-Policy: \"cost\";q=100;w=60\r\nRateLimit: \"cost\";r=6;t=24\r\n"},
			{routes.RateLimit{Name: "a\"b\\c\r\nd\xff", Limit: 9, Per: time.Second}, 1,
				"RateLimit-Policy: \"a\\\"b\\\\c??d?\";q=9;w=1\r\nRateLimit: \"a\\\"b\\\\c??d?\";r=8;t=1\r\n"},
		} {
			h := limitertest.Handler(t, p, limitertest.Route("r", &c.limit))
			var fields string
			for range c.calls {
				fields, _ = limitertest.Call(h, "a")
			}
			if fields != c.want {
				t.Errorf("limit %q, call %d:\n%q, want\n%q", c.limit.Name, c.calls, fields, c.want)
			}
		}
	})
}

func TestTightestPolicyIsShown(t *testing.T) {
	h := limitertest.Handler(t, ratelimit.New(ratelimit.Config{}), limitertest.Route("r",
		&routes.RateLimit{Name: "wide", Limit: 100, Per: time.Hour},
		&routes.RateLimit{Name: "narrow", Limit: 10, Per: time.Hour, By: "subject"},
		&routes.RateLimit{Name: "middle", Limit: 50, Per: time.Hour, By: "route"}))
	if fields, err := limitertest.Call(h, "a"); err != nil || strings.Count(fields, "RateLimit: ") != 1 ||
		!strings.Contains(fields, "RateLimit: \"narrow\";r=9;") {
		t.Errorf("%q, %v", fields, err)
	}
}

func TestShadowRouteRecordsAndPasses(t *testing.T) {
	r := limitertest.Route("shadow", &routes.RateLimit{Limit: 1, Per: time.Hour})
	r.Mode = "shadow"
	h := limitertest.Handler(t, ratelimit.New(ratelimit.Config{}), r)
	for i, want := range []string{"", plugins.RateLimited} {
		x := plugintest.New("GET", "api.example.com", "/") // no principal: auth let it pass, too
		if err := h(x); err != nil || x.Record.ShadowReason != want || plugintest.Client(x).Status != 200 {
			t.Errorf("call %d: error %v, record %+v", i, err, x.Record)
		}
	}
}

func TestBucketsOutliveAReload(t *testing.T) {
	p := ratelimit.New(ratelimit.Config{})
	limit := func(n int) *routes.Route {
		return limitertest.Route("orders", &routes.RateLimit{Limit: n, Per: time.Hour})
	}
	count(limitertest.Handler(t, p, limit(10)), "a", 10)
	if n := count(limitertest.Handler(t, p, limit(10)), "a", 5); n != 0 {
		t.Errorf("%d requests passed after a reload", n)
	}
	if n := count(limitertest.Handler(t, p, limit(20)), "a", 20); n > 10 {
		t.Errorf("%d requests passed after the limit was raised by 10", n)
	}
}

func TestBucketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 640
		p := ratelimit.New(ratelimit.Config{MaxBuckets: most})
		r := limitertest.Route("r", &routes.RateLimit{Limit: 2, Per: time.Minute, By: "ip"})
		r.Public = true
		h := limitertest.Handler(t, p, r)
		call := func(i int) error {
			x := plugintest.New("GET", "api.example.com", "/")
			x.ClientIP = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			return h(x)
		}
		for i := range 20_000 {
			call(i)
		}
		if n := p.Stats().Buckets; n > most {
			t.Errorf("%d buckets, want at most %d", n, most)
		}
		// Who keeps coming is not forgotten for newcomers that do not.
		for range 3 {
			call(1 << 20)
		}
		for i := range 5000 {
			call(2<<20 + i)
			time.Sleep(time.Millisecond)
			if i%3 == 0 && call(1<<20) == nil {
				t.Fatalf("the busy client was forgotten after %d others", i)
			}
		}
	})
}
