package ratelimit_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse/gatehouse/loadtest/servers"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/ratelimit/limitertest"
	"github.com/gatehouse/gatehouse/routes"
)

// traffic is steady load on a limiter: clients that keep coming, new ones all
// the time, leased and exact. Every refusal and every long wait is a failure.
type traffic struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	requests atomic.Int64
	mu       sync.Mutex
	problem  string
	slowest  time.Duration
	// lateness is the longest that the machine let a timer of one millisecond
	// run over: no request can be faster than that.
	lateness time.Duration
}

func startTraffic(t *testing.T, p *ratelimit.Plugin) *traffic {
	t.Helper()
	wide := &routes.RateLimit{Limit: 1_000_000, Per: time.Minute}
	exact := &routes.RateLimit{Limit: 1_000_000, Per: time.Minute, Mode: "exact"}
	leased := limitertest.Handler(t, p, limitertest.Route("leased", wide))
	strict := limitertest.Handler(t, p, limitertest.Route("exact", exact))
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{cancel: cancel}
	for w := range 3 {
		tr.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				tr.call(func() error { _, err := limitertest.Call(leased, fmt.Sprint("hot", i%5)); return err })
				if i%10 == 0 {
					tr.call(func() error { _, err := limitertest.Call(leased, fmt.Sprint("cold", w, i)); return err })
				}
				if i%20 == 0 {
					tr.call(func() error { _, err := limitertest.Call(strict, fmt.Sprint("exact", w)); return err })
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	tr.wg.Go(func() {
		for ctx.Err() == nil {
			start := time.Now()
			time.Sleep(time.Millisecond)
			tr.mu.Lock()
			tr.lateness = max(tr.lateness, time.Since(start)-time.Millisecond)
			tr.mu.Unlock()
		}
	})
	t.Cleanup(tr.stop)
	return tr
}

func (tr *traffic) stop() { tr.cancel(); tr.wg.Wait() }

func (tr *traffic) call(f func() error) {
	start := time.Now()
	err := f()
	took := time.Since(start)
	tr.requests.Add(1)
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if err != nil {
		tr.problem = limitertest.Code(err)
	}
	tr.slowest = max(tr.slowest, took)
}

// check ends the traffic and fails the test where a client noticed something.
func (tr *traffic) check(t *testing.T, p *ratelimit.Plugin) {
	t.Helper()
	tr.stop()
	s := p.Stats()
	t.Logf("%d requests, slowest %v (timers up to %v late); %+v", tr.requests.Load(), tr.slowest, tr.lateness, s)
	if tr.problem != "" {
		t.Errorf("a request was refused: %s", tr.problem)
	}
	// A wait has several wake-ups, each of which may come late. The bound
	// itself is proved in virtual time.
	if tr.slowest > 25*time.Millisecond+3*tr.lateness {
		t.Errorf("a request waited %v", tr.slowest)
	}
}

// until polls cond.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func grantedSince(p *ratelimit.Plugin) func() bool {
	before := p.Stats().Granted
	return func() bool { return p.Stats().Granted > before }
}

func testOutage(t *testing.T, p *ratelimit.Plugin, begin, end func()) {
	t.Helper()
	tr := startTraffic(t, p)
	until(t, "tokens from Redis", grantedSince(p))
	start := time.Now()
	begin()
	until(t, "local mode", func() bool { return p.Stats().Down })
	t.Logf("local after %v", time.Since(start))
	before := tr.requests.Load()
	time.Sleep(1500 * time.Millisecond)
	if n := tr.requests.Load() - before; n < 50 {
		t.Errorf("only %d requests in 1.5 s of the outage", n)
	}
	end()
	start = time.Now()
	until(t, "central mode", func() bool { return !p.Stats().Down })
	until(t, "tokens from Redis", grantedSince(p))
	t.Logf("central after %v", time.Since(start))
	tr.check(t, p)
}

func TestRedisKilledAndStartedAgain(t *testing.T) {
	srv := servers.Redis(t)
	testOutage(t, overRedis(t, srv.Addr), srv.Kill, srv.Restart)
}

func TestRedisStopped(t *testing.T) {
	srv := servers.Redis(t)
	testOutage(t, overRedis(t, srv.Addr), srv.Pause, srv.Resume)
}

func TestRedisPacketsDropped(t *testing.T) {
	hole := newBlackHole(t, servers.Redis(t).Addr)
	testOutage(t, overRedis(t, hole.addr), func() { hole.open.Store(true) }, func() { hole.open.Store(false) })
}

func TestRedisNeverThere(t *testing.T) {
	p := overRedis(t, fmt.Sprintf("127.0.0.1:%d", servers.FreePort(t)))
	tr := startTraffic(t, p)
	until(t, "local mode", func() bool { return p.Stats().Down })
	time.Sleep(300 * time.Millisecond)
	tr.check(t, p)
}

func TestRedisRestartsAtOnce(t *testing.T) {
	srv := servers.Redis(t)
	p := overRedis(t, srv.Addr)
	tr := startTraffic(t, p)
	for range 3 {
		until(t, "tokens from Redis", grantedSince(p))
		srv.Restart() // forgets the script, too
	}
	until(t, "tokens from Redis", grantedSince(p))
	tr.check(t, p)
}

func TestRedisFlushed(t *testing.T) {
	srv := servers.Redis(t)
	p := overRedis(t, srv.Addr)
	client := redis.NewClient(&redis.Options{Addr: srv.Addr})
	defer client.Close()
	tr := startTraffic(t, p)
	for range 5 {
		until(t, "tokens from Redis", grantedSince(p))
		if err := client.FlushAll(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		if err := client.ScriptFlush(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "tokens from Redis", grantedSince(p))
	tr.check(t, p)
}

// blackHole is a way to a server on which, while open, everything is lost and
// nothing is refused.
type blackHole struct {
	addr string
	open atomic.Bool
}

func newBlackHole(t *testing.T, target string) *blackHole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &blackHole{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	track := func(c net.Conn) { mu.Lock(); conns = append(conns, c); mu.Unlock() }
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			track(in)
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			track(out)
			wg.Go(func() { h.copy(out, in) })
			wg.Go(func() { h.copy(in, out) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return h
}

// copy loses what it reads while the hole is open, and then all the rest: a
// stream with a gap is not continued.
func (h *blackHole) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	lost := false
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if lost = lost || h.open.Load(); lost {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestRedisOperationsAreFewerThanRequests holds PRODUCT's promise: from about
// 100 requests per second, key and replica on, ten times fewer.
func TestRedisOperationsAreFewerThanRequests(t *testing.T) {
	p := overRedis(t, servers.Redis(t).Addr)
	h := limitertest.Handler(t, p, limitertest.Route("ops", &routes.RateLimit{Limit: 60_000, Per: time.Minute}))
	const keys = 4
	requests := 0
	start := time.Now()
	for tick := 0; time.Since(start) < 3*time.Second; tick++ {
		for k := range keys {
			if _, err := limitertest.Call(h, fmt.Sprint("client", k)); err != nil {
				t.Fatal(err)
			}
			requests++
		}
		time.Sleep(time.Until(start.Add(time.Duration(tick+1) * 8 * time.Millisecond)))
	}
	s := p.Stats()
	t.Logf("%d requests, %.0f a second and key: %d asks in %d round trips, %.1f requests per ask",
		requests, float64(requests)/keys/time.Since(start).Seconds(), s.Asks, s.Calls, float64(requests)/float64(s.Asks))
	if int(s.Asks)*10 > requests {
		t.Errorf("%d asks for %d requests", s.Asks, requests)
	}
}
