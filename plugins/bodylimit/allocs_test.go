//go:build !race

package bodylimit

import (
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

// The race detector makes sync.Pool forget at random.
func TestRequestsAllocateNothing(t *testing.T) {
	handler := limited(t)(func(x *plugins.Exchange) error { return nil })
	x := plugintest.New("POST", "api.example.com", "/upload")
	body := strings.NewReader("short")
	for _, length := range []int64{5, -1} {
		if n := testing.AllocsPerRun(1000, func() {
			x.Body, x.BodyLength = body, length
			handler(x)
		}); n > 0.1 {
			t.Errorf("declared length %d: %v allocations, want 0", length, n)
		}
	}
}
