package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	f := func(want float64, values ...float64) {
		t.Helper()
		if got := median(values); got != want {
			t.Errorf("median of %v is %v, want %v", values, got, want)
		}
	}
	f(0)
	f(3, 3)
	f(2, 3, 1, 2)
	f(2.5, 4, 1, 2, 3)
}

func TestRatiosArePerRound(t *testing.T) {
	at := func(costs ...float64) (all []measure) {
		for _, c := range costs {
			all = append(all, measure{cost: c, rate: 1e9 / c, p50: time.Millisecond, memory: 3 << 20})
		}
		return all
	}
	rows := []row{
		{subject: subject{name: "nginx", title: "nginx, plain"}, rounds: at(10_000, 20_000, 40_000)},
		{subject: subject{name: "plain", title: "gatehouse, plain"}, rounds: at(11_000, 24_000, 40_000), remarks: []string{"six fields"}},
	}
	got := table(rows)
	for _, want := range []string{
		"| nginx, plain | 20.0 | 1.00 (1.00–1.00) | 50000 | 1.00 ms |",
		"| gatehouse, plain | 24.0 | 1.10 (1.00–1.20) |",
		"| 3.0 MiB |",
		"- gatehouse, plain: six fields\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("table lacks %q:\n%s", want, got)
		}
	}
	if got := table(rows[1:]); !strings.Contains(got, "| 24.0 | not measured |") {
		t.Errorf("a ratio without nginx:\n%s", got)
	}
}

func TestCallsPerRequestReadsStrace(t *testing.T) {
	got, err := callsPerRequest(`% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60,00    0,000123           1       200           write
 40.00    0.000100           1       140        40 read
  0.00    0.000000           0         1           futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.000223           1       341        40 total
`, 100)
	if want := "3.41 (write 2.00, read 1.40)"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	if _, err := callsPerRequest("strace: Process 1 detached\n", 1); err == nil {
		t.Error("no summary is no error")
	}
}

func TestScriptCallsReadsCommandstats(t *testing.T) {
	got, err := scriptCalls("# Commandstats\r\ncmdstat_evalsha:calls=12,usec=9\r\ncmdstat_get:calls=100,usec=1\r\ncmdstat_eval:calls=3,usec=1\r\ncmdstat_fcall_ro:calls=1,usec=1\r\n")
	if err != nil || got != 16 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := scriptCalls("cmdstat_eval:calls=x,\n"); err == nil {
		t.Error("nonsense is no error")
	}
}

func TestReplaceSection(t *testing.T) {
	text := "a\n<!-- free:begin -->\nold\n<!-- free:end -->\nb\n"
	got, err := replaceSection(text, "free", "new\n")
	if want := "a\n<!-- free:begin -->\nnew\n<!-- free:end -->\nb\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := replaceSection(text, "pinned", "new\n"); err == nil {
		t.Error("a missing section is no error")
	}
	if _, err := replaceSection("<!-- x:begin -->\n", "x", "new\n"); err == nil {
		t.Error("a missing end is no error")
	}
}

func TestSelected(t *testing.T) {
	names := func(only string) string {
		some, err := selected(only)
		if err != nil {
			return err.Error()
		}
		var all []string
		for _, s := range some {
			all = append(all, s.name)
		}
		return strings.Join(all, " ") + ": " + strings.Join(processes(some), " ")
	}
	f := func(only, want string) {
		t.Helper()
		if got := names(only); !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", only, got, want)
		}
	}
	f("", "nginx plain enforced fresh haproxy nginx-tls tls nginx-h2 h2: nginx gatehouse haproxy")
	f("haproxy-plain,nginx", "haproxy-plain nginx: haproxy nginx")
	f("ngnix", `unknown proxy "ngnix" (there are: nginx,`)
	f("nginx,nginx", "twice")
}

func TestEveryProxyGetsRequestsOfTheSameLength(t *testing.T) {
	var lengths []int
	for _, s := range subjects() {
		lengths = append(lengths, len(request(s.path, "token")))
	}
	if len(slices.Compact(lengths)) != 1 {
		t.Error(lengths)
	}
}
