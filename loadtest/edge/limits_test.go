package edge

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

const (
	limitGet  = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
	limitPost = "POST /a HTTP/1.1\r\nHost: a\r\n"
	limitWS   = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

// bounded is a gateway with small limits, and an origin that answers when it is
// let to.
type bounded struct {
	*rig.Gateway
	t     *testing.T
	began chan struct{} // gets one for each request to /hold
	leave chan struct{} // closed: they are answered
}

func newBounded(t *testing.T, server string) *bounded {
	t.Helper()
	o, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	b := &bounded{t: t, began: make(chan struct{}, 100), leave: make(chan struct{})}
	o.Reset(func(c *rig.Conn) {
		for {
			r, err := c.ReadRequest()
			if err != nil {
				return
			}
			switch path := strings.Fields(r.Head)[1]; {
			case strings.HasPrefix(path, "/hold"):
				if path == "/hold" {
					b.began <- struct{}{}
				}
				<-b.leave
				c.Say(rig.OK)
			case path == "/large":
				c.Say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + strings.Repeat("a", 100_000_000))
			case path == "/ws":
				c.Say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
					"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
				c.Gone()
			default:
				c.Say(rig.OK)
			}
		}
	})
	b.Gateway = rig.Run(t, rig.Options{
		Listeners: []string{"{address: \"127.0.0.1:@PORT1@\", protocol: h2c}"},
		Config: fmt.Sprintf(`server: {drain_delay: 1ms, drain_timeout: 1s, %s}
services:
  a: {targets: ["http://%[2]s"]}
  single: {targets: ["http://%[2]s"], max_connections: 1, retries: {attempts: 1}, timeouts: {pending: 50ms}}
  patient: {targets: ["http://%[2]s"], max_connections: 1, max_pending: 1, retries: {attempts: 1}, timeouts: {pending: 20s}}
routes:
  - {path: /**, service: a, public: true}
  - {path: /ws, service: a, public: true, streams: {websocket: true}}
  - {path: /hold, service: single, public: true}
  - {path: /hold-patient, service: patient, public: true}
`, server, o.Addr),
	})
	return b
}

// refuses promises that raw, on a connection of its own, is answered with the
// status and the reason.
func (b *bounded) refuses(raw string, status int, reason string) {
	b.t.Helper()
	c := rig.Dial(b.t, b.Addr)
	defer c.Close()
	if a := c.Ask(method(raw), raw); a.Status != status || !strings.Contains(a.Body, reason) {
		b.t.Errorf("%.60q: got %q%q, want %d %s", raw, a.Head, a.Body, status, reason)
	}
}

// passes promises 200.
func (b *bounded) passes(raw string) {
	b.t.Helper()
	c := rig.Dial(b.t, b.Addr)
	defer c.Close()
	if a := c.Ask(method(raw), raw); a.Status != 200 {
		b.t.Errorf("%.60q: got %q%q", raw, a.Head, a.Body)
	}
}

// surplus opens connections until one is closed at once.
func (b *bounded) surplus(most int) {
	b.t.Helper()
	rig.Eventually(b.t, "a connection over the limit is closed", func() bool {
		for range most + 1 {
			if rig.Dial(b.t, b.Addr).Ask("GET", limitGet).Status == 0 {
				return true
			}
		}
		return false
	})
}

// limitRow is a limit of the table in docs/edge.md: how it is exceeded, and
// where that is counted.
type limitRow struct {
	key    string // as the table has it
	exceed func(b *bounded)
	metric string // "" where the table names none
	label  string
}

