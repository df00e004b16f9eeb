//go:build !race

package cors

import (
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestAnswersAllocateNothing(t *testing.T) {
	handler := step(t, list)(func(*plugins.Exchange) error { return nil })
	x := plugintest.New("GET", "api.example.com", "/orders", "Origin: https://a.example.org")
	fields := x.Fields
	if n := testing.AllocsPerRun(1000, func() {
		handler(x)
		x.Reset()
		x.Fields = fields
	}); n > 0.1 {
		t.Errorf("%v allocations, want 0", n)
	}
}
