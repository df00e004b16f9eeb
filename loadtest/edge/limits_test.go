package edge

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// limited is a gateway of its own with these settings of server:.
func limited(t *testing.T, server string) *rig.Gateway {
	t.Helper()
	o, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return rig.Run(t, rig.Options{Config: fmt.Sprintf("server: {drain_delay: 1ms, %s}\nservices: {a: {targets: [\"http://%s\"]}}\nroutes: [{path: /**, service: a, public: true}]\n", server, o.Addr)})
}

func TestLimitsOfSizeAndNumber(t *testing.T) {
	t.Parallel()
	g := limited(t, "max_connections: 20, max_header_bytes: 2KiB, max_headers: 10, max_body_bytes: 1000")
	f := func(name, raw string, want int, reason string) {
		t.Helper()
		before := g.Metric(t, "gateway_refusals_total", `reason="`+reason+`"`)
		c := rig.Dial(t, g.Addr)
		defer c.Close()
		if a := c.Ask(method(raw), raw); a.Status != want || want != 200 && !strings.Contains(a.Body, reason) {
			t.Errorf("%s: got %q%q", name, a.Head, a.Body)
		}
		if want == 200 {
			return
		}
		if err := ended(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		rig.Eventually(t, name+" is counted", func() bool { return g.Metric(t, "gateway_refusals_total", `reason="`+reason+`"`) > before })
	}
	const head = "POST /a HTTP/1.1\r\nHost: a\r\n"
	f("as many fields as may be", head+strings.Repeat("X-A: 1\r\n", 9)+"\r\n", 200, "")
	f("a field more", head+strings.Repeat("X-A: 1\r\n", 10)+"\r\n", 431, "header_too_large")
	f("a long field", head+"X-A: "+strings.Repeat("a", 4<<10)+"\r\n\r\n", 431, "header_too_large")
	f("a long target", "GET /"+strings.Repeat("a", 4<<10)+" HTTP/1.1\r\nHost: a\r\n\r\n", 431, "header_too_large")
	f("as much content as may be", head+"Content-Length: 1000\r\n\r\n"+strings.Repeat("a", 1000), 200, "")
	f("more of it", head+"Content-Length: 1001\r\n\r\n"+strings.Repeat("a", 1001), 413, "body_too_large")
	f("more of it in chunks", head+"Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat("64\r\n"+strings.Repeat("a", 100)+"\r\n", 11)+"0\r\n\r\n", 413, "body_too_large")

	before := g.Metric(t, "gateway_connections_refused_total")
	for range 20 {
		c := rig.Dial(t, g.Addr)
		if a := c.Ask("GET", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); a.Status == 0 {
			break // those before are still being closed
		}
	}
	rig.Eventually(t, "a connection over the limit is closed and counted", func() bool {
		c := rig.Dial(t, g.Addr)
		defer c.Close()
		return c.Ask("GET", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").Status == 0 && g.Metric(t, "gateway_connections_refused_total") > before
	})
}

// An answer that took longer than a client may take to read is still written.
func TestAnswersThatAreLongInComing(t *testing.T) {
	t.Parallel()
	o, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	o.Reset(func(c *rig.Conn) {
		for {
			if _, err := c.ReadRequest(); err != nil {
				return
			}
			time.Sleep(700 * time.Millisecond)
			c.Say(rig.OK)
		}
	})
	g := rig.Run(t, rig.Options{Config: fmt.Sprintf("server: {drain_delay: 1ms, write_idle_timeout: 500ms}\nservices: {a: {targets: [\"http://%s\"]}}\nroutes: [{path: /**, service: a, public: true}]\n", o.Addr)})
	c := rig.Dial(t, g.Addr)
	for range 2 {
		if a := c.Ask("GET", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); a.Status != 200 || !a.Whole {
			t.Errorf("got %q (%v)", a.Head, a.Err)
		}
	}
}

func TestLimitsOfTime(t *testing.T) {
	t.Parallel()
	g := limited(t, "header_timeout: 500ms, idle_timeout: 500ms, body_idle_timeout: 500ms, write_idle_timeout: 500ms")
	c := rig.Dial(t, g.Addr)
	if a := c.Ask("GET", "GET /a HTTP/1.1\r\nHost"); a.Status != 408 {
		t.Errorf("half a head: %q", a.Head)
	}
	c = rig.Dial(t, g.Addr)
	if a := c.Ask("POST", "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"); a.Status != 408 {
		t.Errorf("half of the content: %q", a.Head)
	}
	if err := ended(c); err != nil {
		t.Error(err)
	}
	c = rig.Dial(t, g.Addr)
	if a := c.Ask("GET", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"); a.Status != 200 {
		t.Errorf("got %q", a.Head)
	}
	if err := ended(c); err != nil {
		t.Errorf("idle: %v", err)
	}
	if err := ended(rig.Dial(t, g.Addr)); err != nil {
		t.Errorf("silent: %v", err)
	}
}
