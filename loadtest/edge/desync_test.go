package edge

import (
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/desync"
	"github.com/gatehouse/gatehouse/loadtest/rig"
)

// TestDesynchronisation runs the corpus of requests about whose end servers
// disagree. Behind each comes another request, which must never be answered
// with an origin's answer where the first was refused, and never be seen by the
// origin as a part of the first.
func TestDesynchronisation(t *testing.T) {
	for _, r := range desync.Requests() {
		t.Run(r.Class+" "+r.Name, func(t *testing.T) {
			t.Parallel()
			var whole received
			s := take(t, whole.script)
			c := s.dial(t)
			a := c.Ask(r.Method(), r.For(s.host)+s.in("GET /next HTTP/1.1\r\nHost: {host}\r\n\r\n"))
			passes := a.Status == 200
			if passes && (r.Class == "severe" || r.Class == "broken") || !passes && r.Class == "harmless" ||
				!passes && a.Status/100 != 4 && a.Status != 501 && a.Status != 505 {
				t.Errorf("got %q", a.Head)
			}
			if !passes {
				if err := ended(c); err != nil {
					t.Error(err)
				}
				got := s.Received()
				if r.Class != "broken" && len(got) > 0 || len(whole.lines()) > 0 {
					t.Errorf("the origin received %q", got)
				}
				return
			}
			next := c.Answer("GET")
			if next.Status != 200 && (next.Err == nil || r.Class == "harmless") {
				t.Errorf("the next request got %q (%v)", next.Head, next.Err)
			}
			want := 1
			if next.Status == 200 {
				want = 2
			}
			lines := whole.lines()
			if len(lines) != want || strings.Contains(strings.Join(lines, " "), desync.Smuggled) {
				t.Errorf("the origin received %q", s.Received())
			}
		})
	}
}

// received is what an origin read as whole requests.
type received struct {
	mu  sync.Mutex
	all []string
}

// script answers every request with 200 and remembers its request line. What
// has not exactly one framing ends the connection (rig.Conn.ReadRequest).
func (r *received) script(c *rig.Conn) {
	for {
		m, err := c.ReadRequest()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.all = append(r.all, m.Line)
		r.mu.Unlock()
		if strings.HasPrefix(m.Line, "HEAD ") {
			c.Say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
			continue
		}
		c.Say(rig.OK)
	}
}

func (r *received) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all
}
