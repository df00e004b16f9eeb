package differential

import (
	"encoding/base64"
	"fmt"
	"slices"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/desync"
	"github.com/gatehouse/gatehouse/loadtest/rig"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func TestMain(m *testing.M) { rig.Main(m) }

// host is the one that the gateways serve.
const host = "api.test"

// chain is a gateway, a server of others behind it, and what stands last.
type chain struct {
	addr string // the gateway's
	last witness
	// completes: see exchange.completed.
	completes bool
}

// TestDifferential sends the whole corpus through the gateway to each of the
// others. No case may desynchronise the chain: judge says what that means.
func TestDifferential(t *testing.T) {
	for _, other := range []struct {
		name      string
		start     func(t testing.TB, origin string) *servers.Server // nil: node, which answers itself
		completes bool
	}{
		{"nginx", servers.Nginx, false},
		{"haproxy", servers.HAProxy, false},
		{"apache2", servers.Apache, false},
		{"varnish", servers.Varnish, true}, // see docs/edge.md
		{"caddy", servers.Caddy, false},
		{"node", nil, false},
	} {
		t.Run(other.name, func(t *testing.T) {
			t.Parallel()
			c := chain{completes: other.completes}
			var target string
			if other.start == nil {
				n := node{servers.Node(t)}
				c.last, target = n, n.Addr
			} else {
				c.last = newOrigin(t)
				target = other.start(t, c.last.address()).Addr
			}
			without := rig.Dial(t, target)
			without.Send(named("lf-lf-end").For(host))
			c.arrives(t, desync.Smuggled)
			if other.completes {
				without = rig.Dial(t, target)
				without.Send("POST /broken-off HTTP/1.1\r\nHost: " + host + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
				without.Close()
				c.arrives(t, "/broken-off")
			}
			c.addr = rig.Run(t, rig.Options{Config: fmt.Sprintf(`
server: {header_timeout: 20s, body_idle_timeout: 20s, drain_delay: 1ms, drain_timeout: 2s}
services:
  other: {targets: ["http://%s"], breaker: off, retries: {attempts: 1}, timeouts: {request: 10s, idle: 10s}}
routes:
  - {name: all, hosts: [%s], path: /**, service: other, public: true}
`, target, host)}).Addr
			c.all(t)
		})
	}
}

// all runs the corpus, the broken requests last: where one of them may arrive
// shorter, that may be late.
func (c *chain) all(t *testing.T) {
	requests := desync.Requests()
	for _, r := range requests {
		if r.Class != "broken" {
			t.Run(r.Name, func(t *testing.T) { c.request(t, r) })
		}
	}
	for _, a := range desync.Answers() {
		t.Run("answer-"+a.Name, func(t *testing.T) { c.answer(t, a) })
	}
	for _, r := range requests {
		if r.Class == "broken" {
			t.Run(r.Name, func(t *testing.T) { c.request(t, r) })
		}
	}
	c.ask(t, rig.Dial(t, c.addr), "/end")
	for _, q := range c.last.seen(t) {
		if q.Target != "/end" && !(c.completes && q.Target == "/a") {
			t.Errorf("a request came that nobody waited for: %+v", q)
		}
	}
}

// request sends a case with another request right behind it, and a third as
// another client.
func (c *chain) request(t *testing.T, r desync.Request) {
	e := exchange{class: r.Class, completed: c.completes, canary: "/canary/" + r.Name}
	attacker := rig.Dial(t, c.addr)
	e.first = attacker.Ask(r.Method(), r.For(host)+get(e.canary))
	if e.first.Err == nil {
		e.second = attacker.Answer("GET")
	}
	e.fresh, e.again = c.ask(t, rig.Dial(t, c.addr), e.canary+freshSuffix)
	e.seen = c.last.seen(t)
	for _, problem := range judge(e) {
		t.Errorf("%s\n%q was answered with\n%q, then with\n%q", problem, r.For(host), e.first.Head+e.first.Body, e.second.Head+e.second.Body)
	}
}

// arrives shows what the gateway has to do with: without one between, the
// origin saw a request for target.
func (c *chain) arrives(t *testing.T, target string) {
	t.Helper()
	rig.Eventually(t, target+" arrives without a gateway", func() bool {
		return slices.ContainsFunc(c.last.seen(t), func(q request) bool { return q.Target == target })
	})
}

func named(name string) desync.Request {
	all := desync.Requests()
	return all[slices.IndexFunc(all, func(r desync.Request) bool { return r.Name == name })]
}

func get(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }

// ask asks for target. A proxy may find out only now that the origin ended a
// connection, maybe behind the request, so it gets a second and a third chance
// to answer; a wrong answer has none. again is how many it needed.
func (c *chain) ask(t *testing.T, client *rig.Client, target string) (a rig.Answer, again int) {
	t.Helper()
	for {
		a = client.Ask("GET", get(target))
		if a.Err != nil || again == 2 || a.Status != 502 && a.Status != 503 && a.Status != 504 {
			return a, again
		}
		again++
	}
}

// answer has the origin answer one of two clients with a case. Neither may get
// a wrong answer to what they ask then.
func (c *chain) answer(t *testing.T, a desync.Answer) {
	victim, asker := rig.Dial(t, c.addr), rig.Dial(t, c.addr)
	own := func(client *rig.Client, who string) {
		t.Helper()
		target := "/canary/" + a.Name + "/" + who
		if got, _ := c.ask(t, client, target); got.Status != 200 || got.Body != target {
			t.Errorf("%s: got %q%q (%v)", who, got.Head, got.Body, got.Err)
		}
	}
	own(victim, "before")
	then := "stay"
	if a.Close {
		then = "close"
	}
	got := asker.Ask(a.Method, fmt.Sprintf("%s /answer/%s HTTP/1.1\r\nHost: %s\r\nX-Answer: %s\r\nX-Then: %s\r\n\r\n",
		a.Method, a.Name, host, base64.StdEncoding.EncodeToString([]byte(a.Raw)), then))
	if got.Status == 101 {
		t.Errorf("a switch that nobody asked for: %q", got.Head)
	}
	own(victim, "behind")
	if got.Err != nil {
		asker = rig.Dial(t, c.addr)
	}
	own(asker, "asker")
	own(rig.Dial(t, c.addr), "third")
	c.last.seen(t)
	if t.Failed() {
		t.Logf("the answer was %q, which became %q%q", a.Raw, got.Head, got.Body)
	}
}
