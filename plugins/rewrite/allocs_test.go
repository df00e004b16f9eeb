//go:build !race

package rewrite

import (
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

// The race detector makes sync.Pool forget at random.
func TestRewritingAllocatesNothingWithoutARegex(t *testing.T) {
	handler := step(t, "{strip_prefix: /v1, add_prefix: /api}")(func(*plugins.Exchange) error { return nil })
	x := plugintest.New("GET", "api.example.com", "/v1/orders/1")
	if n := testing.AllocsPerRun(1000, func() { handler(x) }); n > 0.2 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestRewritingByRegexStaysWithinItsBudget(t *testing.T) {
	handler := step(t, `{regex: "/v1/([^/]+)/(.*)", to: "/{2}/{1}"}`)(func(*plugins.Exchange) error { return nil })
	x := plugintest.New("GET", "api.example.com", "/v1/orders/1")
	if n := testing.AllocsPerRun(1000, func() { handler(x) }); n > 3.2 {
		t.Errorf("%v allocations, want at most 3", n)
	}
}
