package cache

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

func TestMistakesAreNamedWithTheirPlace(t *testing.T) {
	plugintest.Bad(t, "testdata/bad/*.yaml", func(path string) error {
		_, err := plugintest.Load(path, New())
		return err
	})
}

// rig is a cache before a scripted service.
type rig struct {
	t       *testing.T
	plugin  *Plugin
	handler plugins.Handler
	now     time.Time
	asked   int
	answer  func(x *plugins.Exchange) (status int, fields, content string)
}

func newRig(t *testing.T, setting string) *rig {
	t.Helper()
	r := &rig{t: t, plugin: New(), now: plugintest.Time}
	steps := plugintest.Steps(t, r.plugin, `
routes:
  - {path: /orders/**, service: orders, public: true, cache: `+setting+`}
  - {path: /v2, service: orders-v2, public: true}
`)
	if steps[1] != nil {
		t.Error("a route without cache has a step")
	}
	r.handler = steps[0](r.serve)
	return r
}

func (r *rig) serve(x *plugins.Exchange) error {
	r.asked++
	status, fields, content := r.answer(x)
	x.Record.Status = status
	h := plugins.ResponseHead{Status: status, Fields: []byte(fields), Length: -1, Date: !strings.Contains(fields, "Date:")}
	if err := x.Client.WriteHead(h); err != nil {
		return err
	}
	if string(x.Method) != "HEAD" {
		if _, err := x.Client.Write([]byte(content)); err != nil {
			return err
		}
	}
	return x.Client.Finish()
}

// says makes the service answer 200 with the fields and a number.
func (r *rig) says(fields string) {
	r.answer = func(*plugins.Exchange) (int, string, string) { return 200, fields, fmt.Sprint("answer ", r.asked) }
}

func (r *rig) send(change func(*plugins.Exchange), method, target string, header ...string) *plugintest.Recorder {
	r.t.Helper()
	x := plugintest.New(method, "api.example.com", target, header...)
	x.Time = r.now
	if change != nil {
		change(x)
	}
	if err := r.handler(x); err != nil {
		r.t.Fatal(err)
	}
	c := plugintest.Client(x)
	if !c.Finished {
		r.t.Error("the response is not complete")
	}
	return c
}

// get wants the content of a GET.
func (r *rig) get(want, target string, header ...string) *plugintest.Recorder {
	r.t.Helper()
	c := r.send(nil, "GET", target, header...)
	if c.Content.String() != want {
		r.t.Errorf("%s %v: %q, want %q", target, header, c.Content.String(), want)
	}
	return c
}

func TestFreshResponsesAreUsedAgain(t *testing.T) {
	r := newRig(t, "{}")
	r.says("Cache-Control: max-age=60\r\nX-A: 1\r\nAge: 10\r\n")
	if c := r.get("answer 1", "/orders/1"); c.Fields != "Cache-Control: max-age=60\r\nX-A: 1\r\nAge: 10\r\nCache-Status: gatehouse; fwd=miss\r\n" {
		t.Errorf("miss: %q", c.Fields)
	}
	r.now = r.now.Add(20 * time.Second)
	c := r.get("answer 1", "/orders/1")
	const want = "Cache-Control: max-age=60\r\nX-A: 1\r\nDate: Fri, 02 Jan 2026 03:04:05 GMT\r\nContent-Length: 8\r\nAge: 30\r\nCache-Status: gatehouse; hit\r\n"
	if c.Fields != want || c.Head.Length != 8 || c.Head.Date {
		t.Errorf("hit: %q", c.Fields)
	}
	if h := r.send(nil, "HEAD", "/orders/1"); h.Content.Len() > 0 || h.Fields != want || h.Head.Length != 0 {
		t.Errorf("HEAD: %q", h.Fields)
	}
	r.get("answer 2", "/orders/2")
	r.get("answer 3", "/orders/1?a=b")
	r.now = r.now.Add(31 * time.Second)
	r.get("answer 4", "/orders/1")
}

