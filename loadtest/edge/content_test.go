package edge

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// zeros is content without end that costs nothing to make.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// bodySize is how much goes through, and room how much memory it may take: far
// less than the content, which the race detector is too slow for.
func bodySize() (size, room int64) {
	if rig.RaceEnabled || testing.Short() {
		return 256 << 20, 100 << 20
	}
	return 4 << 30, 64 << 20
}

// TestP15_ContentIsNeverHeldWhole: 4 GiB pass each way, and the gateway's
// memory stays where it was.
func TestP15_ContentIsNeverHeldWhole(t *testing.T) {
	size, room := bodySize()
	f := func(name, fields string, send func(w io.Writer) error, serve func(*rig.Conn)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			o, err := rig.NewOrigin()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(o.Close)
			o.Forget()
			o.Reset(serve)
			g := rig.Run(t, rig.Options{Config: fmt.Sprintf("server: {drain_delay: 1ms}\nservices: {a: {targets: [\"http://%s\"], timeouts: {request: 5m}}}\nroutes: [{path: /**, service: a, public: true}]\n", o.Addr)})
			before := g.PeakMemory()
			c := rig.Dial(t, g.Addr)
			c.Send("POST /a HTTP/1.1\r\nHost: a\r\n" + fields + "\r\n")
			sent := make(chan error, 1)
			go func() {
				_ = c.SetWriteDeadline(time.Now().Add(4 * time.Minute))
				sent <- send(c.Conn)
			}()
			_ = c.SetReadDeadline(time.Now().Add(4 * time.Minute))
			head, length := "", int64(-1)
			for !strings.HasSuffix(head, "\r\n\r\n") {
				line, err := c.R.ReadString('\n')
				if err != nil {
					t.Fatalf("%q: %v", head, err)
				}
				head += line
				_, _ = fmt.Sscanf(line, "Content-Length: %d", &length)
			}
			if !strings.HasPrefix(head, "HTTP/1.1 200 ") || length < 0 {
				t.Fatalf("got %q", head)
			}
			if n, err := io.CopyN(io.Discard, c.R, length); err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			if grew := g.PeakMemory() - before; grew > room {
				t.Errorf("%d MiB of content took %d MiB of memory", size>>20, grew>>20)
			}
		})
	}
	nothing := func(io.Writer) error { return nil }
	f("answers", "", nothing, func(c *rig.Conn) {
		if _, err := c.ReadHead(); err == nil {
			c.Say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size))
			_, _ = io.CopyN(c.Conn, zeros{}, size)
		}
	})
	f("requests", fmt.Sprintf("Content-Length: %d\r\n", size), func(w io.Writer) error {
		_, err := io.CopyN(w, zeros{}, size)
		return err
	}, func(c *rig.Conn) {
		if _, err := c.ReadHead(); err != nil {
			return
		}
		if n, err := io.CopyN(io.Discard, c.R, size); err == nil && n == size {
			c.Say(rig.OK)
		}
	})
}

func TestP13_NoTimeLimitOfAStockBalancer(t *testing.T) {
	t.Parallel()
	t.Run("an answer may take longer than a second", func(t *testing.T) {
		t.Parallel()
		s := take(t, func(c *rig.Conn) {
			if _, err := c.ReadRequest(); err == nil {
				time.Sleep(1200 * time.Millisecond)
				c.Say(rig.OK)
			}
		})
		if a := s.get(t, "/a"); a.Status != 200 {
			t.Errorf("got %q", a.Head)
		}
	})
	t.Run("one request does not change another", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		for i := range 20 {
			raw := s.in(fmt.Sprintf("GET /%s HTTP/1.1\r\nHost: {host}\r\nX-N: %d\r\n\r\n", strings.Repeat("a", 20-i), i))
			if a := c.Ask("GET", raw); a.Status != 200 {
				t.Errorf("got %q", a.Head)
			}
			if got := rig.Strip(strings.Join(s.Received(), "")); !strings.HasSuffix(got, raw) {
				t.Errorf("the origin received %q", got)
			}
		}
	})
}

func TestExpectContinue(t *testing.T) {
	const head = "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
	t.Run("the policy is asked first", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		a := c.Ask("POST", s.in("POST /admin/x HTTP/1.1\r\nHost: {host}\r\n"+head))
		if a.Status != 401 || len(a.Interims) > 0 {
			t.Errorf("got %q %q", a.Interims, a.Head)
		}
		if err := ended(c); err != nil {
			t.Error(err)
		}
		if got := s.Received(); len(got) > 0 {
			t.Errorf("the origin received %q", got)
		}
	})
	t.Run("then the client is asked for its content", func(t *testing.T) {
		t.Parallel()
		s := take(t, nil)
		c := s.dial(t)
		c.Send(s.in(post + head))
		_ = c.SetReadDeadline(time.Now().Add(rig.Patience))
		if line, err := c.R.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("got %q %v", line, err)
		}
		_, _ = c.R.ReadString('\n')
		if a := c.Ask("POST", "abc"); a.Status != 200 || a.Body != "ok" {
			t.Errorf("got %q", a.Head)
		}
		if err := alive(c); err != nil {
			t.Error(err)
		}
	})
}

func TestClientsThatLeaveEndTheirRequest(t *testing.T) {
	t.Parallel()
	gone := make(chan bool, 1)
	s := take(t, func(c *rig.Conn) {
		if _, err := c.ReadRequest(); err == nil {
			gone <- c.Gone()
		}
	})
	before := s.gw.Metric(t, "gateway_refusals_total", `reason="client_gone"`)
	c := s.dial(t)
	c.Send(s.in(get + "\r\n"))
	rig.Eventually(t, "the origin is asked", func() bool { return s.Connections() == 1 && len(s.Received()) == 1 })
	c.Close()
	if !<-gone {
		t.Error("the origin goes on")
	}
	rig.Eventually(t, "the request is counted as 499", func() bool {
		return s.gw.Metric(t, "gateway_refusals_total", `reason="client_gone"`) > before
	})
}
