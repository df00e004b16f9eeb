package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse/gatehouse/discovery"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var orders = discovery.Query{Service: "orders"}

// script is a Source whose findings the test says.
type script struct {
	mu      sync.Mutex
	found   map[discovery.Query]func([]discovery.Endpoint)
	watches map[discovery.Query]int
}

func newScript() *script {
	return &script{found: map[discovery.Query]func([]discovery.Endpoint){}, watches: map[discovery.Query]int{}}
}

func (s *script) Watch(ctx context.Context, q discovery.Query, found func([]discovery.Endpoint)) error {
	s.mu.Lock()
	s.found[q] = found
	s.watches[q]++
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	delete(s.found, q)
	s.mu.Unlock()
	return ctx.Err()
}

// say has the running watch of q find eps.
func (s *script) say(q discovery.Query, eps ...discovery.Endpoint) {
	synctest.Wait()
	s.mu.Lock()
	found := s.found[q]
	s.mu.Unlock()
	found(eps)
}

func (s *script) running() int {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.found)
}

func ep(n int) discovery.Endpoint {
	return discovery.Endpoint{ID: fmt.Sprintf("i%d", n), Weight: 1,
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80)}
}

func ids(eps []discovery.Endpoint) string {
	var s []string
	for _, e := range eps {
		s = append(s, e.ID)
	}
	return "[" + strings.Join(s, " ") + "]"
}

// log collects what a user of a query is told.
type log struct {
	mu  sync.Mutex
	got []string
}

func (l *log) changed(eps []discovery.Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, ids(eps))
}

func (l *log) want(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.got, want) {
		t.Fatalf("told %v, want %v", l.got, want)
	}
}

// world runs f in a time bubble with a running cache, and waits for its end.
func world(t *testing.T, f func(t *testing.T, s *script, c *discovery.Cache), opts ...discovery.Option) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		c := discovery.NewCache(s, opts...)
		stop := run(t, c)
		f(t, s, c)
		stop()
		if n := s.running(); n != 0 {
			t.Fatalf("%d watches run after Run has returned", n)
		}
	})
}

func run(t *testing.T, c *discovery.Cache) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v, want context.Canceled", err)
		}
	}
}

func TestUsersAreToldAtOnceAndOnEachChange(t *testing.T) {
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		var a, b log
		defer c.Acquire(orders, a.changed)()
		a.want(t)
		s.say(orders, ep(1))
		s.say(orders, ep(1)) // a confirmation is no change
		defer c.Acquire(orders, b.changed)()
		b.want(t, "[i1]")
		s.say(orders, ep(1), ep(2))
		s.say(orders)
		a.want(t, "[i1]", "[i1 i2]", "[]")
		b.want(t, "[i1]", "[i1 i2]", "[]")
	})
}

func TestChangeOfAnyFieldIsAChange(t *testing.T) {
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		var a log
		defer c.Acquire(orders, a.changed)()
		e := ep(1)
		s.say(orders, e)
		e.Weight = 2
		s.say(orders, e)
		e.Tags = []string{"v2"}
		s.say(orders, e)
		e.Meta = map[string]string{"gw_zone": "a"}
		s.say(orders, e)
		a.want(t, "[i1]", "[i1]", "[i1]", "[i1]")
	})
}

func TestOneWatchServesAllUsersAndEndsWithTheLast(t *testing.T) {
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		var a, b log
		first, second := c.Acquire(orders, a.changed), c.Acquire(orders, b.changed)
		if n := s.running(); n != 1 || s.watches[orders] != 1 {
			t.Fatalf("%d watches run, %d were started, want 1", n, s.watches[orders])
		}
		first()
		first() // harmless
		s.say(orders, ep(1))
		a.want(t)
		b.want(t, "[i1]")
		second()
		if n := s.running(); n != 0 {
			t.Fatalf("%d watches run after the last release", n)
		}
		if _, _, ok := c.Endpoints(orders); ok {
			t.Fatal("a released query still has a set")
		}
	})
}

func TestTagsAreWatchedApart(t *testing.T) {
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		v2 := discovery.Query{Service: "orders", Tag: "v2"}
		var a, b log
		defer c.Acquire(orders, a.changed)()
		defer c.Acquire(v2, b.changed)()
		s.say(v2, ep(2))
		a.want(t)
		b.want(t, "[i2]")
	})
}

