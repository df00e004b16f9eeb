package ratelimit

import (
	"testing"

	"pgregory.net/rapid"
)

func TestDecide(t *testing.T) {
	l := Limit{Interval: 100, Burst: 10} // full after 1,000 µs
	const now = 1_000_000
	for _, c := range []struct {
		name string
		tat  int64
		ask  Ask
		next int64
		want Grant
	}{
		{"a new bucket is full", 0, Ask{Want: 1, Least: 1}, now + 100, Grant{Tokens: 1, Free: 9, Reset: 100}},
		{"all at once", 0, Ask{Want: 10, Least: 10}, now + 1000, Grant{Tokens: 10, Reset: 1000}},
		{"what is free, if no share is asked for", now + 700, Ask{Want: 10, Least: 1}, now + 1000, Grant{Tokens: 3, Reset: 1000}},
		{"empty", now + 1000, Ask{Want: 1, Least: 1}, now + 1000, Grant{Retry: 100, Reset: 1000}},
		{"nearly one", now + 901, Ask{Want: 1, Least: 1}, now + 901, Grant{Retry: 1, Reset: 901}},
		{"just one", now + 900, Ask{Want: 1, Least: 1}, now + 1000, Grant{Tokens: 1, Reset: 1000}},
		{"all or nothing", now + 600, Ask{Want: 5, Least: 5}, now + 600, Grant{Free: 4, Retry: 100, Reset: 600}},
		{"half of a share", 0, Ask{Want: 10, Least: 1, Active: 1}, now + 500, Grant{Tokens: 5, Free: 5, Reset: 500}},
		{"less for each of three", 0, Ask{Want: 10, Least: 1, Active: 3}, now + 100, Grant{Tokens: 1, Free: 9, Reset: 100}},
		{"a share is never less than useful", 0, Ask{Want: 10, Least: 4, Active: 5}, now + 400, Grant{Tokens: 4, Free: 6, Reset: 400}},
		{"who waits gets more than a share", 0, Ask{Want: 9, Least: 1, Need: 7, Active: 3}, now + 700, Grant{Tokens: 7, Free: 3, Reset: 700}},
		{"but not more than is free", now + 700, Ask{Want: 9, Least: 1, Need: 7, Active: 3}, now + 1000, Grant{Tokens: 3, Reset: 1000}},
		{"debt first", 0, Ask{Want: 10, Least: 1, Debt: 8}, now + 1000, Grant{Tokens: 2, Reset: 1000}},
		{"debt alone", 0, Ask{Debt: 3}, now + 300, Grant{Free: 7, Reset: 300}},
		{"debt starves for one burst at most", 0, Ask{Want: 1, Least: 1, Debt: 1 << 30}, now + 1000, Grant{Retry: 100, Reset: 1000}},
		{"a clock that jumped back starves for one burst at most", now * 2, Ask{Want: 1, Least: 1}, now + 1000, Grant{Retry: 100, Reset: 1000}},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, got := Decide(l, c.tat, now, c.ask)
			if next != c.next || got != c.want {
				t.Errorf("next %d, %+v; want %d, %+v", next, got, c.next, c.want)
			}
		})
	}
}

// TestDecideNeverExceedsTheRate: whatever is asked, tokens debited in any time
// are at most burst + rate·time, and a refusal's Retry is when it ends.
func TestDecideNeverExceedsTheRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{
			Interval: rapid.Int64Range(1, 1_000_000).Draw(t, "interval"),
			Burst:    rapid.Int64Range(1, 1000).Draw(t, "burst"),
		}
		start := rapid.Int64Range(0, 2e15).Draw(t, "start")
		now, tat, debited := start, int64(0), int64(0)
		for range rapid.IntRange(1, 50).Draw(t, "calls") {
			now += rapid.Int64Range(0, l.span()).Draw(t, "wait")
			a := Ask{
				Want:   rapid.Int64Range(0, l.Burst).Draw(t, "want"),
				Debt:   rapid.Int64Range(0, 3).Draw(t, "debt"),
				Active: rapid.Int64Range(0, 5).Draw(t, "active"),
			}
			a.Least = rapid.Int64Range(1, max(1, a.Want)).Draw(t, "least")
			a.Need = rapid.Int64Range(0, a.Want).Draw(t, "need")
			before := tat
			var g Grant
			tat, g = Decide(l, tat, now, a)
			debited += g.Tokens
			if g.Tokens > a.Want || g.Free < 0 || g.Reset < 0 || g.Reset > l.span() || tat < before && before <= now {
				t.Fatalf("%+v: %+v, tat %d after %d", a, g, tat, before)
			}
			if (g.Tokens == 0) != (g.Retry > 0) && a.Want > 0 {
				t.Fatalf("%+v: %+v: a refusal has a time, a grant has none", a, g)
			}
			if g.Retry > 0 {
				if _, again := Decide(l, tat, now+g.Retry, Ask{Want: a.Least, Least: a.Least}); again.Tokens != a.Least {
					t.Fatalf("refused again after Retry: %+v", again)
				}
				if _, early := Decide(l, tat, now+g.Retry-1, Ask{Want: a.Least, Least: a.Least}); early.Tokens != 0 {
					t.Fatal("Retry is later than necessary")
				}
			}
		}
		if bound := l.Burst + (now-start)/l.Interval; debited > bound {
			t.Fatalf("%d tokens debited, bound %d", debited, bound)
		}
	})
}
