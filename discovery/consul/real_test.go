package consul_test

import (
	"context"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/discovery/consul"
	"github.com/gatehouse/gatehouse/discovery/sourcetest"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func source(t *testing.T, c consul.Config) *consul.Source {
	t.Helper()
	c.HTTPClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	t.Cleanup(c.HTTPClient.CloseIdleConnections)
	src, err := consul.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func TestRealConsul(t *testing.T) {
	addr := servers.Consul(t)
	r := sourcetest.Registry{Address: addr}
	t.Run("API", func(t *testing.T) { sourcetest.RunAPI(t, r) })
	sourcetest.Run(t, source(t, consul.Config{Address: "http://" + addr}), r)
}

func TestRealConsulWithoutStreaming(t *testing.T) {
	s := servers.StartConsul(t, "-hcl", "use_streaming_backend = false")
	sourcetest.Run(t, source(t, consul.Config{Address: s.Addr}), sourcetest.Registry{Address: s.Addr})
}

func TestRealConsulAwayAndWiped(t *testing.T) {
	s := servers.StartConsul(t)
	r := sourcetest.Registry{Address: s.Addr}
	a := sourcetest.Instance{ID: "a", Name: "orders", Address: "10.0.0.1", Port: 80}
	b := sourcetest.Instance{ID: "b", Name: "orders", Address: "10.0.0.2", Port: 80}
	for range 20 { // so that the index of the next life is behind this one's
		r.Register(t, b)
		r.Deregister(t, "b")
	}
	r.Register(t, a)
	src := source(t, consul.Config{Address: s.Addr})
	w := sourcetest.Start(t, src, discovery.Query{Service: "orders"})
	w.Want(time.Minute, "first set", "10.0.0.1:80")

	s.Stop()
	time.Sleep(1500 * time.Millisecond) // nothing may happen in it
	if eps, _ := w.Last(); sourcetest.Addrs(eps) != "10.0.0.1:80" {
		t.Fatalf("without Consul: %v", eps)
	}
	s.Restart() // development mode keeps nothing
	r.Register(t, b)
	w.Want(time.Minute, "after the wipe", "10.0.0.2:80")
	if src.Counters().Errors.Load() == 0 {
		t.Error("no failed request was counted")
	}

	s.Pause()
	time.Sleep(500 * time.Millisecond)
	s.Resume()
	r.Register(t, a)
	w.Want(time.Minute, "after a pause", "10.0.0.1:80", "10.0.0.2:80")
}

func TestRealConsulTokenRevoked(t *testing.T) {
	// A stream would tell it only when the blocking query is over.
	s := servers.StartConsul(t, "-hcl", "use_streaming_backend = false", "-hcl",
		`acl { enabled = true default_policy = "deny" tokens { initial_management = "11111111-1111-1111-1111-111111111111" } }`)
	root := func(method, path, body string) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+s.Addr+"/v1/"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Consul-Token", "11111111-1111-1111-1111-111111111111")
		deadline := time.Now().Add(time.Minute)
		for { // the token store is ready a moment after the leader
			req.Body, _ = req.GetBody()
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode == 200 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s %s: %s", method, path, resp.Status)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	defer http.DefaultClient.CloseIdleConnections()
	root("PUT", "acl/policy", `{"Name":"read","Rules":"service_prefix \"\" { policy = \"read\" } node_prefix \"\" { policy = \"read\" }"}`)
	const reader = "22222222-2222-2222-2222-222222222222"
	root("PUT", "acl/token", `{"AccessorID":"33333333-3333-3333-3333-333333333333","SecretID":"`+reader+`","Policies":[{"Name":"read"}]}`)
	root("PUT", "agent/service/register", `{"Name":"orders","Address":"10.0.0.1","Port":80}`)

	src := source(t, consul.Config{Address: s.Addr, Token: reader})
	w := sourcetest.Start(t, src, discovery.Query{Service: "orders"})
	w.Want(time.Minute, "with the token", "10.0.0.1:80")

	// The token keeps its name and loses its rights: 200 with an empty list.
	root("PUT", "acl/token/33333333-3333-3333-3333-333333333333", `{"Description":"none"}`)
	root("PUT", "agent/service/register", `{"Name":"orders","Address":"10.0.0.2","Port":80}`) // wakes the watch
	deadline := time.Now().Add(time.Minute)
	for src.Counters().Refused.Load()+src.Counters().Errors.Load() == 0 {
		if time.Now().After(deadline) {
			t.Fatal("the answer without rights was never refused")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if eps, _ := w.Last(); sourcetest.Addrs(eps) != "10.0.0.1:80" && sourcetest.Addrs(eps) != "10.0.0.2:80" {
		t.Fatalf("the set of a token without rights was applied: %v", eps)
	}
	root("DELETE", "acl/token/33333333-3333-3333-3333-333333333333", "")
	time.Sleep(time.Second)
	if eps, _ := w.Last(); len(eps) != 1 {
		t.Fatalf("the set of a deleted token was applied: %v", eps)
	}
	root("PUT", "acl/token", `{"SecretID":"`+reader+`","Policies":[{"Name":"read"}]}`)
	root("PUT", "agent/service/register", `{"Name":"orders","Address":"10.0.0.3","Port":80}`)
	w.Want(time.Minute, "with the token's rights again", "10.0.0.3:80")
}

func TestStartWithoutConsulUsesTheSnapshotAndThenFollows(t *testing.T) {
	s := servers.StartConsul(t)
	r := sourcetest.Registry{Address: s.Addr}
	orders := discovery.Query{Service: "orders"}
	path := filepath.Join(t.TempDir(), "discovery.json")
	// life runs a cache, as a process would, while f runs.
	life := func(f func(*discovery.Cache)) {
		c := discovery.NewCache(source(t, consul.Config{Address: s.Addr}), discovery.WithSnapshot(path))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		release := c.Acquire(orders, func([]discovery.Endpoint) {})
		f(c)
		release()
		cancel()
		<-done
	}
	until := func(c *discovery.Cache, d time.Duration, addrs string, stale bool) {
		t.Helper()
		for deadline := time.Now().Add(d); ; time.Sleep(10 * time.Millisecond) {
			st := c.Status()[0]
			if sourcetest.Addrs(st.Endpoints) == addrs && st.Stale == stale {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("status %+v, want %s, stale %v within %v", st, addrs, stale, d)
			}
		}
	}
	r.Register(t, sourcetest.Instance{ID: "a", Name: "orders", Address: "10.0.0.1", Port: 80})
	life(func(c *discovery.Cache) { until(c, time.Minute, "10.0.0.1:80", false) })
	s.Stop()
	life(func(c *discovery.Cache) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Known(ctx, orders); err != nil {
			t.Fatal(err)
		}
		until(c, 0, "10.0.0.1:80", true)
		s.Restart()
		r.Register(t, sourcetest.Instance{ID: "b", Name: "orders", Address: "10.0.0.2", Port: 80})
		until(c, time.Minute, "10.0.0.2:80", false)
	})
}