func TestSetOutlivesTheSourceAndItsAgeGrows(t *testing.T) {
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		if _, _, ok := c.Endpoints(orders); ok {
			t.Fatal("a set of a query that nobody acquired")
		}
		var a log
		defer c.Acquire(orders, a.changed)()
		if _, _, ok := c.Endpoints(orders); ok {
			t.Fatal("a set before the source spoke")
		}
		s.say(orders, ep(1))
		wantAge := func(want time.Duration, stale bool) {
			t.Helper()
			eps, age, ok := c.Endpoints(orders)
			if !ok || ids(eps) != "[i1]" || age != want {
				t.Fatalf("%s, age %v, %v; want [i1], age %v", ids(eps), age, ok, want)
			}
			st := c.Status()[0]
			if st.Age != want || st.Stale != stale || !st.Known || st.Query != orders {
				t.Fatalf("status %+v, want age %v, stale %v", st, want, stale)
			}
		}
		wantAge(0, false)
		time.Sleep(time.Minute)
		wantAge(time.Minute, false)
		time.Sleep(10 * time.Hour)
		wantAge(10*time.Hour+time.Minute, true)
		s.say(orders, ep(1))
		wantAge(0, false)
		if changed := c.Status()[0].Changed; time.Since(changed) != 10*time.Hour+time.Minute {
			t.Fatalf("changed %v ago by a confirmation", time.Since(changed))
		}
	})
}

func TestKnownWaitsForTheFirstAnswerOnly(t *testing.T) {
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := c.Known(ctx, orders); !errors.Is(err, discovery.ErrNotAcquired) {
			t.Fatalf("not acquired: %v", err)
		}
		var a log
		defer c.Acquire(orders, a.changed)()
		go func() {
			time.Sleep(3 * time.Second)
			s.say(orders) // an empty set is an answer
		}()
		start := time.Now()
		if err := c.Known(ctx, orders); err != nil || time.Since(start) != 3*time.Second {
			t.Fatalf("%v after %v, want the answer after 3s", err, time.Since(start))
		}
		if err := c.Known(ctx, orders); err != nil || time.Since(start) != 3*time.Second {
			t.Fatalf("second call: %v after %v", err, time.Since(start))
		}

		billing := discovery.Query{Service: "billing", Tag: "v1"}
		defer c.Acquire(billing, a.changed)()
		err := c.Known(ctx, billing)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "billing@v1") {
			t.Fatalf("no answer: %v", err)
		}
	})
}

func TestAcquireBeforeAndAfterRunDoesNotWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScript()
		c := discovery.NewCache(s)
		var a log
		release := c.Acquire(orders, a.changed)
		if s.running() != 0 {
			t.Fatal("watched before Run")
		}
		stop := run(t, c)
		s.say(orders, ep(1))
		stop()
		if eps, _, ok := c.Endpoints(orders); !ok || len(eps) != 1 {
			t.Fatal("the set is gone with Run")
		}
		release()
		c.Acquire(discovery.Query{Service: "late"}, a.changed)()
		if s.running() != 0 {
			t.Fatal("watched after Run")
		}
		a.want(t, "[i1]")
	})
}

// quitter breaks Source's contract: its watches end.
type quitter struct{ calls int }

func (q *quitter) Watch(ctx context.Context, _ discovery.Query, found func([]discovery.Endpoint)) error {
	q.calls++
	found([]discovery.Endpoint{ep(q.calls)})
	return errors.New("gone")
}

func TestWatchThatEndsIsReportedAndRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports []string
		q := &quitter{}
		c := discovery.NewCache(q, discovery.WithReport(func(err error) { reports = append(reports, err.Error()) }))
		var a log
		defer c.Acquire(orders, a.changed)()
		stop := run(t, c)
		time.Sleep(1500 * time.Millisecond)
		stop()
		a.want(t, "[i1]", "[i2]")
		if len(reports) != 2 || reports[0] != "watch of orders ended: gone" {
			t.Fatalf("reports %q", reports)
		}
	})
}

func TestConcurrentUseIsSafe(t *testing.T) {
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		var wg sync.WaitGroup
		keep := c.Acquire(orders, func([]discovery.Endpoint) {})
		for i := range 8 {
			wg.Go(func() {
				for range 50 {
					c.Acquire(discovery.Query{Service: fmt.Sprint(i % 2)}, func([]discovery.Endpoint) {})()
					c.Endpoints(orders)
					c.Status()
				}
			})
		}
		for i := range 50 {
			s.say(orders, ep(i%3+1))
		}
		wg.Wait()
		keep()
	})
}

func TestEndpointsDoesNotAllocate(t *testing.T) {
	c := discovery.NewCache(newScript())
	defer c.Acquire(orders, func([]discovery.Endpoint) {})()
	if n := testing.AllocsPerRun(100, func() { c.Endpoints(orders) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestStartWithoutSourceUsesTheSnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "discovery.json")
	rich := ep(1)
	rich.Tags, rich.Meta = []string{"v2"}, map[string]string{"gw_zone": "a"}
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		var a log
		release := c.Acquire(orders, a.changed)
		s.say(orders, rich, ep(2))
		release() // an orderly stop does not forget
	}, discovery.WithSnapshot(path))
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("snapshot: %v, %v; want mode 0600", info, err)
	}

	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		var a log
		defer c.Acquire(orders, a.changed)()
		start := time.Now()
		if err := c.Known(context.Background(), orders); err != nil || time.Since(start) > 2*time.Second {
			t.Fatalf("%v after %v, want a set from disk within 2s", err, time.Since(start))
		}
		a.want(t, "[i1 i2]")
		st := c.Status()[0]
		if !st.Stale || !st.Known || st.Endpoints[0].Meta["gw_zone"] != "a" || st.Endpoints[0].Tags[0] != "v2" {
			t.Fatalf("status %+v, want the whole set, stale", st)
		}
		s.say(orders, rich, ep(2))
		a.want(t, "[i1 i2]") // confirmed, not changed
		if c.Status()[0].Stale {
			t.Fatal("stale after the source has confirmed it")
		}
		s.say(orders, ep(3))
		a.want(t, "[i1 i2]", "[i3]")
	}, discovery.WithSnapshot(path))
}

