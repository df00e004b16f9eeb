package ratelimit_test

import (
	"context"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/servers"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/ratelimit/limitertest"
)

// running starts p until the test ends.
func running(t testing.TB, p *ratelimit.Plugin) *ratelimit.Plugin {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return p
}

// overRedis returns a running plugin over a Redis server.
func overRedis(t testing.TB, addr string) *ratelimit.Plugin {
	t.Helper()
	store, err := ratelimit.NewRedis("redis://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return running(t, ratelimit.New(ratelimit.Config{Store: store}))
}

func TestPromisesInProcess(t *testing.T) {
	limitertest.Run(t, func(t *testing.T) *ratelimit.Plugin {
		return running(t, ratelimit.New(ratelimit.Config{}))
	})
}

func TestPromisesOverTheTwin(t *testing.T) {
	limitertest.Run(t, func(t *testing.T) *ratelimit.Plugin {
		tw := limitertest.NewTwin()
		tw.Latency = 200 * time.Microsecond
		return running(t, ratelimit.New(ratelimit.Config{Store: tw.View("a")}))
	})
}

func TestPromisesOverRedis(t *testing.T) {
	limitertest.Run(t, func(t *testing.T) *ratelimit.Plugin {
		return overRedis(t, servers.Redis(t).Addr)
	})
}