func limitsOfSize(b *bounded) []limitRow {
	const refusals = "gateway_refusals_total"
	reason := func(code string) string { return `reason="` + code + `"` }
	return []limitRow{
		{"max_header_bytes", func(b *bounded) {
			b.refuses(limitPost+"X-A: "+strings.Repeat("a", 4<<10)+"\r\n\r\n", 431, "header_too_large")
		}, refusals, reason("header_too_large")},
		{"max_headers", func(b *bounded) {
			b.passes(limitPost + strings.Repeat("X-A: 1\r\n", 9) + "\r\n")
			b.refuses(limitPost+strings.Repeat("X-A: 1\r\n", 10)+"\r\n", 431, "header_too_large")
		}, refusals, reason("header_too_large")},
		{"max_url_bytes", func(b *bounded) {
			b.passes("GET /" + strings.Repeat("a", 1023) + " HTTP/1.1\r\nHost: a\r\n\r\n")
			b.refuses("GET /"+strings.Repeat("a", 1024)+" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "url_too_long")
			b.refuses("GET /a?"+strings.Repeat("a", 4<<10)+" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "url_too_long")
			c := dialFrames(b.t, b.Extra[0])
			for _, n := range []int{1024, 4 << 10} {
				if r := c.ask(message(":authority", "a", ":path", "/"+strings.Repeat("a", n))); r.status != 414 || !strings.Contains(r.body, "url_too_long") {
					b.t.Errorf("HTTP/2, %d bytes: %s %q", n, r.outcome(), r.body)
				}
			}
		}, refusals, reason("url_too_long")},
		{"max_body_bytes", func(b *bounded) {
			b.passes(limitPost + "Content-Length: 1000\r\n\r\n" + strings.Repeat("a", 1000))
			b.refuses(limitPost+"Content-Length: 1001\r\n\r\n"+strings.Repeat("a", 1001), 413, "body_too_large")
			b.refuses(limitPost+"Transfer-Encoding: chunked\r\n\r\n"+strings.Repeat("64\r\n"+strings.Repeat("a", 100)+"\r\n", 11)+"0\r\n\r\n", 413, "body_too_large")
		}, refusals, reason("body_too_large")},
		{"max_tunnels", func(b *bounded) {
			if a := rig.Dial(b.t, b.Addr).Ask("GET", limitWS); a.Status != 101 {
				b.t.Errorf("the first tunnel: %q%q", a.Head, a.Body)
			}
			b.refuses(limitWS, 503, "tunnel_limit")
		}, "gateway_tunnels_refused_total", ""},
		{"max_streams", func(b *bounded) {
			c := dialFrames(b.t, b.Extra[0])
			for range 2 {
				c.send(message(":authority", "a", ":path", "/hold-a"))
			}
			if r := c.ask(message(":authority", "a", ":path", "/a")); !strings.Contains(r.outcome(), "REFUSED_STREAM") && !strings.Contains(r.outcome(), "PROTOCOL_ERROR") {
				b.t.Errorf("the third stream: %s", r.outcome())
			}
			c.Close()
		}, "gateway_http2_streams_refused_total", ""},
		{"max_connections of the service", func(b *bounded) {
			rig.Dial(b.t, b.Addr).Send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
			<-b.began
			b.refuses("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n", 503, "upstream_busy")
		}, refusals, reason("upstream_busy")},
		{"max_pending of the service", func(b *bounded) {
			const raw = "GET /hold-patient HTTP/1.1\r\nHost: a\r\n\r\n"
			rig.Dial(b.t, b.Addr).Send(raw)
			rig.Dial(b.t, b.Addr).Send(raw)
			rig.Eventually(b.t, "one request waits", func() bool { return b.Metric(b.t, "gateway_upstream_pending", `service="patient"`) == 1 })
			b.refuses(raw, 503, "upstream_busy")
		}, refusals, reason("upstream_busy")},
	}
}

func limitsOfTime(*bounded) []limitRow {
	const refusals = "gateway_refusals_total"
	ends := func(raw string) func(b *bounded) {
		return func(b *bounded) {
			c := rig.Dial(b.t, b.Addr)
			c.Send(raw)
			if a := c.Answer(method(raw)); raw != "" && a.Status == 0 {
				b.t.Errorf("%q is not answered", raw)
			}
			if err := ended(c); err != nil {
				b.t.Errorf("%q: %v", raw, err)
			}
		}
	}
	timeout := `reason="request_timeout"`
	return []limitRow{
		{"header_timeout", func(b *bounded) { b.refuses("GET /a HTTP/1.1\r\nHost", 408, "request_timeout") }, refusals, timeout},
		{"idle_timeout", func(b *bounded) {
			ends(limitGet)(b)
			if err := ended(rig.Dial(b.t, b.Addr)); err != nil {
				b.t.Errorf("silent: %v", err)
			}
		}, "", ""},
		{"body_idle_timeout", func(b *bounded) {
			b.refuses(limitPost+"Content-Length: 3\r\n\r\na", 408, "request_timeout")
			ends(limitPost + "Content-Length: 3\r\n\r\na")(b)
		}, refusals, timeout},
		{"write_idle_timeout", func(b *bounded) { rig.Dial(b.t, b.Addr).Send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n") },
			refusals, `reason="client_gone"`},
	}
}

// Every limit of the table in docs/edge.md is set small, exceeded, answered as
// the table says, and counted where it says.
func TestEveryLimitOfTheTableIsKeptAndCounted(t *testing.T) {
	t.Parallel()
	// TestMinimumRates exceeds these.
	tested := map[string]bool{"min_request_rate": true, "min_response_rate": true, "min_response_rate of the service": true}
	const refused = "gateway_connections_refused_total"
	for _, group := range []struct {
		server string
		rows   func(*bounded) []limitRow
	}{
		{"max_header_bytes: 2KiB, max_url_bytes: 1KiB, max_headers: 10, max_body_bytes: 1000, max_tunnels: 1, max_streams: 2", limitsOfSize},
		{"min_request_rate: 0, min_response_rate: 0, header_timeout: 500ms, idle_timeout: 500ms, body_idle_timeout: 500ms, write_idle_timeout: 500ms", limitsOfTime},
		{"max_connections: 10", func(*bounded) []limitRow {
			return []limitRow{{"max_connections", func(b *bounded) { b.surplus(10) }, refused, `limit="max_connections"`}}
		}},
		{"max_connections_per_address: 3", func(*bounded) []limitRow {
			return []limitRow{{"max_connections_per_address", func(b *bounded) { b.surplus(3) }, refused, `limit="max_connections_per_address"`}}
		}},
	} {
		b := newBounded(t, group.server)
		t.Cleanup(func() { close(b.leave) })
		for _, row := range group.rows(b) {
			tested[row.key] = true
			t.Run(strings.ReplaceAll(row.key, " ", "_"), func(t *testing.T) {
				b.t = t
				if row.metric == "" {
					row.exceed(b)
					return
				}
				before := b.Metric(t, row.metric, row.label)
				row.exceed(b)
				rig.Eventually(t, row.key+" is counted", func() bool { return b.Metric(t, row.metric, row.label) > before })
			})
		}
	}
	for _, key := range tableOfLimits(t) {
		if !tested[key] {
			t.Errorf("the limit %q of docs/edge.md is not tested", key)
		}
		delete(tested, key)
	}
	for key := range tested {
		t.Errorf("the limit %q is not in the table of docs/edge.md", key)
	}
}

// tableOfLimits are the first keys of the rows of the table.
func tableOfLimits(t *testing.T) (keys []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/edge.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Limits\n")
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.HasPrefix(cells[2], " `") {
			continue
		}
		key := strings.Split(cells[2], "`")[1]
		if strings.Contains(cells[2], "of the service") {
			key += " of the service"
		}
		keys = append(keys, key)
	}
	return keys
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