func TestKnownPrefersALiveAnswerToTheSnapshot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "discovery.json")
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		defer c.Acquire(orders, func([]discovery.Endpoint) {})()
		s.say(orders, ep(1))
	}, discovery.WithSnapshot(path))
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		defer c.Acquire(orders, func([]discovery.Endpoint) {})()
		go func() {
			time.Sleep(300 * time.Millisecond)
			s.say(orders, ep(2))
		}()
		start := time.Now()
		if err := c.Known(context.Background(), orders); err != nil || time.Since(start) != 300*time.Millisecond {
			t.Fatalf("%v after %v", err, time.Since(start))
		}
	}, discovery.WithSnapshot(path))
}

func TestSnapshotIsWrittenSoonAfterAChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "discovery.json")
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		defer c.Acquire(orders, func([]discovery.Endpoint) {})()
		s.say(orders, ep(1))
		time.Sleep(time.Second)
		synctest.Wait()
		if data, err := os.ReadFile(path); err != nil || !strings.Contains(string(data), "10.0.0.1:80") {
			t.Fatalf("%s, %v", data, err)
		}
		s.say(orders)
		time.Sleep(time.Second)
		synctest.Wait()
		if data, err := os.ReadFile(path); err != nil || strings.Contains(string(data), "10.0.0.1") {
			t.Fatalf("a set that became empty is kept: %s, %v", data, err)
		}
	}, discovery.WithSnapshot(path))
}

func TestSnapshotOfAStableSetStaysYoung(t *testing.T) {
	path := filepath.Join(t.TempDir(), "discovery.json")
	var end time.Time
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		defer c.Acquire(orders, func([]discovery.Endpoint) {})()
		for range 30 * 60 {
			s.say(orders, ep(1))
			time.Sleep(time.Minute)
		}
		end = time.Now()
	}, discovery.WithSnapshot(path))
	f := func(later time.Duration, want bool) {
		t.Helper()
		world(t, func(t *testing.T, s *script, c *discovery.Cache) {
			defer c.Acquire(orders, func([]discovery.Endpoint) {})()
			synctest.Wait()
			if _, _, ok := c.Endpoints(orders); ok != want {
				t.Fatalf("%v later: known %v, want %v", later, ok, want)
			}
		}, discovery.WithSnapshot(path), discovery.WithClock(func() time.Time { return end.Add(later) }))
	}
	f(23*time.Hour, true)
	f(25*time.Hour, false)
}

func TestBadSnapshotIsReportedAndSurvived(t *testing.T) {
	f := func(content, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "discovery.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var reports []string
		world(t, func(t *testing.T, s *script, c *discovery.Cache) {
			var a log
			defer c.Acquire(orders, a.changed)()
			s.say(orders, ep(1))
			a.want(t, "[i1]")
		}, discovery.WithSnapshot(path), discovery.WithReport(func(err error) { reports = append(reports, err.Error()) }))
		if len(reports) != 1 || !strings.Contains(reports[0], want) || !strings.Contains(reports[0], path) {
			t.Fatalf("reports %q, want one with %q and the path", reports, want)
		}
	}
	f("", "unexpected end")
	f("{", "unexpected end")
	f(`{"version":2}`, "version 2, want 1")
	now := "2000-01-01T00:00:00Z" // where the bubble's clock starts
	f(`{"version":1,"services":[{"service":"orders","confirmed":"`+now+`","endpoints":[{"id":"a","addr":"x","weight":1}]}]}`, "not an ip:port")
	f(`{"version":1,"services":[{"service":"orders","confirmed":"`+now+`","endpoints":[{"id":"a","addr":"10.0.0.1:0","weight":1}]}]}`, "endpoint 0 is not usable")
	f(`{"version":1,"services":[{"service":"orders","confirmed":"`+now+`","endpoints":[{"id":"a","addr":"10.0.0.1:1","weight":0}]}]}`, "endpoint 0 is not usable")
}

func TestSnapshotThatCannotBeWrittenIsReported(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "discovery.json")
	var reports []error
	world(t, func(t *testing.T, s *script, c *discovery.Cache) {
		defer c.Acquire(orders, func([]discovery.Endpoint) {})()
		s.say(orders, ep(1))
		time.Sleep(time.Second)
	}, discovery.WithSnapshot(path), discovery.WithReport(func(err error) { reports = append(reports, err) }))
	if len(reports) == 0 || !errors.Is(reports[0], os.ErrNotExist) {
		t.Fatalf("reports %v, want that the folder does not exist", reports)
	}
}
