package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"
)

func trafficGoesOnWithoutConsul(t *testing.T, c *cluster) {
	token := c.a.token(t, "reader")
	calls := load{next: fixed("GET", "/orders/1", token), to: []*gateway{c.a, c.b}, callers: 4, pace: 5 * time.Millisecond}.start(t)
	time.Sleep(200 * time.Millisecond)
	c.consul.Pause()
	time.Sleep(time.Second)
	c.consul.Kill()
	time.Sleep(2 * time.Second)
	allOK(t, calls.stop())
	for _, g := range []*gateway{c.a, c.b} {
		if status, _ := fetch(g.admin + "/readyz"); status != http.StatusOK {
			t.Errorf("/readyz %d without Consul", status)
		}
	}
	c.consul.Restart() // empty; the backends come back to it by themselves
	eventually(t, "the backends are registered again", func() bool {
		status, body := fetch("http://" + c.consul.Addr + "/v1/health/service/orders?passing=1")
		var passing []json.RawMessage
		return status == http.StatusOK && json.Unmarshal([]byte(body), &passing) == nil && len(passing) == len(c.orders)
	})
	registered := time.Now()
	eventually(t, "the gateways know what Consul knows", c.both(func(g *gateway) bool {
		age, known := g.metric(t, `gateway_discovery_index_age_seconds{service="orders",tag=""}`)
		n, _ := g.metric(t, `gateway_discovery_instances{service="orders",tag=""}`)
		return known && n == float64(len(c.orders)) && age < time.Since(registered).Seconds()
	}))
	c.a.call("GET", "/orders/1", token).want(t, 200, "")
	c.b.call("GET", "/orders/1", token).want(t, 200, "")
}

func validationGoesOnWithoutTheDatabase(t *testing.T, c *cluster) {
	warm, cold := c.a.token(t, "reader"), c.a.token(t, "reader")
	login := c.login(t, c.a, "openid read:orders")
	calls := load{next: fixed("GET", "/orders/1", warm), to: []*gateway{c.a, c.b}, callers: 4, pace: 5 * time.Millisecond}.start(t)
	time.Sleep(200 * time.Millisecond)
	c.postgres.Stop()
	for _, g := range []*gateway{c.a, c.b} {
		g.call("GET", "/orders/1", cold).want(t, 200, "") // not verified before
		g.call("GET", "/orders/1", login.Access).want(t, 200, "")
		eventually(t, "no tokens, but 503", func() bool {
			status, answered := g.tokenEndpoint(t, "batch", batchSecret, url.Values{"grant_type": {"client_credentials"}})
			return status == http.StatusServiceUnavailable && answered.Access == ""
		})
		status, answered := g.tokenEndpoint(t, "web", webSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {login.Refresh}})
		if status != http.StatusServiceUnavailable || answered.Access != "" {
			t.Errorf("refresh without the database: %d %s", status, answered.Error)
		}
		if status, _ := fetch(g.admin + "/readyz"); status != http.StatusOK {
			t.Errorf("/readyz %d without the database", status)
		}
		if status, body := fetch(g.admin + "/readyz/authserver"); status != http.StatusServiceUnavailable || strings.Contains(body, c.store) {
			t.Errorf("/readyz/authserver %d %s without the database", status, body)
		}
	}
	time.Sleep(2 * time.Second)
	allOK(t, calls.stop())
	c.postgres.Restart()
	for _, g := range []*gateway{c.a, c.b} {
		eventually(t, "the authorization server is ready again", func() bool {
			status, _ := fetch(g.admin + "/readyz/authserver")
			return status == http.StatusOK
		})
		eventually(t, "tokens are issued again", func() bool {
			status, _ := g.tokenEndpoint(t, "batch", batchSecret, url.Values{"grant_type": {"client_credentials"}})
			return status == http.StatusOK
		})
	}
	// A refresh that was refused did not spend its token.
	if status, answered := c.b.tokenEndpoint(t, "web", webSecret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {login.Refresh}}); status != http.StatusOK {
		t.Errorf("refresh after the outage: %d %s", status, answered.Error)
	}
}

// endingFinishesWhatBegan asks a gateway to end while it has requests under way
// and connections in use.
func endingFinishesWhatBegan(t *testing.T, c *cluster) {
	token := c.a.token(t, "reader")
	long := make(chan answer, 4)
	for range cap(long) {
		go func() { long <- c.b.call("GET", "/orders/1?delay=1500ms", token) }()
	}
	kept := line{addr: c.b.addr}
	defer kept.close()
	kept.call(request{"GET", "/orders/1", token}).want(t, 200, "")
	eventually(t, "the long requests are under way", func() bool {
		n := 0
		for _, b := range c.orders {
			n += strings.Count(b.out.String(), "delay=1500ms")
		}
		return n == cap(long)
	})
	unready := make(chan bool, 1)
	go func() {
		seen := false
		for !c.b.ended() {
			status, _ := fetch(c.b.admin + "/readyz")
			seen = seen || status == http.StatusServiceUnavailable
			time.Sleep(5 * time.Millisecond)
		}
		unready <- seen
	}()
	c.b.signal(syscall.SIGTERM)
	for closed := false; !closed; {
		a := kept.call(request{"GET", "/orders/1", token})
		if a.err != nil {
			break // the connection was closed between two requests
		}
		a.want(t, 200, "")
		closed = a.header.Get("Connection") == "close"
	}
	for range cap(long) {
		(<-long).want(t, 200, "")
	}
	<-c.b.done
	if !<-unready {
		t.Error("/readyz was never 503 while it drained")
	}
	if state := c.b.cmd.ProcessState; !state.Success() {
		t.Errorf("the gateway ended with %v", state)
	}
	c.a.call("GET", "/orders/1", token).want(t, 200, "")
}
