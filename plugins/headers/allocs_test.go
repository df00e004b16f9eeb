//go:build !race

package headers

import (
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
)

// The race detector makes sync.Pool forget at random.
func TestRulesAllocateNothing(t *testing.T) {
	handler := both(t, `{request: {set: {X-Tenant: "{claim.tenant}"}, remove: [Cookie]}, response: {set: {X-Tenant: "{claim.tenant}"}, remove: [Server]}}`)(
		func(*plugins.Exchange) error { return nil })
	x := exchange("Cookie: a", "B: 1")
	fields, principal, route := x.Fields[:2:2], x.Principal, x.Route
	if n := testing.AllocsPerRun(1000, func() {
		handler(x)
		for i := range fields {
			fields[i].Drop = false
		}
		x.Reset()
		x.Fields, x.Principal, x.Route = append(x.Fields[:0], fields...), principal, route
	}); n > 0.2 {
		t.Errorf("%v allocations, want 0", n)
	}
}