func TestOnlyWhatMayBeStoredIs(t *testing.T) {
	f := func(stored bool, fields string, header ...string) {
		t.Helper()
		r := newRig(t, "{}")
		r.says(fields)
		r.get("answer 1", "/orders/1", header...)
		want := "answer 2"
		if stored {
			want = "answer 1"
		}
		r.get(want, "/orders/1", header...)
	}
	f(true, "Cache-Control: max-age=60\r\n")
	f(true, "Cache-Control: s-maxage=60, max-age=0\r\n")
	f(true, "Date: Fri, 02 Jan 2026 03:04:05 GMT\r\nExpires: Fri, 02 Jan 2026 03:05:05 GMT\r\n")
	f(false, "")
	f(false, "ETag: \"a\"\r\n")
	f(false, "Cache-Control: max-age=0\r\n")
	f(false, "Cache-Control: max-age=abc\r\n")
	f(false, "Cache-Control: max-age=60, max-age=0\r\n")
	f(false, "Cache-Control: max-age=60\r\nAge: 60\r\n")
	f(false, "Cache-Control: no-store, max-age=60\r\n")
	f(false, "Cache-Control: private, max-age=60\r\n")
	f(false, "Cache-Control: max-age=60\r\nCache-Control: Private\r\n")
	f(false, "Expires: 0\r\n")
	f(false, "Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n")
	f(false, "Cache-Control: max-age=60\r\nVary: *\r\n")
	f(false, "Cache-Control: max-age=60\r\nVary: Accept, X-Auth-Subject\r\n")
	f(false, "Cache-Control: public, max-age=60\r\nVary: Authorization\r\n")
	f(false, "Cache-Control: max-age=60\r\n", "Cache-Control: no-store")
	f(false, "Cache-Control: max-age=60\r\n", "Cache-Control: no-cache")
	f(false, "Cache-Control: max-age=60\r\n", "Pragma: no-cache")
	f(false, "Cache-Control: max-age=60\r\n", "Range: bytes=0-1")
	f(false, "Cache-Control: max-age=60\r\n", "If-Match: \"a\"")
	// Credentials (RFC 9111, 3.5).
	f(false, "Cache-Control: max-age=60\r\n", "Authorization: Bearer x")
	f(false, "Cache-Control: max-age=60\r\n", "Cookie: a=b")
	f(true, "Cache-Control: max-age=60, public\r\n", "Authorization: Bearer x")
	f(true, "Cache-Control: max-age=60, must-revalidate\r\n", "Authorization: Bearer x")
	f(true, "Cache-Control: s-maxage=60\r\n", "Authorization: Bearer x")
}

func TestWhatACallerGotIsNotGivenToAnother(t *testing.T) {
	alice := func(x *plugins.Exchange) { x.Principal = &plugins.Principal{Subject: "alice"} }
	bob := func(x *plugins.Exchange) { x.Principal = &plugins.Principal{Subject: "bob"} }
	f := func(fields string, shared bool) {
		t.Helper()
		r := newRig(t, "{}")
		r.says(fields)
		r.send(alice, "GET", "/orders/1")
		if c := r.send(bob, "GET", "/orders/1"); (c.Content.String() == "answer 1") != shared {
			t.Errorf("%q: bob gets %q", fields, c.Content.String())
		}
		// Nor is what was stored for nobody given to whoever calls by name.
		open := newRig(t, "{}")
		open.says(fields)
		open.get("answer 1", "/orders/1")
		if c := open.send(bob, "GET", "/orders/1"); (c.Content.String() == "answer 1") != shared {
			t.Errorf("%q: after nobody, bob gets %q", fields, c.Content.String())
		}
	}
	f("Cache-Control: max-age=60\r\n", false)
	f("Cache-Control: max-age=60, public\r\n", true)
	f("Cache-Control: s-maxage=60\r\n", true)
}

func TestVariantsAreToldApart(t *testing.T) {
	r := newRig(t, "{}")
	r.says("Cache-Control: max-age=60\r\nVary: Accept, X-Tenant\r\n")
	r.get("answer 1", "/orders/1", "Accept: a", "X-Tenant: 1")
	r.get("answer 2", "/orders/1", "Accept: b", "X-Tenant: 1")
	r.get("answer 3", "/orders/1", "Accept: a", "X-Tenant: 2")
	r.get("answer 4", "/orders/1", "Accept: a")
	r.get("answer 1", "/orders/1", "X-Tenant: 1", "accept: a")
	r.get("answer 5", "/orders/1", "Accept: a", "Accept: ", "X-Tenant: 1")
}

