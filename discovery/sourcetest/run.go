package sourcetest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
)

// Run is the whole suite, for a source that finds what is registered in r.
func Run(t *testing.T, src discovery.Source, r Registry) {
	for _, c := range []struct {
		promise string
		test    func(*testing.T, discovery.Source, Registry)
	}{
		{"a change is found within a second", changes},
		{"only passing instances are found", passing},
		{"all checks of an instance must pass", allChecks},
		{"an instance whose TTL ends is not found", ttlEnds},
		{"an HTTP check is really run", httpCheck},
		{"a tag selects instances", tags},
		{"weights are multiplied with gw_weight", weights},
		{"a re-registration keeps the id", reRegistration},
		{"an instance without address has its node's", nodeAddress},
		{"a service that does not exist is an empty set", absent},
		{"other services disturb neither set nor loop", others},
		{"an unusable instance drops only itself", unusable},
		{"many watches at once", many},
	} {
		t.Run(c.promise, func(t *testing.T) { c.test(t, src, r) })
	}
	t.Run("fixed", func(t *testing.T) {
		a, b := inst(t, 1), inst(t, 2)
		r.Register(t, a)
		r.Register(t, b)
		RunFixed(t, src, discovery.Query{Service: a.Name}, a.addr(), b.addr())
	})
}

// service watches the test's own service.
func service(t *testing.T, src discovery.Source) *Watched {
	t.Helper()
	return Start(t, src, discovery.Query{Service: name(t)})
}

func changes(t *testing.T, src discovery.Source, r Registry) {
	a, b := inst(t, 1), inst(t, 2)
	r.Register(t, a)
	w := service(t, src)
	w.Want(patience, "first set", a.addr())
	r.Register(t, b)
	w.Want(visible, "registered", a.addr(), b.addr())
	r.Deregister(t, a.ID)
	w.Want(visible, "deregistered", b.addr())
	r.Deregister(t, b.ID)
	w.Want(visible, "the last one deregistered")
	r.Register(t, a)
	w.Want(visible, "registered again", a.addr())
}

func passing(t *testing.T, src discovery.Source, r Registry) {
	a, b := inst(t, 1), inst(t, 2)
	a.Check, b.Check = ttl(time.Hour, "passing"), ttl(time.Hour, "")
	r.Register(t, a)
	r.Register(t, b)
	w := service(t, src)
	w.Want(patience, "b was never reported healthy", a.addr())
	r.Set(t, "pass", "service:"+b.ID)
	w.Want(visible, "b passes", a.addr(), b.addr())
	r.Set(t, "warn", "service:"+a.ID)
	w.Want(visible, "a warns", b.addr())
	r.Set(t, "fail", "service:"+b.ID)
	w.Want(visible, "b fails")
	r.Set(t, "pass", "service:"+a.ID)
	w.Want(visible, "a passes", a.addr())
}

func allChecks(t *testing.T, src discovery.Source, r Registry) {
	a := inst(t, 1)
	a.Checks = []*Check{ttl(time.Hour, "passing"), {CheckID: a.ID + "-deep", TTL: "1h", Status: "passing"}}
	r.Register(t, a)
	w := service(t, src)
	w.Want(patience, "both pass", a.addr())
	r.Set(t, "fail", a.ID+"-deep")
	w.Want(visible, "one fails")
	r.Set(t, "pass", a.ID+"-deep")
	w.Want(visible, "both pass again", a.addr())
	r.Set(t, "warn", "service:"+a.ID+":1")
	w.Want(visible, "the other warns")
}

func ttlEnds(t *testing.T, src discovery.Source, r Registry) {
	a := inst(t, 1)
	const life = 2 * time.Second
	a.Check = ttl(life, "passing")
	w := service(t, src)
	r.Register(t, a)
	w.Want(patience, "alive", a.addr())
	w.Want(life+visible+time.Second/2, "silent")
	r.Set(t, "pass", "service:"+a.ID)
	w.Want(visible, "alive again", a.addr())
}

func httpCheck(t *testing.T, src discovery.Source, r Registry) {
	var status atomic.Int32
	status.Store(http.StatusOK)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/healthz" {
			t.Errorf("checked at %s", req.URL)
		}
		w.WriteHeader(int(status.Load()))
	}))
	defer backend.Close()
	a := inst(t, 1)
	a.Check = &Check{HTTP: backend.URL + "/healthz", Interval: "1s", Timeout: "500ms"}
	r.Register(t, a)
	defer r.Deregister(t, a.ID) // before its backend is gone
	w := service(t, src)
	const interval = 2 * time.Second // Consul adds some jitter
	w.Want(patience, "answers 200", a.addr())
	for _, bad := range []int{500, 404, 429} {
		status.Store(int32(bad))
		w.Want(interval+visible, fmt.Sprint("answers ", bad))
		status.Store(http.StatusNoContent)
		w.Want(interval+visible, "answers 204", a.addr())
	}
}

