package mirror

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/plugintest"
)

// build returns the step of a route with a setting, whose copies go to other.
func build(t *testing.T, p *Plugin, setting string, other plugins.Handler) plugins.Step {
	t.Helper()
	r := plugintest.Routes(t, p, `
routes:
  - {path: /orders, service: orders, public: true, mirror: `+setting+`}
`)[0]
	if b := p.Branches(r); len(b) != 1 || b[0].Service != "orders-v2" || b[0].Upstream.Name != "orders-v2" || b[0].Mirror != nil {
		t.Fatalf("branches %+v", b)
	}
	step, err := p.BuildBranches(r, []plugins.Handler{other})
	if err != nil {
		t.Fatal(err)
	}
	return step
}

func TestACopyIsWhatTheServiceGets(t *testing.T) {
	p := New(nil)
	copies := make(chan *plugins.Exchange, 1)
	step := build(t, p, "{service: orders-v2}", func(x *plugins.Exchange) error {
		copies <- x
		return x.Client.WriteHead(plugins.ResponseHead{Status: 500})
	})
	x := plugintest.WithBody(plugintest.New("POST", "api.example.com", "/orders?a=b", "A: 1", "Authorization: Bearer x"), "content")
	x.Fields[1].Drop = true
	x.Principal = &plugins.Principal{Subject: "alice"}
	x.IdentityLines = []byte("X-Auth-Identity: x\r\n")
	x.SetTarget([]byte("/api"))
	if err := step(func(x *plugins.Exchange) error {
		if string(x.Content) != "content" {
			t.Errorf("the service gets %q", x.Content)
		}
		return plugintest.OK(x)
	})(x); err != nil {
		t.Fatal(err)
	}
	if plugintest.Client(x).Status != 200 {
		t.Errorf("the client got %d", plugintest.Client(x).Status)
	}
	for i := range x.Path { // the exchange serves another request
		x.Path[i], x.Fields[0].Line[0] = 'z', 'Z'
	}
	c := <-copies
	p.Close()
	if sent, failed, dropped := p.Stats(); sent != 1 || failed != 0 || dropped != 0 {
		t.Errorf("counted: %d sent, %d failed, %d dropped", sent, failed, dropped)
	}
	if string(c.Method) != "POST" || string(c.Path) != "/orders" || string(c.Target()) != "/api" || string(c.Query) != "a=b" || string(c.Content) != "content" {
		t.Errorf("%s %s %s %s %q", c.Method, c.Path, c.Target(), c.Query, c.Content)
	}
	if len(c.Fields) != 1 || string(c.Fields[0].Line) != "A: 1\r\n" || c.Principal != x.Principal || len(c.IdentityLines) > 0 || c.Route.Service != "orders-v2" {
		t.Errorf("%d fields, %q, principal %v, route to %s", len(c.Fields), c.Fields[0].Line, c.Principal, c.Route.Service)
	}
}

func TestTheClientNeverWaitsForCopies(t *testing.T) {
	p := New(nil)
	hold, started := make(chan struct{}), atomic.Int64{}
	step := build(t, p, "{service: orders-v2, max_in_flight: 3}", func(*plugins.Exchange) error {
		started.Add(1)
		<-hold
		return nil
	})
	for range 20 {
		if err := step(plugintest.OK)(plugintest.New("GET", "h", "/orders")); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	p.Close()
	if n := started.Load(); n != 3 {
		t.Errorf("%d copies, want 3", n)
	}
}

func TestRequestsThatAreNotSmallAreNotCopied(t *testing.T) {
	p := New(nil)
	var copies atomic.Int64
	step := build(t, p, "{service: orders-v2}", func(*plugins.Exchange) error { copies.Add(1); return nil })
	large := plugintest.WithBody(plugintest.New("POST", "h", "/orders"), strings.Repeat("x", mostContent+1))
	streamed := plugintest.WithBody(plugintest.New("POST", "h", "/orders"), "content")
	streamed.BodyLength = -1
	short := plugintest.WithBody(plugintest.New("POST", "h", "/orders"), "half")
	short.BodyLength = 10
	socket := plugintest.New("GET", "h", "/orders")
	socket.WebSocket = true
	for _, x := range []*plugins.Exchange{large, streamed, short, socket} {
		if err := step(plugintest.OK)(x); err != nil || len(x.Content) > 0 {
			t.Errorf("%v, content %q", err, x.Content)
		}
	}
	p.Close()
	if n := copies.Load(); n != 0 {
		t.Errorf("%d copies", n)
	}
	if sent, failed, dropped := p.Stats(); sent != 0 || failed != 0 || dropped != 3 {
		t.Errorf("counted: %d sent, %d failed, %d dropped", sent, failed, dropped)
	}
}

func TestAShareIsCopiedAndADefectStaysThere(t *testing.T) {
	p := New(nil)
	var copies atomic.Int64
	step := build(t, p, "{service: orders-v2, share: 25%, max_in_flight: 10000}", func(*plugins.Exchange) error {
		copies.Add(1)
		panic("a defect")
	})
	for range 4000 {
		if err := step(plugintest.OK)(plugintest.New("GET", "h", "/orders")); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	if n := copies.Load(); n < 800 || n > 1200 {
		t.Errorf("%d of 4000 copies, want about 1000", n)
	}
	if sent, failed, dropped := p.Stats(); sent != 0 || failed != uint64(copies.Load()) || dropped != 0 {
		t.Errorf("counted: %d sent, %d failed, %d dropped", sent, failed, dropped)
	}
}
