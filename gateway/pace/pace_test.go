package pace

import (
	"math"
	"testing"
	"time"
)

var rule = Rule{Rate: 240, Grace: 5 * time.Second, Idle: 30 * time.Second}

// step is n bytes within d.
type step struct {
	n int64
	d time.Duration
}

func repeat(times int, s step) (list []step) {
	for range times {
		list = append(list, s)
	}
	return list
}

func TestWhoMovesTooFewBytesInTheTimeThatIsWaitedIsFound(t *testing.T) {
	f := func(name string, spent bool, steps ...step) {
		t.Helper()
		m := rule.Begin()
		for i, s := range steps {
			if m.Spent() {
				t.Errorf("%s: found after %d of %d steps", name, i, len(steps))
				return
			}
			m.Waited(&rule, s.n, s.d)
		}
		if m.Spent() != spent {
			t.Errorf("%s: %v, want %v", name, m.Spent(), spent)
		}
	}
	f("nothing within the grace", false, step{0, 5 * time.Second})
	f("nothing for longer", true, step{0, 5*time.Second + 1})
	f("as fast as need be, for a day", false, repeat(86400, step{240, time.Second})...)
	f("a byte a second", true, repeat(6, step{1, time.Second})...)
	f("fast, then a pause that the idle time allows", false, step{1 << 30, time.Second}, step{0, 30 * time.Second})
	f("fast, then dripping", true, append([]step{{1 << 30, time.Second}}, repeat(31, step{1, time.Second})...)...)
	f("slow at first, then fast", false, append(repeat(5, step{1, time.Second}), repeat(100, step{1000, time.Second})...)...)
	f("more than can be counted in time", false, step{math.MaxInt64, time.Second}, step{0, 29 * time.Second})
}

func TestPatienceIsTheLesserOfAllowanceAndIdleTime(t *testing.T) {
	f := func(r Rule, m Meter, n int, want time.Duration, short bool) {
		t.Helper()
		if got := r.Patience(m, n); got != want {
			t.Errorf("%+v %+v for %d bytes: %v, want %v", r, m, n, got, want)
		}
		if got := r.Short(m); got != short {
			t.Errorf("%+v %+v: short %v", r, m, got)
		}
	}
	f(rule, rule.Begin(), 0, 5*time.Second, true)
	f(rule, rule.Begin(), 240, 6*time.Second, true)
	f(rule, rule.Begin(), 1<<20, 30*time.Second, true)
	f(rule, Meter{time.Minute}, 0, 30*time.Second, false)
	f(rule, Meter{-time.Second}, 0, 0, true)
	f(Rule{Idle: time.Second}, Meter{}, 0, time.Second, false)
	f(Rule{Idle: time.Second}, Meter{}, 1000, time.Second, false)
}

func TestWithoutARateNobodyIsTooSlow(t *testing.T) {
	r := Rule{Idle: time.Second}
	m := r.Begin()
	m.Waited(&r, 0, time.Hour)
	if m.Spent() {
		t.Error("found")
	}
}
