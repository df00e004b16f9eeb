package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// atMostOnce fails the test when a POST reached the backends twice. Every POST
// has a path of its own.
func atMostOnce(t *testing.T, backends ...*backend) (posts int) {
	t.Helper()
	seen := map[string]string{}
	for _, b := range backends {
		for _, a := range b.arrivals(t) {
			if a.Method != http.MethodPost {
				continue
			}
			posts++
			if first, twice := seen[a.Path]; twice {
				t.Errorf("POST %s reached %s and %s", a.Path, first, b.id)
			}
			seen[a.Path] = b.id
		}
	}
	return posts
}

// mixed is a load of reads and writes, some of them long enough to be under
// way when a backend ends.
func mixed(prefix, token string) func(int64) request {
	return func(n int64) request {
		path := fmt.Sprintf("%s/%d", prefix, n)
		if n%4 == 0 {
			path += "?delay=50ms"
		}
		if n%3 == 0 {
			return request{http.MethodPost, path, token}
		}
		return request{http.MethodGet, path, token}
	}
}

func drainingLosesNothing(t *testing.T, c *cluster) {
	token := c.a.token(t, "batch")
	one, other := c.backend(t, "fleet", 1), c.backend(t, "fleet", 2)
	c.a.awaitInstances(t, "fleet", 2)
	c.b.awaitInstances(t, "fleet", 2)
	calls := load{next: mixed("/fleet/drain", token), to: []*gateway{c.a, c.b}, callers: 8, pace: 10 * time.Millisecond}.start(t)
	time.Sleep(500 * time.Millisecond)
	one.signal(syscall.SIGTERM)
	<-one.done
	answers := calls.lasts(500 * time.Millisecond)
	allOK(t, answers)
	if n := len(one.arrivals(t)); n == 0 {
		t.Error("the drained backend had no traffic")
	}
	posts := atMostOnce(t, one, other)
	t.Logf("%d requests, %d of them POST, none failed", len(answers), posts)
}

func killedBackendIsNotSeen(t *testing.T, c *cluster) {
	token := c.a.token(t, "batch")
	one, other := c.backend(t, "fleet", 3), c.backend(t, "fleet", 4)
	c.a.awaitInstances(t, "fleet", 2)
	c.b.awaitInstances(t, "fleet", 2)
	calls := load{next: mixed("/fleet/kill", token), to: []*gateway{c.a, c.b}, callers: 8, pace: 10 * time.Millisecond}.start(t)
	time.Sleep(time.Second)
	one.kill()
	answers := calls.lasts(3 * time.Second)
	var reads []answer
	lost := map[string]int{}
	writes := 0
	for _, a := range answers {
		if a.method == http.MethodGet {
			reads = append(reads, a)
			continue
		}
		writes++
		if a.status != http.StatusOK {
			lost[a.reason]++
		}
	}
	allOK(t, reads)
	atMostOnce(t, one, other)
	if len(one.arrivals(t)) == 0 {
		t.Error("the killed backend had no traffic")
	}
	for reason := range lost {
		if !strings.HasPrefix(reason, "upstream_") {
			t.Errorf("POSTs failed for the reason %q", reason)
		}
	}
	t.Logf("%d GET, none failed; %d POST, not carried out: %v", len(reads), writes, lost)
}

// registrationShowsInASecond starts an instance that nobody knows, and then
// does by hand what a backend does to come and to go.
func registrationShowsInASecond(t *testing.T, c *cluster) {
	token := c.a.token(t, "batch")
	c.backend(t, "newcomer", 1)
	fresh := startBackend(t, "newcomer", 2, "")
	c.a.awaitInstances(t, "newcomer", 1)
	c.b.awaitInstances(t, "newcomer", 1)
	promptly(t, "the first use of a registered instance, the last of a deregistered one", time.Second, func() time.Duration {
		return c.comeAndGo(t, fresh, token)
	})
}

// comeAndGo registers an instance and takes it away again. It returns how long
// the gateway that was slower in either needed.
func (c *cluster) comeAndGo(t *testing.T, fresh *backend, token string) time.Duration {
	calls := load{next: fixed("GET", "/newcomer/x", token), to: []*gateway{c.a, c.b}, callers: 4, pace: 5 * time.Millisecond}.start(t)
	host, port, _ := strings.Cut(fresh.addr, ":")
	c.consulPut(t, "register", fmt.Sprintf(`{"ID":%q,"Name":"newcomer","Address":%q,"Port":%s,"Check":{"HTTP":"http://%s/healthz","Interval":"1s","Status":"passing"}}`,
		fresh.id, host, port, fresh.addr))
	came := time.Now()
	first := map[string]time.Duration{}
	eventually(t, "the new instance has traffic of both gateways", func() bool {
		for _, a := range calls.soFar() {
			if a.instance == fresh.id && first[a.gateway] == 0 {
				first[a.gateway] = max(1, a.done.Sub(came))
			}
		}
		return len(first) == 2
	})
	c.consulPut(t, "deregister/"+fresh.id, "")
	went := time.Now()
	answers := calls.lasts(1500 * time.Millisecond)
	allOK(t, answers)
	last := time.Duration(0)
	for _, a := range answers {
		if a.instance == fresh.id {
			last = max(last, a.sent.Sub(went))
		}
	}
	t.Logf("first use after %v, last use %v after it was gone", first, last)
	return max(last, slices.Max(slices.Collect(maps.Values(first))))
}

// consulPut calls the agent as a service would.
func (c *cluster) consulPut(t *testing.T, what, body string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, "http://"+c.consul.Addr+"/v1/agent/service/"+what, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := plainClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("consul: %s: %s", what, resp.Status)
	}
}
