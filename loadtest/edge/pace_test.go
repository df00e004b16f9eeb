package edge

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// drip sends piece again and again until that fails or end comes.
func drip(c net.Conn, piece string, end time.Duration) {
	for deadline := time.Now().Add(end); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := c.Write([]byte(piece)); err != nil {
			return
		}
	}
}

// Who is slower than the minimum rates is cut off long before the idle times,
// which every drop renews; what is made while it is sent is not.
func TestMinimumRates(t *testing.T) {
	t.Parallel()
	const drops = 6 // for longer than the grace, and than nothing at all may take
	o, err := rig.NewOrigin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	o.Forget()
	o.Reset(func(c *rig.Conn) {
		for {
			r, err := c.ReadRequest()
			if err != nil {
				return
			}
			switch path := strings.Fields(r.Head)[1]; path {
			case "/large":
				c.Say("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + strings.Repeat("a", 100_000_000))
			case "/chunks":
				c.Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
				for range 1000 {
					c.Say("186a0\r\n" + strings.Repeat("a", 100_000) + "\r\n")
				}
			case "/dripping", "/dripping-large":
				length := 1000
				if path != "/dripping" {
					length = 10_000_000
				}
				c.Say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", length))
				drip(c, "a", rig.Patience)
			case "/live", "/events":
				kind := "text/plain"
				if path == "/events" {
					kind = "text/event-stream"
				}
				c.Say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: " + kind + "\r\n\r\n")
				for range drops {
					c.Say("1\r\na\r\n")
					time.Sleep(200 * time.Millisecond)
				}
				c.Say("0\r\n\r\n")
			default:
				c.Say(rig.OK)
			}
		}
	})
	g := rig.Run(t, rig.Options{
		Config: fmt.Sprintf(`server: {drain_delay: 1ms, drain_timeout: 1s, min_request_rate: 1MiB, min_response_rate: 1MiB, rate_grace: 700ms}
services: {a: {targets: ["http://%s"], min_response_rate: 1MiB, rate_grace: 700ms}}
routes: [{path: /**, service: a, public: true}]
`, o.Addr),
	})
	counted := func(t *testing.T, reason string, do func()) {
		t.Helper()
		before := g.Metric(t, "gateway_refusals_total", `reason="`+reason+`"`)
		do()
		rig.Eventually(t, reason+" is counted", func() bool { return g.Metric(t, "gateway_refusals_total", `reason="`+reason+`"`) > before })
	}
	// In turn, because the refusals are counted.
	t.Run("content of a request", func(t *testing.T) {
		for _, framing := range []string{"Content-Length: 100000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"} {
			counted(t, "request_too_slow", func() {
				c := rig.Dial(t, g.Addr)
				c.Send("POST /a HTTP/1.1\r\nHost: a\r\n" + framing)
				go drip(c, "1\r\na\r\n", rig.Patience)
				if a := c.Answer("POST"); a.Status != 408 || !strings.Contains(a.Body, "request_too_slow") {
					t.Errorf("%s: got %q%q", framing, a.Head, a.Body)
				}
			})
		}
	})
	t.Run("an answer that the client does not take", func(t *testing.T) {
		for _, path := range []string{"/large", "/chunks"} {
			counted(t, "response_too_slow", func() {
				c := rig.Dial(t, g.Addr)
				if err := c.Conn.(*net.TCPConn).SetReadBuffer(8 << 10); err != nil {
					t.Fatal(err)
				}
				c.Send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
				go func() {
					p := make([]byte, 100)
					for _, err := c.Conn.Read(p); err == nil; _, err = c.Conn.Read(p) {
						time.Sleep(20 * time.Millisecond)
					}
				}()
			})
		}
	})
	t.Run("an answer that the service sends", func(t *testing.T) {
		for _, path := range []string{"/dripping", "/dripping-large"} {
			counted(t, "upstream_too_slow", func() {
				c := rig.Dial(t, g.Addr)
				if a := c.Ask("GET", "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n"); a.Status != 200 || a.Whole {
					t.Errorf("%s: got %q, whole: %v", path, a.Head, a.Whole)
				}
			})
		}
	})
	t.Run("answers that are made while they are sent", func(t *testing.T) {
		for _, path := range []string{"/live", "/events"} {
			c := rig.Dial(t, g.Addr)
			if a := c.Ask("GET", "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n"); a.Status != 200 || !a.Whole || a.Body != strings.Repeat("a", drops) {
				t.Errorf("%s: got %q %q (%v)", path, a.Head, a.Body, a.Err)
			}
		}
	})
}
