//go:build !race

package compress

import (
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

// quiet is a client's side that keeps nothing.
type quiet struct{ plugins.Stream }

func (quiet) WriteHead(plugins.ResponseHead) error { return nil }
func (quiet) Write(p []byte) (int, error)          { return len(p), nil }
func (quiet) Finish() error                        { return nil }

// The race detector makes sync.Pool forget at random.
func TestResponsesThatPassStayWithinTheirBudget(t *testing.T) {
	fields := []byte("Content-Type: image/png\r\nContent-Length: 1\r\n")
	handler := step(t, New(), "{}")(func(x *plugins.Exchange) error {
		return x.Client.WriteHead(plugins.ResponseHead{Status: 200, Fields: fields, Length: 1})
	})
	x := plugintest.New("GET", "api.example.com", "/orders", "Accept-Encoding: gzip, br")
	x.Client = quiet{x.Client}
	if n := testing.AllocsPerRun(500, func() { _ = handler(x) }); n > 2.2 {
		t.Errorf("%v allocations, want at most 2", n)
	}
}
