package edge

import (
	_ "embed"
	"strconv"
	"strings"
	"testing"

	"github.com/gatehouse/gatehouse/loadtest/rig"
)

//go:embed testdata/desync.txt
var desync string

// TestDesynchronisation runs the corpus of requests about whose end servers
// disagree. Behind each comes another request, which must never be answered
// with an origin's answer where the first was refused, and never be seen by the
// origin as a part of the first.
func TestDesynchronisation(t *testing.T) {
	count := map[string]int{}
	for line := range strings.Lines(desync) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		words := strings.Fields(line)
		raw, err := strconv.Unquote(strings.TrimSpace(line[strings.IndexByte(line, '"'):]))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		class := words[0]
		count[class]++
		t.Run(class+" "+words[1], func(t *testing.T) {
			t.Parallel()
			s := take(t, nil)
			c := s.dial(t)
			a := c.Ask(method(raw), s.in(raw+"GET /next HTTP/1.1\r\nHost: {host}\r\n\r\n"))
			passes := a.Status == 200
			if passes && class == "severe" || !passes && class == "harmless" || !passes && a.Status/100 != 4 && a.Status != 501 && a.Status != 505 {
				t.Errorf("got %q", a.Head)
			}
			if !passes {
				if err := ended(c); err != nil {
					t.Error(err)
				}
				if got := s.Received(); len(got) > 0 {
					t.Errorf("the origin received %q", got)
				}
				return
			}
			if a := c.Answer("GET"); a.Status != 200 && a.Err == nil {
				t.Errorf("the next request got %q", a.Head)
			}
			got := strings.Join(s.Received(), "")
			if n := strings.Count(got, " HTTP/1.1\r\nHost: "); n > 2 || !wellFramed(got) {
				t.Errorf("the origin received %q", got)
			}
		})
	}
	if count["severe"] < 30 || count["ambiguous"] < 10 || count["harmless"] < 5 {
		t.Errorf("the corpus is incomplete: %v", count)
	}
}

// wellFramed reports whether what the origin received are requests with one
// framing each.
func wellFramed(received string) bool {
	for head := range strings.SplitSeq(received, "\r\n\r\n") {
		m := rig.Message{Head: head}
		_, length := m.Field("Content-Length")
		_, chunked := m.Field("Transfer-Encoding")
		if length && chunked || strings.Contains(head, "_") {
			return false
		}
	}
	return true
}
