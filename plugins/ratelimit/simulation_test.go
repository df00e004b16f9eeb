package ratelimit_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/ratelimit/limitertest"
	"github.com/gatehouse/gatehouse/routes"
)

// scenario is a simulated run, drawn before it starts.
type scenario struct {
	replicas int
	limit    routes.RateLimit
	latency  time.Duration
	events   []event
	mutant   bool
}

// event happens after a wait.
type event struct {
	wait    time.Duration
	what    string // request, crash, flush, skew, outage, heal
	replica int
	n       int
	fault   limitertest.Fault
}

func drawScenario(t *rapid.T, kinds ...string) scenario {
	s := scenario{
		replicas: rapid.IntRange(1, 5).Draw(t, "replicas"),
		latency:  time.Duration(rapid.IntRange(0, 5_000).Draw(t, "latency")) * time.Microsecond,
		limit: routes.RateLimit{
			Limit: rapid.SampledFrom([]int{100, 300, 1000, 5000}).Draw(t, "limit"),
			Per:   rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second}).Draw(t, "per"),
		},
	}
	s.limit.Burst = s.limit.Limit / rapid.SampledFrom([]int{1, 1, 2, 4}).Draw(t, "part of limit")
	down := false
	for range rapid.IntRange(30, 200).Draw(t, "events") {
		e := event{
			wait:    time.Duration(rapid.SampledFrom([]int{0, 1, 5, 20, 60, 100, 300}).Draw(t, "wait")) * time.Millisecond,
			replica: rapid.IntRange(0, s.replicas-1).Draw(t, "replica"),
			what:    "request",
			n:       rapid.SampledFrom([]int{1, 5, 20, 100}).Draw(t, "n"),
		}
		if rapid.IntRange(0, 24).Draw(t, "fault?") == 0 {
			e.what = rapid.SampledFrom(kinds).Draw(t, "fault")
			e.n = rapid.IntRange(-100, 100).Draw(t, "skew")
			e.fault = rapid.SampledFrom([]limitertest.Fault{
				limitertest.Refusing, limitertest.Hanging, limitertest.Mute,
			}).Draw(t, "kind")
			if e.what == "outage" {
				if down {
					e.what = "heal"
				}
				down = !down
				e.wait += 2 * time.Second
			}
		}
		s.events = append(s.events, e)
	}
	return s
}

// replica is one process of the simulation.
type replica struct {
	cancel context.CancelFunc
	ended  chan struct{}
	handle plugins.Handler
	plugin *ratelimit.Plugin
}

func startReplica(t *testing.T, store ratelimit.Store, s *scenario) *replica {
	ctx, cancel := context.WithCancel(context.Background())
	p := ratelimit.New(ratelimit.Config{Store: store, Nodes: func() int { return s.replicas }})
	r := &replica{cancel: cancel, ended: make(chan struct{}), plugin: p}
	r.handle = limitertest.Handler(t, p, limitertest.Route("sim", &s.limit))
	go func() {
		defer close(r.ended)
		p.Run(ctx)
	}()
	return r
}

func (r *replica) stop() {
	r.cancel()
	<-r.ended
}

// result is what a run showed.
type result struct {
	admitted []time.Time
	slack    float64
	requests int
	asks     int
	slowest  time.Duration
	problem  string
}

// run plays the scenario in virtual time.
func (s *scenario) run(t *testing.T) (res result) {
	synctest.Test(t, func(t *testing.T) {
		tw := limitertest.NewTwin()
		tw.Latency, tw.SkipDebit = s.latency, s.mutant
		all := make([]*replica, s.replicas)
		for i := range all {
			all[i] = startReplica(t, tw.View(fmt.Sprint(i)), s)
		}
		rate := float64(s.limit.Limit) / s.limit.Per.Seconds()
		res.slack = ratelimit.Slack(all[0].plugin, &s.limit, s.replicas)

		var mu sync.Mutex
		var wg sync.WaitGroup
		for _, e := range s.events {
			time.Sleep(e.wait)
			switch e.what {
			case "request":
				res.requests += e.n
				for range e.n {
					wg.Go(func() {
						start := time.Now()
						_, err := limitertest.Call(all[e.replica].handle, "a")
						mu.Lock()
						defer mu.Unlock()
						res.slowest = max(res.slowest, time.Since(start))
						switch code := limitertest.Code(err); code {
						case "":
							res.admitted = append(res.admitted, time.Now())
						case plugins.RateLimited:
						default:
							res.problem = "refused with " + code
						}
					})
				}
				synctest.Wait() // the replica may be replaced by the next event
			case "crash":
				wg.Wait()
				all[e.replica].stop()
				all[e.replica] = startReplica(t, tw.View(fmt.Sprint(e.replica)), s)
			case "flush":
				tw.Flush()
				res.slack += float64(s.limit.Burst)
			case "skew":
				d := time.Duration(e.n) * time.Millisecond
				tw.Skew(d)
				res.slack += rate * max(0, d.Seconds())
			case "outage", "heal":
				for i := range all {
					f := e.fault
					if e.what == "heal" {
						f = limitertest.Healthy
					}
					tw.Fail(fmt.Sprint(i), f)
				}
				if e.what == "outage" {
					res.slack += float64(s.limit.Burst)
				}
			}
		}
		wg.Wait()
		for _, r := range all {
			r.stop()
		}
		res.asks = tw.Asks()
	})
	return res
}

// check returns what is wrong with the run, "" for nothing.
func (s *scenario) check(res result) string {
	if res.problem != "" {
		return res.problem
	}
	if res.slowest > 25*time.Millisecond {
		return fmt.Sprintf("a request waited %v", res.slowest)
	}
	meter := limitertest.Meter{
		Rate:  float64(s.limit.Limit) / s.limit.Per.Seconds(),
		Burst: float64(s.limit.Burst),
		Slack: res.slack + 1e-6,
	}
	slices.SortFunc(res.admitted, time.Time.Compare)
	for _, at := range res.admitted {
		meter.Admit(at, 1)
	}
	if meter.Over > 0 {
		return fmt.Sprintf("%.2f requests more than burst %v, rate and slack %.2f allow", meter.Over, s.limit.Burst, res.slack)
	}
	return ""
}

func simulate(t *testing.T, kinds ...string) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt, kinds...)
		if problem := s.check(s.run(t)); problem != "" {
			rt.Fatal(problem)
		}
	})
}

func TestReplicasStayWithinTheBound(t *testing.T) { simulate(t, "request") }

func TestCrashesFlushesAndSkewCostWhatIsDocumented(t *testing.T) {
	simulate(t, "crash", "flush", "skew")
}

func TestAnOutageCostsOneBurstAndNoError(t *testing.T) { simulate(t, "outage") }

// TestMeterFindsAMissingDebit breaks the store on purpose.
func TestMeterFindsAMissingDebit(t *testing.T) {
	s := scenario{replicas: 3, limit: routes.RateLimit{Limit: 300, Per: 10 * time.Second, Burst: 300}, mutant: true}
	for i := range 300 {
		s.events = append(s.events, event{what: "request", wait: 5 * time.Millisecond, replica: i % 3, n: 5})
	}
	if problem := s.check(s.run(t)); problem == "" {
		t.Error("a store that debits nothing passed the meter")
	}
	s.mutant = false
	if problem := s.check(s.run(t)); problem != "" {
		t.Errorf("the sound store: %s", problem)
	}
}
