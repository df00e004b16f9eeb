package dev_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/goleak"

	"github.com/gatehouse/gatehouse/cmd/gatehouse/dev"
	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/discovery/consul"
	"github.com/gatehouse/gatehouse/discovery/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves a running registry and returns its host:port.
func start(t *testing.T) string {
	t.Helper()
	r := dev.NewRegistry(time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	server := httptest.NewServer(r)
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		server.Close() // waits for queries, which Run's end has let go
	})
	return server.Listener.Addr().String()
}

// httpClient is one whose connections end with the test.
func httpClient(t *testing.T) *http.Client {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func source(t *testing.T, addr string) discovery.Source {
	t.Helper()
	src, err := consul.New(consul.Config{Address: addr, HTTPClient: httpClient(t)})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestRegistryKeepsTheContractOfConsul(t *testing.T) {
	addr := start(t)
	r := sourcetest.Registry{Address: addr}
	t.Run("API", func(t *testing.T) { sourcetest.RunAPI(t, r) })
	sourcetest.Run(t, source(t, addr), r)
}

func TestConsulsOwnClientWorks(t *testing.T) {
	addr := start(t)
	c, err := api.NewClient(&api.Config{Address: addr, HttpClient: httpClient(t)})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Agent().ServiceRegisterOpts(&api.AgentServiceRegistration{
		ID: "o/1", Name: "orders", Address: "10.0.0.1", Port: 80, Tags: []string{"v2"}, Meta: map[string]string{"gw_weight": "2"},
		Weights: &api.AgentWeights{Passing: 5, Warning: 1},
		Check:   &api.AgentServiceCheck{CheckID: "beat", TTL: "1h", DeregisterCriticalServiceAfter: "1h"},
	}, api.ServiceRegisterOpts{ReplaceExistingChecks: true}))
	entries, meta, err := c.Health().Service("orders", "v2", true, nil)
	must(err)
	if len(entries) != 0 || meta.LastIndex == 0 || !meta.KnownLeader {
		t.Fatalf("%d passing before the first heartbeat, meta %+v", len(entries), meta)
	}
	must(c.Agent().UpdateTTL("beat", "fine", "pass"))
	entries, _, err = c.Health().Service("orders", "v2", true, &api.QueryOptions{WaitIndex: meta.LastIndex, WaitTime: time.Minute})
	must(err)
	if len(entries) != 1 || entries[0].Service.Weights.Passing != 5 || entries[0].Checks.AggregatedStatus() != "passing" {
		t.Fatalf("entries %+v", entries)
	}
	must(c.Agent().WarnTTL("beat", "so so"))
	must(c.Agent().FailTTL("beat", "bad"))
	must(c.Agent().PassTTL("beat", "fine"))
	checks, err := c.Agent().Checks()
	must(err)
	if checks["beat"].Output != "fine" || checks["beat"].Type != "ttl" {
		t.Fatalf("checks %+v", checks["beat"])
	}
	services, err := c.Agent().Services()
	must(err)
	names, _, err := c.Catalog().Services(nil)
	must(err)
	nodes, _, err := c.Catalog().Service("orders", "", nil)
	must(err)
	leader, err := c.Status().Leader()
	must(err)
	if services["o/1"].Port != 80 || len(names) != 2 || nodes[0].ServicePort != 80 || leader == "" {
		t.Fatalf("services %v, names %v, catalog %v, leader %q", services, names, nodes, leader)
	}
	must(c.Agent().ServiceDeregister("o/1"))
	if err := c.Agent().ServiceDeregister("o/1"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Fatalf("deregistered twice: %v", err)
	}
}

func TestRegistryRefusesWhatItDoesNotDo(t *testing.T) {
	r := sourcetest.Registry{Address: start(t)}
	f := func(method, path, body string, want int, text string) {
		t.Helper()
		if got, _, answer := r.Do(t, method, path, body); got != want || !strings.Contains(answer, text) {
			t.Errorf("%s %s: %d %q, want %d with %q", method, path, got, answer, want, text)
		}
	}
	const register = "agent/service/register"
	f("PUT", register, `{"Name":"a","Check":{"GRPC":"x:1","Interval":"1s"}}`, 400, `unknown field "GRPC"`)
	f("PUT", register, `{"Name":"a","Proxy":{}}`, 400, `unknown field "Proxy"`)
	f("PUT", register, `{"Name":"a"} {}`, 400, "more after")
	f("PUT", register, `{"Name":"a","Port":70000}`, 400, "port")
	f("PUT", register, `{"Name":"consul"}`, 400, "registry itself")
	f("PUT", register, `{"Name":"a","Check":{"HTTP":"not a url","Interval":"1s"}}`, 400, "want a URL")
	f("PUT", register, `{"Name":"a","Checks":[{"TTL":"5s","CheckID":"q"},{"TTL":"5s","CheckID":"q"}]}`, 400, "two have the id")
	f("PUT", register, `{"Name":"`+strings.Repeat("x", 2<<20)+`"}`, 413, "too large")
	f("PUT", "agent/service/deregister/consul", ``, 404, "unknown service")
	f("GET", "health/service/a?filter=x", ``, 400, `"filter" is not supported`)
	f("GET", "agent/services?filter=x", ``, 400, `"filter" is not supported`)
	f("GET", "health/service/a?index=-1", ``, 400, "invalid index")
}

func TestCriticalServiceIsDeregisteredAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := dev.NewRegistry(time.Now)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		do := func(method, path, body string) string {
			t.Helper()
			w := httptest.NewRecorder()
			r.ServeHTTP(w, httptest.NewRequest(method, "/v1/"+path, strings.NewReader(body)))
			if w.Code != 200 {
				t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
			return w.Body.String()
		}
		registered := func(want bool) {
			t.Helper()
			synctest.Wait()
			if got := strings.Contains(do("GET", "agent/services", ""), `"orders"`); got != want {
				t.Fatalf("registered %v, want %v", got, want)
			}
		}
		do("PUT", "agent/service/register", `{"Name":"orders","Check":{"TTL":"10s","Status":"passing","DeregisterCriticalServiceAfter":"1m"}}`)
		time.Sleep(60 * time.Second) // critical for 50 s
		registered(true)
		do("PUT", "agent/check/pass/service:orders", "")
		time.Sleep(69 * time.Second)
		registered(true)
		time.Sleep(time.Second)
		registered(false)

		// What is never healthy is critical from its registration on.
		do("PUT", "agent/service/register", `{"Name":"orders","Checks":[{"TTL":"10s","DeregisterCriticalServiceAfter":"20s"},{"TTL":"10s","DeregisterCriticalServiceAfter":"20s"}]}`)
		time.Sleep(19 * time.Second)
		registered(true)
		time.Sleep(time.Second)
		registered(false)
		cancel()
		<-done
	})
}

func TestTCPCheckIsReallyRun(t *testing.T) {
	addr := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := sourcetest.Registry{Address: addr}
	status, _, answer := r.Do(t, "PUT", "agent/service/register",
		`{"Name":"raw","Address":"127.0.0.1","Port":9,"Check":{"TCP":"`+l.Addr().String()+`","Interval":"50ms"}}`)
	if status != 200 {
		t.Fatal(answer)
	}
	w := sourcetest.Start(t, source(t, addr), discovery.Query{Service: "raw"})
	w.Want(5*time.Second, "listens", "127.0.0.1:9")
	l.Close()
	w.Want(2*time.Second, "closed")
}

func TestWaitingQueriesEndWithRun(t *testing.T) {
	r := dev.NewRegistry(time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	answered := make(chan int, 1)
	go func() {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", "/v1/health/service/orders?index=1&wait=1h", nil))
		answered <- w.Code
	}()
	select {
	case <-answered:
		t.Fatal("the query did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	<-done
	select {
	case code := <-answered:
		if code != 200 {
			t.Fatalf("status %d", code)
		}
	case <-time.After(time.Minute):
		t.Fatal("the query waits on")
	}
}