func tags(t *testing.T, src discovery.Source, r Registry) {
	a, b := inst(t, 1), inst(t, 2)
	a.Tags, b.Tags = []string{"v1", "eu"}, []string{"v2", "eu"}
	r.Register(t, a)
	r.Register(t, b)
	all := Start(t, src, discovery.Query{Service: a.Name})
	v2 := Start(t, src, discovery.Query{Service: a.Name, Tag: "v2"})
	none := Start(t, src, discovery.Query{Service: a.Name, Tag: "v3"})
	eps := all.Want(patience, "no tag", a.addr(), b.addr())
	if got := strings.Join(eps[0].Tags, ","); got != "v1,eu" {
		t.Errorf("tags %s, want v1,eu", got)
	}
	v2.Want(patience, "tag v2", b.addr())
	none.Want(patience, "tag v3")
	a.Tags = []string{"v2"}
	r.Register(t, a)
	v2.Want(visible, "tag v2 moved", a.addr(), b.addr())
}

func weights(t *testing.T, src discovery.Source, r Registry) {
	a, b, c := inst(t, 1), inst(t, 2), inst(t, 3)
	b.Weights = &Weights{Passing: 10, Warning: 1}
	c.Weights, c.Meta = b.Weights, map[string]string{"gw_weight": "3", "gw_zone": "z1"}
	for _, i := range []Instance{a, b, c} {
		r.Register(t, i)
	}
	eps := service(t, src).Want(patience, "all", a.addr(), b.addr(), c.addr())
	for i, want := range []int{1, 10, 30} {
		if eps[i].Weight != want {
			t.Errorf("%s has weight %d, want %d", eps[i].ID, eps[i].Weight, want)
		}
	}
	if eps[2].Meta["gw_zone"] != "z1" {
		t.Errorf("meta %v", eps[2].Meta)
	}
}

func reRegistration(t *testing.T, src discovery.Source, r Registry) {
	a := inst(t, 1)
	r.Register(t, a)
	w := service(t, src)
	before := w.Want(patience, "first", a.addr())
	a.Address = "10.1.2.77"
	r.Register(t, a)
	after := w.Want(visible, "moved", a.addr())
	r.Deregister(t, a.ID)
	w.Want(visible, "gone")
	r.Register(t, a)
	again := w.Want(visible, "back", a.addr())
	if before[0].ID != after[0].ID || before[0].ID != again[0].ID {
		t.Errorf("ids %q, %q, %q of one instance", before[0].ID, after[0].ID, again[0].ID)
	}
}

func nodeAddress(t *testing.T, src discovery.Source, r Registry) {
	a := inst(t, 1)
	a.Address = ""
	r.Register(t, a)
	service(t, src).Want(patience, "the node's address", "127.0.0.1:8001")
}

func absent(t *testing.T, src discovery.Source, r Registry) {
	w := service(t, src)
	w.Want(patience, "nobody there")
	a := inst(t, 1)
	r.Register(t, a)
	w.Want(visible, "the first instance ever", a.addr())
}

func others(t *testing.T, src discovery.Source, r Registry) {
	a := inst(t, 1)
	r.Register(t, a)
	w, nobody := service(t, src), Start(t, src, discovery.Query{Service: name(t) + "-nobody"})
	w.Want(patience, "first set", a.addr())
	nobody.Want(patience, "empty")
	before := w.Sets() + nobody.Sets()
	other := inst(t, 2)
	other.Name += "-other"
	for i := range 40 {
		other.Port = 9000 + i
		r.Register(t, other)
	}
	w.Want(visible, "the same set", a.addr())
	nobody.Want(visible, "still empty")
	if n := w.Sets() + nobody.Sets() - before; n > 15 {
		t.Errorf("40 changes of another service were found %d times", n)
	}
}

func unusable(t *testing.T, src discovery.Source, r Registry) {
	a, noPort, noIP := inst(t, 1), inst(t, 2), inst(t, 3)
	noPort.Port, noIP.Address = 0, "not an address"
	for _, i := range []Instance{a, noPort, noIP} {
		r.Register(t, i)
	}
	service(t, src).Want(patience, "the usable one", a.addr())
}

func many(t *testing.T, src discovery.Source, r Registry) {
	const n = 30
	watches := make([]*Watched, n)
	at := func(i int) Instance {
		x := inst(t, i+1)
		x.Name += fmt.Sprint("-", i)
		return x
	}
	for i := range watches {
		watches[i] = Start(t, src, discovery.Query{Service: at(i).Name})
	}
	for _, w := range watches {
		w.Want(patience, "empty")
	}
	for i := range watches {
		r.Register(t, at(i))
	}
	for i, w := range watches {
		w.Want(2*visible, "registered", at(i).addr()) // n registrations take their time too
	}
}
