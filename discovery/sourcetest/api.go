package sourcetest

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// RunAPI holds a registry to the part of Consul's HTTP API that the suite and
// the demo backends rely on. A real Consul is the judge of this list.
func RunAPI(t *testing.T, r Registry) {
	t.Run("bad input is refused", func(t *testing.T) { refusals(t, r) })
	t.Run("what is registered can be read", func(t *testing.T) { readBack(t, r) })
	t.Run("a blocking query waits for the next index", func(t *testing.T) { blocking(t, r) })
	t.Run("a blocking query returns when its time is over", func(t *testing.T) { timeout(t, r) })
	t.Run("registering again keeps the status", func(t *testing.T) { keepStatus(t, r) })
	t.Run("registering again keeps the checks that it does not name", func(t *testing.T) { keepChecks(t, r) })
}

func refusals(t *testing.T, r Registry) {
	withTTL := inst(t, 1)
	withTTL.Check = ttl(time.Hour, "passing")
	r.Register(t, withTTL)
	httpOnly := inst(t, 2)
	httpOnly.Check = &Check{HTTP: "http://127.0.0.1:1/", Interval: "1h"}
	r.Register(t, httpOnly)
	f := func(method, path string, body any, want int) {
		t.Helper()
		if got, _, answer := r.Do(t, method, path, body); got != want {
			t.Errorf("%s %s %v: %d %q, want %d", method, path, body, got, answer, want)
		}
	}
	const register = "agent/service/register"
	for _, body := range []string{
		``, `{`, `[]`, `{}`, `{"Name":""}`, `{"Name":"a","Bogus":1}`, `{"Name":5}`,
		`{"Name":"a","Address":"0.0.0.0"}`, `{"Name":"a","Address":"::"}`,
		`{"Name":"a","Weights":{"Passing":0}}`, `{"Name":"a","Weights":{"Passing":-1}}`,
		`{"Name":"a","Meta":{"a b":"1"}}`, `{"Name":"a","Meta":{"":"1"}}`,
		`{"Name":"a","Meta":{"k":"` + strings.Repeat("x", 513) + `"}}`,
		`{"Name":"a","Meta":{"` + strings.Repeat("x", 129) + `":"1"}}`,
		`{"Name":"a","Check":{"TTL":"x"}}`, `{"Name":"a","Check":{"TTL":"-1s"}}`,
		`{"Name":"a","Check":{"HTTP":"http://127.0.0.1:1/"}}`,
		`{"Name":"a","Check":{"HTTP":"http://127.0.0.1:1/","Interval":"1s","TTL":"1s"}}`,
		`{"Name":"a","Check":{"TTL":"5s","Status":"fine"}}`,
	} {
		f(http.MethodPut, register, body, 400)
	}
	f(http.MethodGet, register, nil, 405)
	f(http.MethodDelete, "health/service/a", nil, 405)
	f(http.MethodPut, "agent/service/deregister/"+name(t)+"-absent", nil, 404)
	f(http.MethodPut, "agent/service/deregister/", nil, 404)
	f(http.MethodPut, "agent/check/pass/"+name(t)+"-absent", nil, 404)
	f(http.MethodPut, "agent/check/pass/service:"+httpOnly.ID, nil, 500)
	f(http.MethodPut, "agent/check/update/service:"+withTTL.ID, `{"Status":"fine"}`, 400)
	f(http.MethodGet, "health/service/", nil, 400)
	f(http.MethodGet, "health/service/a?index=x", nil, 400)
	f(http.MethodGet, "health/service/a?index=1&wait=x", nil, 400)
	f(http.MethodGet, "health/service/a?passing=x", nil, 400)
	f(http.MethodGet, "health/service/a?stale&consistent", nil, 400)
	f(http.MethodGet, "health/service/a?dc=elsewhere", nil, 500)
	f(http.MethodGet, "bogus", nil, 404)
}

