package ratelimit_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/ratelimit/limitertest"
	"github.com/gatehouse/gatehouse/routes"
)

// granting is a store that always grants all.
type granting struct{}

func (granting) Ask(_ context.Context, asks []ratelimit.StoreAsk) error {
	for i := range asks {
		asks[i].Grant = ratelimit.Grant{Tokens: asks[i].Ask.Want, Free: 1 << 30}
	}
	return nil
}

func (granting) Heartbeat(context.Context, string) (int, error) { return 1, nil }

// hot is a step over live leases, and a request of a known client.
func hot(t testing.TB, limits ...*routes.RateLimit) (plugins.Handler, *plugins.Exchange) {
	p := running(t, ratelimit.New(ratelimit.Config{Store: granting{}}))
	step, err := p.Build(limitertest.Route("hot", limits...))
	if err != nil {
		t.Fatal(err)
	}
	handler := step(func(*plugins.Exchange) error { return nil })
	x := &plugins.Exchange{
		ClientIP:  netip.MustParseAddr("192.0.2.1"),
		Principal: &plugins.Principal{ClientID: "billing-batch", Issuer: "https://api.example.com"},
	}
	for range 1000 {
		x.Reset()
		x.Principal = &plugins.Principal{ClientID: "billing-batch", Issuer: "https://api.example.com"}
		if err := handler(x); err != nil {
			t.Fatal(err)
		}
	}
	return handler, x
}

func wide() *routes.RateLimit { return &routes.RateLimit{Limit: 1_000_000, Per: time.Second} }

func TestLeasedRequestsAllocateNothing(t *testing.T) {
	handler, x := hot(t, wide())
	pr := x.Principal
	if n := testing.AllocsPerRun(5000, func() {
		x.Reset()
		x.Principal = pr
		if err := handler(x); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per request, want 0", n)
	}
}

func BenchmarkLeased(b *testing.B) {
	handler, x := hot(b, wide())
	pr := x.Principal
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Principal = pr
		handler(x)
	}
}

// BenchmarkLeasedManyClients takes turns among 1,000 clients, so that their
// buckets are not all in the cache.
func BenchmarkLeasedManyClients(b *testing.B) {
	handler, x := hot(b, wide())
	principals := make([]*plugins.Principal, 1000)
	for i := range principals {
		principals[i] = &plugins.Principal{ClientID: fmt.Sprintf("client-%d", i), Issuer: "https://api.example.com"}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Reset()
		x.Principal = principals[i%len(principals)]
		handler(x)
	}
}

func BenchmarkRefused(b *testing.B) {
	p := running(b, ratelimit.New(ratelimit.Config{}))
	step, err := p.Build(limitertest.Route("refused", &routes.RateLimit{Limit: 1, Per: time.Hour}))
	if err != nil {
		b.Fatal(err)
	}
	handler := step(func(*plugins.Exchange) error { return nil })
	pr := &plugins.Principal{ClientID: "billing-batch", Issuer: "https://api.example.com"}
	x := &plugins.Exchange{}
	b.ReportAllocs()
	for b.Loop() {
		x.Reset()
		x.Principal = pr
		handler(x)
	}
}
