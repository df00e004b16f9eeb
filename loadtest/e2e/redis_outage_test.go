package e2e

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// limiterWait is what a request may wait for the limiter at most.
const limiterWait = 25 * time.Millisecond

// redisFaults are the ways in which Redis goes away.
func (c *cluster) redisFaults(t *testing.T) []redisFault {
	return []redisFault{
		{"stopped", c.redis.Pause, c.redis.Resume},
		{"killed", c.redis.Kill, c.redis.Restart},
		{"restarted", c.redis.Restart, func() {}},
		{"packets dropped", func() { c.dropPackets(t, "-I") }, func() { c.dropPackets(t, "-D") }},
	}
}

type redisFault struct {
	name           string
	inject, repair func()
}

// path is the fault's name as a part of a path.
func (f redisFault) path() string { return strings.ReplaceAll(f.name, " ", "-") }

// redisOutagesCostNothing takes Redis away in every way, under load.
func redisOutagesCostNothing(t *testing.T, c *cluster) {
	token := c.a.token(t, "leased")
	c.measure(t, token, "warm", 500*time.Millisecond, nil)
	normal := c.measure(t, token, "before", 2*time.Second, nil)
	t.Logf("before: %v", normal)
	for _, f := range c.redisFaults(t) {
		t.Run(f.name, func(t *testing.T) {
			for attempt := 1; ; attempt++ {
				during := c.measure(t, token, f.path()+strconv.Itoa(attempt), 2*time.Second, f.inject)
				if f.name == "killed" && attempt == 1 {
					c.revocationWithoutRedis(t)
				}
				f.repair()
				c.awaitRedis(t)
				t.Logf("attempt %d: %v", attempt, during)
				normal.none.worsen(during.none)
				missed := during.beyond(normal)
				if missed == "" {
					return
				}
				if attempt == attempts {
					t.Fatalf("%s, every time", missed)
				}
				// The machine may have become busier meanwhile.
				now := c.measure(t, token, f.path()+"-before"+strconv.Itoa(attempt), time.Second, nil)
				normal.leased.worsen(now.leased)
				normal.exact.worsen(now.exact)
			}
		})
	}
	after := c.measure(t, token, "after", time.Second, nil)
	t.Logf("after: %v", after)
	if v, _ := c.a.metric(t, `gateway_ratelimit_fallback_decisions_total`); v == 0 {
		t.Error("no decision was made without Redis: it was never away")
	}
}

// waits is what gateways needed for requests, without the backends' time, by
// kind of limit.
type waits struct{ leased, exact, none spread }

func (w waits) String() string {
	return "leased " + w.leased.String() + "; exact " + w.exact.String() + "; unlimited " + w.none.String()
}

// worsen has s hold the longest that was seen.
func (s *spread) worsen(other spread) {
	s.p99, s.max = max(s.p99, other.p99), max(s.max, other.max)
}

// beyond says where requests waited longer than they may: 25 ms more than
// without a fault, or than requests that no limit holds up. The longest of some
// hundred waits differs by half from one measurement to the next.
func (w waits) beyond(normal waits) string {
	for name, s := range map[string][2]spread{"leased": {w.leased, normal.leased}, "exact": {w.exact, normal.exact}} {
		now, then := s[0], s[1]
		if bound := max(then.p99, normal.none.p99) + limiterWait; now.p99 > bound {
			return name + ": p99 " + now.p99.String() + " is over " + bound.String()
		}
		if bound := max(then.max, normal.none.max)*3/2 + limiterWait; now.max > bound {
			return name + ": max " + now.max.String() + " is over " + bound.String()
		}
	}
	return ""
}

// measure runs limited and unlimited requests for a while, with the fault soon
// after the start. Every one has to be answered well.
func (c *cluster) measure(t *testing.T, token, phase string, d time.Duration, fault func()) waits {
	t.Helper()
	var calls []*running
	for _, path := range []string{"/wide/leased/", "/wide/exact/", "/orders/"} {
		calls = append(calls, load{next: fixed("GET", path+phase, token), to: []*gateway{c.a, c.b}, callers: 4, pace: 10 * time.Millisecond}.start(t))
	}
	time.Sleep(200 * time.Millisecond)
	if fault != nil {
		fault()
	}
	time.Sleep(d)
	n := 0
	for _, r := range calls {
		answers := r.stop()
		allOK(t, answers)
		n += len(answers)
	}
	own := map[string][]time.Duration{}
	eventually(t, "the access logs have every request", func() bool {
		clear(own)
		for _, g := range []*gateway{c.a, c.b} {
			g.ownTimes(t, phase, own)
		}
		return len(own["wide-leased"])+len(own["wide-exact"])+len(own["orders-read"]) >= n
	})
	return waits{spreadOf(own["wide-leased"]), spreadOf(own["wide-exact"]), spreadOf(own["orders-read"])}
}

// ownTimes adds what the gateway itself needed for the requests of a phase, by
// route.
func (g *gateway) ownTimes(t *testing.T, phase string, own map[string][]time.Duration) {
	t.Helper()
	content, err := os.ReadFile(g.accesses)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if !strings.Contains(line, "/"+phase+`"`) || !strings.HasSuffix(line, "\n") {
			continue
		}
		var record struct {
			Route    string `json:"http.route"`
			Duration int64  `json:"duration_us"`
			Upstream int64  `json:"upstream_us"`
		}
		if err := json.Unmarshal([]byte(line), &record); err != nil {
			t.Fatalf("access log: %s: %v", line, err)
		}
		own[record.Route] = append(own[record.Route], time.Duration(record.Duration-record.Upstream)*time.Microsecond)
	}
}

// awaitRedis waits until both gateways count in Redis again.
func (c *cluster) awaitRedis(t *testing.T) {
	t.Helper()
	eventually(t, "limits are counted in Redis again", c.both(func(g *gateway) bool {
		v, ok := g.metric(t, "gateway_ratelimit_fallback_active")
		return ok && v == 0
	}))
}

// revocationWithoutRedis holds the longer of the two bounds.
func (c *cluster) revocationWithoutRedis(t *testing.T) {
	t.Helper()
	promptly(t, "the last accepted use of a token revoked while Redis is away", 1500*time.Millisecond, func() time.Duration {
		token := c.a.token(t, "batch")
		use := load{next: fixed("GET", "/orders/1", token), to: []*gateway{c.b}, callers: 1, pace: 2 * time.Millisecond}.start(t)
		time.Sleep(50 * time.Millisecond)
		return lastAccepted(t, use, c.a.revoke(t, "batch", batchSecret, token))
	})
}

// dropPackets inserts (-I) or deletes (-D) the rule that drops what is sent to
// this test's Redis. Nobody gets a refusal then, only silence.
func (c *cluster) dropPackets(t *testing.T, what string) {
	t.Helper()
	path := servers.Need(t, "iptables", "iptables")
	_, port, err := net.SplitHostPort(c.redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	rule := func(what string) ([]byte, error) {
		return exec.Command(path, "-w", "5", what, "INPUT", "-i", "lo", "-p", "tcp", "--dport", port, "-j", "DROP").CombinedOutput()
	}
	out, err := rule(what)
	switch {
	case err != nil && what == "-I" && os.Geteuid() != 0:
		t.Skipf("only root may drop packets: %v: %s", err, out)
	case err != nil && what == "-I":
		servers.Missing(t, "iptables may not be used here: %v: %s", err, out)
	case err != nil:
		t.Errorf("iptables: %v: %s", err, out)
	case what == "-I":
		t.Cleanup(func() { _, _ = rule("-D") }) // where the test ended too early
	}
}