func readBack(t *testing.T, r Registry) {
	a := inst(t, 1)
	a.Tags, a.Meta, a.Weights = []string{"V2"}, map[string]string{"k": "v"}, &Weights{Passing: 3, Warning: 2}
	a.Check = ttl(time.Hour, "passing")
	r.Register(t, a)
	want := func(path string, parts ...string) {
		t.Helper()
		status, _, answer := r.Do(t, http.MethodGet, path, nil)
		var v any
		if err := json.Unmarshal([]byte(answer), &v); status != 200 || err != nil {
			t.Fatalf("%s: %d %v %s", path, status, err, answer)
		}
		flat, _ := json.Marshal(v)
		for _, p := range parts {
			if !strings.Contains(string(flat), p) {
				t.Errorf("%s: no %s in %s", path, p, flat)
			}
		}
	}
	port := `"Port":` + strconv.Itoa(a.Port)
	want("agent/services", `"`+a.ID+`":{`, port, `"Tags":["V2"]`)
	want("agent/checks", `"service:`+a.ID+`":{`, `"Status":"passing"`)
	want("catalog/services", `"`+a.Name+`":["V2"]`, `"consul":[]`)
	want("catalog/service/"+a.Name, `"ServiceID":"`+a.ID+`"`, `"Service`+port[1:], `"ServiceAddress":"`+a.Address+`"`, `"ServiceMeta":{"k":"v"}`)
	for _, q := range []string{"", "?passing", "?passing=1", "?tag=v2", "?stale&passing=true", "?consistent", "?tag=V2&tag=v2"} {
		want("health/service/"+a.Name+q, `"Service":"`+a.Name+`"`, port, `"Weights":{"Passing":3,"Warning":2}`, `"Meta":{"k":"v"}`, `"Status":"passing"`)
	}
	want("status/leader", ":")
	r.Set(t, "fail", "service:"+a.ID)
	want("health/service/"+a.Name, `"Status":"critical"`)
	want("health/service/" + a.Name + "?tag=absent")
	if _, _, answer := r.Do(t, http.MethodGet, "health/service/"+a.Name+"?passing", nil); strings.TrimSpace(answer) != "[]" {
		t.Errorf("a critical instance passes: %s", answer)
	}
	for _, path := range []string{"health/service/" + a.Name, "health/service/" + name(t) + "-absent?stale", "catalog/services", "catalog/service/" + a.Name} {
		_, h, _ := r.Do(t, http.MethodGet, path, nil)
		if index(t, h) < 1 || h.Get("X-Consul-Knownleader") != "true" || h.Get("X-Consul-Lastcontact") != "0" {
			t.Errorf("%s: header %v", path, h)
		}
	}
}

func index(t *testing.T, h http.Header) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(h.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		t.Fatalf("index of an answer: %v", err)
	}
	return n
}

func blocking(t *testing.T, r Registry) {
	a, b := inst(t, 1), inst(t, 2)
	r.Register(t, a)
	for _, path := range []string{"health/service/" + a.Name + "?passing", "catalog/service/" + a.Name + "?"} {
		_, h, _ := r.Do(t, http.MethodGet, path, nil)
		old := index(t, h)
		type answer struct {
			index uint64
			body  string
			at    time.Time
		}
		got := make(chan answer, 1)
		go func() {
			_, h, body := r.Do(t, http.MethodGet, path+"&wait=20s&index="+strconv.FormatUint(old, 10), nil)
			n, _ := strconv.ParseUint(h.Get("X-Consul-Index"), 10, 64)
			got <- answer{n, body, time.Now()}
		}()
		select {
		case x := <-got:
			t.Fatalf("%s did not wait: %+v", path, x)
		case <-time.After(300 * time.Millisecond):
		}
		changed := time.Now()
		r.Register(t, b)
		select {
		case x := <-got:
			if d := x.at.Sub(changed); d > visible || x.index <= old || !strings.Contains(x.body, b.ID) {
				t.Errorf("%s: after %v index %d, was %d: %s", path, d, x.index, old, x.body)
			}
		case <-time.After(patience):
			t.Fatalf("%s still waits", path)
		}
		r.Deregister(t, b.ID)
	}
}

func timeout(t *testing.T, r Registry) {
	a := inst(t, 1)
	r.Register(t, a)
	path := "health/service/" + a.Name + "?passing&wait=500ms&index="
	_, h, _ := r.Do(t, http.MethodGet, path+"0", nil)
	start := time.Now()
	status, again, body := r.Do(t, http.MethodGet, path+strconv.FormatUint(index(t, h), 10), nil)
	if d := time.Since(start); status != 200 || d < 450*time.Millisecond || d > 30*time.Second {
		t.Errorf("status %d after %v, want 200 after 500ms", status, d)
	}
	if index(t, again) != index(t, h) || !strings.Contains(body, a.ID) {
		t.Errorf("index %d after %d, body %s", index(t, again), index(t, h), body)
	}
}

func keepStatus(t *testing.T, r Registry) {
	a := inst(t, 1)
	a.Check = ttl(time.Hour, "critical")
	r.Register(t, a)
	r.Set(t, "pass", "service:"+a.ID)
	for range 2 {
		r.Register(t, a)
		if _, _, body := r.Do(t, http.MethodGet, "health/service/"+a.Name+"?passing", nil); !strings.Contains(body, a.ID) {
			t.Fatalf("no longer passing: %s", body)
		}
		a.Port++
	}
}

func keepChecks(t *testing.T, r Registry) {
	a := inst(t, 1)
	a.Check = ttl(time.Hour, "")
	r.Register(t, a)
	a.Check = nil
	r.Register(t, a)
	passingBody := func() string {
		_, _, body := r.Do(t, http.MethodGet, "health/service/"+a.Name+"?passing", nil)
		return strings.TrimSpace(body)
	}
	if got := passingBody(); got != "[]" {
		t.Errorf("passing although its check is critical: %s", got)
	}
	r.put(t, "agent/service/register?replace-existing-checks=true", a)
	deadline := time.Now().Add(visible)
	for passingBody() == "[]" {
		if time.Now().After(deadline) {
			t.Fatal("replace-existing-checks did not remove the check")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
