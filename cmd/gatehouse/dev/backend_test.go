package dev_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/cmd/gatehouse/dev"
	"github.com/gatehouse/gatehouse/discovery"
	"github.com/gatehouse/gatehouse/discovery/sourcetest"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// buffer is a Log that a test reads while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) arrivals(t *testing.T) []dev.Arrival {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []dev.Arrival
	for s := bufio.NewScanner(bytes.NewReader(b.b.Bytes())); s.Scan(); {
		var a dev.Arrival
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			t.Fatalf("log line %q: %v", s.Text(), err)
		}
		all = append(all, a)
	}
	return all
}

// backend runs one until the test ends or stop is called, which waits for it.
func backend(t *testing.T, c dev.BackendConfig) (addr string, stop func()) {
	t.Helper()
	ready := make(chan netip.AddrPort, 1)
	c.Ready = func(a netip.AddrPort) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- dev.RunBackend(ctx, c) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("backend: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	select {
	case a := <-ready:
		return a.String(), stop
	case err := <-done:
		done <- err
		t.Fatal(err)
		return "", nil
	}
}

// get calls a backend and returns what it saw.
func get(t *testing.T, method, url string, body string, header ...string) (int, dev.Seen) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var seen dev.Seen
	data, err := io.ReadAll(resp.Body)
	if err == nil && len(data) > 0 && resp.Header.Get("Content-Type") == "application/json" {
		err = json.Unmarshal(data, &seen)
	}
	if err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return resp.StatusCode, seen
}

func TestBackendTellsWhatItSaw(t *testing.T) {
	var log buffer
	addr, _ := backend(t, dev.BackendConfig{Service: "orders", Instance: "orders-1", Log: &log})
	status, seen := get(t, "POST", "http://"+addr+"/orders/7?x=1", "hello",
		"X-Auth-Subject", "alice", "x-auth-scope", "read:orders", "X-Request-Id", "r1", "X-Forwarded-For", "10.0.0.1",
		"Authorization", "Bearer s3cret")
	if status != 200 || seen.Service != "orders" || seen.Instance != "orders-1" || seen.Method != "POST" ||
		seen.Path != "/orders/7" || seen.Query != "x=1" || seen.Host != addr || seen.BodyBytes != 5 || seen.RequestID != "r1" ||
		seen.Identity["X-Auth-Subject"] != "alice" || seen.Identity["X-Auth-Scope"] != "read:orders" || len(seen.Identity) != 2 ||
		seen.Forwarded["X-Forwarded-For"] != "10.0.0.1" {
		t.Fatalf("%d %+v", status, seen)
	}
	if all := fmt.Sprintf("%+v", seen); strings.Contains(all, "s3cret") || !strings.Contains(all, "Authorization") {
		t.Fatalf("want the name of the Authorization field and not its value: %s", all)
	}
	got := log.arrivals(t)
	if len(got) != 1 || got[0].Method != "POST" || got[0].Path != "/orders/7?x=1" || got[0].RequestID != "r1" ||
		got[0].Instance != "orders-1" || time.Since(got[0].Time) > time.Minute {
		t.Fatalf("log %+v", got)
	}
}

func TestBackendIsSteeredByTheQuery(t *testing.T) {
	addr, _ := backend(t, dev.BackendConfig{Service: "flaky"})
	f := func(query string, want int) {
		t.Helper()
		if got, _ := get(t, "GET", "http://"+addr+"/x?"+query, ""); got != want {
			t.Errorf("?%s: %d, want %d", query, got, want)
		}
	}
	f("", 200)
	f("status=503", 503)
	f("status=100", 400)
	f("status=x", 400)
	f("delay=x", 400)
	f("delay=24h", 400)
	f("bytes=-1", 400)
	f("bytes=100000", 200)
	start := time.Now()
	f("delay=50ms", 200)
	if d := time.Since(start); d < 50*time.Millisecond {
		t.Errorf("answered after %v", d)
	}
	f("broken=1s", 200)
	f("", 503)
	if got, _ := get(t, "GET", "http://"+addr+"/healthz", ""); got != 200 {
		t.Errorf("health %d while broken: the registry would take it out, and no breaker would be seen", got)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		if got, _ := get(t, "GET", "http://"+addr+"/x", ""); got == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("broken for ever")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestBackendLogsBeforeItAnswers(t *testing.T) {
	var log buffer
	addr, _ := backend(t, dev.BackendConfig{Service: "orders", Log: &log})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /?delay=1h HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
	for deadline := time.Now().Add(time.Minute); len(log.arrivals(t)) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no line while the request is served")
		}
	}
}