func TestStaleResponsesAreConfirmed(t *testing.T) {
	r := newRig(t, "{}")
	r.answer = func(x *plugins.Exchange) (int, string, string) {
		for i := range x.Fields {
			if is(x.Fields[i].Name, "if-none-match") && !x.Fields[i].Drop && string(x.Fields[i].Value) == `"v1"` {
				return 304, "Cache-Control: max-age=30\r\nETag: \"v1\"\r\n", ""
			}
		}
		return 200, "Content-Type: text/plain\r\nCache-Control: max-age=10\r\nETag: \"v1\"\r\n", fmt.Sprint("answer ", r.asked)
	}
	r.get("answer 1", "/orders/1")
	r.now = r.now.Add(11 * time.Second)
	c := r.get("answer 1", "/orders/1", `If-None-Match: "other"`)
	const want = "Content-Type: text/plain\r\nContent-Length: 8\r\nCache-Control: max-age=30\r\nETag: \"v1\"\r\nDate: Fri, 02 Jan 2026 03:04:16 GMT\r\nAge: 0\r\nCache-Status: gatehouse; hit; detail=revalidated\r\n"
	if c.Status != 200 || c.Fields != want || r.asked != 2 {
		t.Errorf("%d %q after %d questions", c.Status, c.Fields, r.asked)
	}
	r.now = r.now.Add(29 * time.Second)
	if r.get("answer 1", "/orders/1"); r.asked != 2 {
		t.Error("it was asked again")
	}
	// The client's own tag is compared with what is stored.
	for _, tag := range []string{`"v1"`, `W/"v1"`, `"a", "v1"`, `*`} {
		c := r.get("", "/orders/1", "If-None-Match: "+tag)
		if c.Status != 304 || strings.Contains(c.Fields, "Content-Length") || r.asked != 2 {
			t.Errorf("%s: %d %q", tag, c.Status, c.Fields)
		}
	}
	r.now = r.now.Add(2 * time.Second)
	r.answer = func(*plugins.Exchange) (int, string, string) { return 200, "Cache-Control: max-age=10\r\n", "new" }
	if c := r.get("new", "/orders/1"); !strings.Contains(c.Fields, "fwd=stale") {
		t.Errorf("changed: %q", c.Fields)
	}
	r.get("new", "/orders/1")
	r.send(nil, "GET", "/orders/1", "Cache-Control: no-store")
	counts := map[string]uint64{"miss": 1, "revalidated": 1, "hit": 6, "stale": 1, "bypass": 1}
	if s := r.plugin.Stats(); !maps.Equal(s.Results, counts) || s.Entries != 1 || s.Bytes == 0 {
		t.Errorf("counted: %+v", s)
	}
}

func TestAConfirmationMayEndTheStoring(t *testing.T) {
	r := newRig(t, "{}")
	r.says("Cache-Control: max-age=10\r\nETag: \"v1\"\r\n")
	r.get("answer 1", "/orders/1")
	r.now = r.now.Add(11 * time.Second)
	r.answer = func(*plugins.Exchange) (int, string, string) { return 304, "Cache-Control: private\r\n", "" }
	r.get("answer 1", "/orders/1")
	r.says("")
	r.get("answer 3", "/orders/1")
}

func TestRequestsMayWantYoungerResponses(t *testing.T) {
	r := newRig(t, "{}")
	r.says("Cache-Control: max-age=60\r\n")
	r.get("answer 1", "/orders/1")
	r.now = r.now.Add(20 * time.Second)
	r.get("answer 1", "/orders/1", "Cache-Control: max-age=30")
	r.get("answer 2", "/orders/1", "Cache-Control: max-age=10")
	r.get("answer 2", "/orders/1")
}