// enrols is the life of backends in any registry that source looks into.
func enrols(t *testing.T, addr string, src discovery.Source) {
	w := sourcetest.Start(t, src, discovery.Query{Service: "orders"})
	w.Want(10*time.Second, "before")
	one, stop := backend(t, dev.BackendConfig{Service: "orders", Registry: "http://" + addr, Drain: time.Second, CheckEvery: time.Second})
	two, _ := backend(t, dev.BackendConfig{Service: "orders", Registry: "http://" + addr, Drain: time.Millisecond,
		TTL: 3 * time.Second, Tags: []string{"v2"}, Meta: map[string]string{"gw_weight": "3"}})
	w.Want(2*time.Second, "both", one, two)
	time.Sleep(3500 * time.Millisecond) // longer than the TTL: it is kept alive
	w.Want(0, "both, later", one, two)

	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	eps := w.Want(time.Second, "one deregistered", two)
	if status, _ := get(t, "GET", "http://"+one+"/", ""); status != 200 {
		t.Errorf("status %d while draining", status)
	}
	<-stopped
	if _, err := net.Dial("tcp", one); err == nil {
		t.Error("it listens after it has ended")
	}
	if eps[0].Weight != 3 || eps[0].Tags[0] != "v2" {
		t.Errorf("endpoint %+v", eps[0])
	}
}

func TestBackendsEnrolInTheRegistry(t *testing.T) {
	addr := start(t)
	enrols(t, addr, source(t, addr))
}

func TestBackendsEnrolInConsul(t *testing.T) {
	addr := servers.Consul(t)
	enrols(t, addr, source(t, addr))
}

func TestBackendWaitsForTheRegistryAndComesBack(t *testing.T) {
	for _, ttl := range []time.Duration{0, time.Second} {
		t.Run("TTL "+ttl.String(), func(t *testing.T) {
			port := servers.FreePort(t)
			addr := fmt.Sprintf("127.0.0.1:%d", port)
			reports := make(chan error, 100)
			b, _ := backend(t, dev.BackendConfig{Service: "orders", Registry: "http://" + addr, Drain: time.Millisecond, TTL: ttl,
				Report: func(err error) { reports <- err }})
			select {
			case err := <-reports:
				if !strings.Contains(err.Error(), "register orders-") {
					t.Errorf("report %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("nobody is told that it cannot register")
			}
			for range 2 { // the second registry knows nothing of the first
				stop := serveOn(t, addr)
				src := source(t, addr)
				w := sourcetest.Start(t, src, discovery.Query{Service: "orders"})
				w.Want(10*time.Second, "registered", b)
				w.Stop()
				stop()
			}
		})
	}
}

// serveOn serves a registry on an address until stop.
func serveOn(t *testing.T, addr string) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	r := dev.NewRegistry(time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	s := httptest.NewUnstartedServer(r)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	return func() {
		cancel()
		<-done
		s.CloseClientConnections()
		s.Close()
	}
}

func TestBackendMistakesAreNamed(t *testing.T) {
	f := func(c dev.BackendConfig, want string) {
		t.Helper()
		err := dev.RunBackend(context.Background(), c)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	f(dev.BackendConfig{}, "no service name")
	f(dev.BackendConfig{Service: "a", Listen: "nowhere"}, "demo backend a")
	f(dev.BackendConfig{Service: "a", Registry: "127.0.0.1:8500"}, "want http://host:port")
	f(dev.BackendConfig{Service: "a", Registry: "http://127.0.0.1:1", Advertise: "me"}, "advertise")
	f(dev.BackendConfig{Service: "a", Registry: "http://127.0.0.1:1", Listen: "0.0.0.0:0"}, "under which one it is reached")
}