func TestUnsafeMethodsInvalidate(t *testing.T) {
	r := newRig(t, "{}")
	r.says("Cache-Control: max-age=60\r\n")
	r.get("answer 1", "/orders/1")
	r.answer = func(*plugins.Exchange) (int, string, string) { return 403, "", "" }
	r.send(nil, "DELETE", "/orders/1")
	r.says("Cache-Control: max-age=60\r\n")
	r.get("answer 1", "/orders/1")
	r.send(nil, "POST", "/orders/1")
	r.get("answer 4", "/orders/1")
}

func TestTheStoreIsBounded(t *testing.T) {
	r := newRig(t, "{max_bytes: 64KiB, max_entry: 8KiB}")
	content := strings.Repeat("x", 7<<10)
	r.answer = func(*plugins.Exchange) (int, string, string) { return 200, "Cache-Control: max-age=60\r\n", content }
	for i := range 100 {
		r.get(content, fmt.Sprint("/orders/", i))
		r.get(content, "/orders/0")
	}
	for _, s := range r.plugin.stores {
		if s.bytes > s.most || s.bytes < s.most/2 || s.order.Len() != len(s.byURI) || s.gathering.Load() != 0 {
			t.Errorf("%d bytes in %d entries, %d under way", s.bytes, s.order.Len(), s.gathering.Load())
		}
	}
	if r.asked != 100 {
		t.Errorf("what is used often was given up: %d questions", r.asked)
	}
	content = strings.Repeat("x", 9<<10)
	r.get(content, "/orders/large")
	r.get(content, "/orders/large")
	if r.asked != 102 {
		t.Error("a response above max_entry was stored")
	}
}

func TestIncompleteResponsesAreNotStored(t *testing.T) {
	r := newRig(t, "{}")
	failure := errors.New("the service broke off")
	handler := plugintest.Steps(t, r.plugin, `
routes:
  - {path: /orders/**, service: orders, public: true, cache: {}}
  - {path: /v2, service: orders-v2, public: true}
`)[0](func(x *plugins.Exchange) error {
		if err := x.Client.WriteHead(plugins.ResponseHead{Status: 200, Length: 10, Fields: []byte("Cache-Control: max-age=60\r\n")}); err != nil {
			return err
		}
		_, _ = x.Client.Write([]byte("half"))
		return failure
	})
	if err := handler(plugintest.New("GET", "api.example.com", "/orders/1")); err != failure {
		t.Fatal(err)
	}
	r.says("Cache-Control: max-age=60\r\n")
	r.get("answer 1", "/orders/1")
}

func TestManyRequestsAtOnce(t *testing.T) {
	p := New()
	handler := plugintest.Steps(t, p, `
routes:
  - {path: /orders/**, service: orders, public: true, cache: {max_bytes: 16KiB, max_entry: 4KiB}}
  - {path: /v2, service: orders-v2, public: true}
`)[0](func(x *plugins.Exchange) error {
		h := plugins.ResponseHead{Status: 200, Length: -1, Fields: []byte("Cache-Control: max-age=60\r\n")}
		if err := x.Client.WriteHead(h); err != nil {
			return err
		}
		if _, err := x.Client.Write(x.Path); err != nil {
			return err
		}
		return x.Client.Finish()
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 300 {
				path := fmt.Sprint("/orders/", i%40)
				method := "GET"
				if i%17 == 0 {
					method = "POST"
				}
				x := plugintest.New(method, "api.example.com", path)
				if err := handler(x); err != nil || plugintest.Client(x).Content.String() != path {
					t.Errorf("%s: %q, %v", path, plugintest.Client(x).Content.String(), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestHitsStayWithinTheirBudget(t *testing.T) {
	r := newRig(t, "{}")
	r.says("Cache-Control: max-age=60\r\nVary: Accept\r\n")
	r.get("answer 1", "/orders/1", "Accept: a")
	x := plugintest.New("GET", "api.example.com", "/orders/1", "Accept: a")
	if n := testing.AllocsPerRun(200, func() {
		*plugintest.Client(x) = plugintest.Recorder{}
		_ = r.handler(x)
	}); n > 16 || r.asked != 1 {
		t.Errorf("%v allocations, want at most 16; %d questions", n, r.asked)
	}
}
