package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
)

// reply is one answer of a scripted Consul.
type reply struct {
	ids    string // instances, as "a b c"
	body   string // instead of ids
	index  string // default "10"
	header string // further "Name: value" fields, separated by commas
	status int    // default 200
	after  time.Duration
	err    error
}

const leaderless = "X-Consul-Knownleader: false"

// script answers the n-th request, from 0; it sees that request.
type script func(n int, req *http.Request) reply

// asked is one request that the script got.
type asked struct {
	at    time.Duration
	query string
	token string
}

// trip is an http.RoundTripper without a network, usable in a time bubble.
type trip struct {
	script script
	start  time.Time
	mu     sync.Mutex
	asked  []asked
}

func (tr *trip) RoundTrip(req *http.Request) (*http.Response, error) {
	tr.mu.Lock()
	n := len(tr.asked)
	tr.asked = append(tr.asked, asked{time.Since(tr.start), req.URL.Path + "?" + req.URL.RawQuery, req.Header.Get("X-Consul-Token")})
	tr.mu.Unlock()
	r := tr.script(n, req)
	if err := sleep(req.Context(), r.after); err != nil {
		return nil, err
	}
	if r.err != nil {
		return nil, r.err
	}
	h := http.Header{"X-Consul-Index": {"10"}, "X-Consul-Knownleader": {"true"}, "X-Consul-Lastcontact": {"0"}}
	if r.index != "" {
		h.Set("X-Consul-Index", r.index)
	}
	if r.header != "" {
		for f := range strings.SplitSeq(r.header, ",") {
			name, value, _ := strings.Cut(f, ": ")
			h.Set(name, value)
		}
	}
	if r.status == 0 {
		r.status = 200
	}
	if r.body == "" {
		var list []string
		for _, id := range strings.Fields(r.ids) {
			list = append(list, fmt.Sprintf(`{"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":%q,"Port":80}}`, id))
		}
		r.body = "[" + strings.Join(list, ",") + "]"
	}
	return &http.Response{StatusCode: r.status, Header: h, Body: io.NopCloser(strings.NewReader(r.body)), Request: req}, nil
}

// block is the answer of a Consul where nothing changes.
func block(ids string) reply { return reply{ids: ids, after: wait} }

type result struct {
	*trip
	found   []string // each set, as "a b c"
	reports []string
	source  *Source
}

// watch runs a watch of orders over the script for a virtual time.
func watch(t *testing.T, d time.Duration, s script) (r result) {
	t.Helper()
	return watchWith(t, d, s, Config{Token: "s3cret"}, discovery.Query{Service: "orders"})
}

func watchWith(t *testing.T, d time.Duration, s script, c Config, q discovery.Query) (r result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r.trip = &trip{script: s, start: time.Now()}
		c.Address, c.HTTPClient = "consul.test:8500", &http.Client{Transport: r.trip}
		c.Report = func(_ discovery.Query, err error) { r.reports = append(r.reports, err.Error()) }
		if c.Rand == nil {
			c.Rand = func() float64 { return 0.5 }
		}
		src, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		r.source = src
		ctx, cancel := context.WithTimeout(context.Background(), d)
		defer cancel()
		err = src.Watch(ctx, q, func(eps []discovery.Endpoint) {
			var ids []string
			for _, e := range eps {
				ids = append(ids, strings.TrimPrefix(e.ID, "n/"))
			}
			r.found = append(r.found, strings.Join(ids, " "))
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(r.start) != d {
			t.Fatalf("Watch: %v after %v, want the end of its context after %v", err, time.Since(r.start), d)
		}
	})
	if all := strings.Join(r.reports, " "); strings.Contains(all, "s3cret") {
		t.Fatalf("the token is in a report: %s", all)
	}
	return r
}

func (r result) want(t *testing.T, found ...string) {
	t.Helper()
	if !slices.Equal(r.found, found) {
		t.Fatalf("found %q, want %q; reports %q", r.found, found, r.reports)
	}
}

func (r result) wantReport(t *testing.T, part string) {
	t.Helper()
	if !strings.Contains(strings.Join(r.reports, "\n"), part) {
		t.Fatalf("reports %q, want one with %q", r.reports, part)
	}
}

func TestFirstReadDoesNotBlockAndTheNextOnesDo(t *testing.T) {
	r := watchWith(t, time.Minute, func(n int, _ *http.Request) reply {
		if n == 0 {
			return reply{ids: "b a", index: "7"}
		}
		return block("a b")
	}, Config{Token: "s3cret"}, discovery.Query{Service: "orders", Tag: "v2"})
	r.want(t, "a b", "a b")
	if len(r.asked) != 3 {
		t.Fatalf("%d requests", len(r.asked))
	}
	for i, want := range []string{
		"/v1/health/service/orders?passing=1&stale=&tag=v2",
		"/v1/health/service/orders?index=7&passing=1&stale=&tag=v2&wait=55000ms",
		"/v1/health/service/orders?index=10&passing=1&stale=&tag=v2&wait=55000ms",
	} {
		if r.asked[i].query != want || r.asked[i].token != "s3cret" {
			t.Errorf("request %d: %+v, want %s with the token", i, r.asked[i], want)
		}
	}
}

func TestIndexThatGoesBackwardsIsResetAndZeroIsOne(t *testing.T) {
	r := watch(t, 10*time.Second, func(n int, _ *http.Request) reply {
		switch n {
		case 0:
			return reply{ids: "a", index: "100"}
		case 1:
			return reply{ids: "b", index: "5"} // Consul was wiped
		case 2:
			return reply{ids: "b", index: "0"}
		}
		return block("b")
	})
	r.want(t, "a", "b", "b")
	for i, want := range []bool{false, true, false, true} {
		if got := strings.Contains(r.asked[i].query, "index="); got != want {
			t.Errorf("request %d: %s, want an index: %v", i, r.asked[i].query, want)
		}
	}
	if !strings.Contains(r.asked[3].query, "index=1&") {
		t.Errorf("after index 0: %s, want index=1", r.asked[3].query)
	}
	if n := r.source.Counters().IndexResets.Load(); n != 1 {
		t.Errorf("%d index resets counted", n)
	}
}

func TestOutageKeepsTheSetAndEndsWithin12s(t *testing.T) {
	const down, up = time.Minute, 11 * time.Minute
	var seen time.Duration
	r := watchWith(t, 12*time.Minute, func(n int, req *http.Request) reply {
		at := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
		switch {
		case n == 0:
			return reply{ids: "a b"}
		case at < down:
			return reply{after: down - at, err: errors.New("connection reset")}
		case at < up:
			return reply{err: errors.New("connection refused")}
		}
		if seen == 0 {
			seen = at - up
			if strings.Contains(req.URL.RawQuery, "index=") || strings.Contains(req.URL.RawQuery, "stale") {
				t.Errorf("first read after the outage: %s, want one that does not block and asks the leader", req.URL.RawQuery)
			}
		}
		return reply{ids: "a c", after: map[bool]time.Duration{true: wait}[n > 0 && strings.Contains(req.URL.RawQuery, "index=")]}
	}, Config{Rand: func() float64 { return 0.999 }}, discovery.Query{Service: "orders"})
	if r.found[0] != "a b" || r.found[1] != "a c" {
		t.Fatalf("found %q, want nothing between a b and a c", r.found)
	}
	if seen > 12*time.Second {
		t.Fatalf("seen %v after Consul was back", seen)
	}
	if n := r.source.Counters().Errors.Load(); n < 60 || n > 80 {
		t.Fatalf("%d requests in 10 minutes of outage, want about one each 10 s", n)
	}
}

func TestLostWakeUpOutlivesNoMoreThanSixMinutes(t *testing.T) {
	r := watchWith(t, 20*time.Minute, func(n int, req *http.Request) reply {
		if strings.Contains(req.URL.RawQuery, "index=") {
			d, err := time.ParseDuration(req.URL.Query().Get("wait"))
			if err != nil {
				t.Error(err)
			}
			return reply{ids: "a", after: d} // would be "b", but nobody woke
		}
		return reply{ids: map[bool]string{true: "a", false: "b"}[n == 0]}
	}, Config{Rand: func() float64 { return 1 }}, discovery.Query{Service: "orders"})
	var last time.Duration
	for _, a := range r.asked {
		if strings.Contains(a.query, "index=") {
			continue
		}
		if a.at-last > 6*time.Minute {
			t.Fatalf("no full read between %v and %v", last, a.at)
		}
		last = a.at
	}
	if last < 14*time.Minute || !slices.Contains(r.found, "b") {
		t.Fatalf("last full read at %v, found %q", last, r.found)
	}
}

func TestConsulThatNeverBlocksIsAskedOnceASecond(t *testing.T) {
	r := watch(t, 60*time.Second, func(n int, _ *http.Request) reply {
		return reply{ids: "a", index: fmt.Sprint(n + 1)}
	})
	if n := len(r.asked); n < 60 || n > 66 {
		t.Fatalf("%d requests in 60 s, want a burst of %d and then one a second", n, loopBurst)
	}
	if at := r.asked[loopBurst-1].at; at != (loopBurst-1)*loopSpacing {
		t.Fatalf("the burst took %v", at)
	}
}

func TestAnswersThatMustNotBeBelieved(t *testing.T) {
	f := func(name, report string, bad reply) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			r := watch(t, 20*time.Second, func(n int, _ *http.Request) reply {
				switch n {
				case 0:
					return reply{ids: "a b c d"}
				case 1, 2, 3:
					return bad
				}
				return block("")
			})
			r.want(t, "a b c d")
			r.wantReport(t, report)
			if len(r.asked) < 4 {
				t.Fatalf("%d requests, want it to go on", len(r.asked))
			}
			for _, a := range r.asked[2:4] {
				if strings.Contains(a.query, "index=") {
					t.Fatalf("asked %s after a failure, want a read that does not block", a.query)
				}
			}
			if n := r.source.Counters().Refused.Load() + r.source.Counters().Errors.Load(); n < 1 {
				t.Fatal("not counted")
			}
		})
	}
	const filtered = "X-Consul-Results-Filtered-By-ACLs: true"
	const streamed = "X-Consul-Query-Backend: streaming"
	f("no leader", "no leader", reply{ids: "a b c e", header: leaderless})
	f("no leader and empty", "no leader", reply{header: leaderless})
	f("too stale", "too far behind", reply{ids: "a b c e", header: "X-Consul-Lastcontact: 5001"})
	f("empty for an expired token", "may not see", reply{header: filtered})
	f("halved for a token with less rights", "may not see", reply{ids: "a", header: filtered})
	f("an emptied stream that the leader does not confirm", "no leader", reply{header: leaderless + "," + streamed})
	f("not Consul's headers", "no leader", reply{header: "X-Consul-Knownleader: ,X-Consul-Lastcontact: "})
	f("error 500", "500", reply{status: 500, body: "No cluster leader"})
	f("error 403", "403", reply{status: 403, body: "ACL not found"})
	f("a web page", "invalid character", reply{body: "<html>"})
	f("a cut body", "unexpected EOF", reply{body: `[{"Node":{"Node":"n"`})
	f("another type", "cannot unmarshal", reply{body: `{"a":1}`})
}

func TestFilteredAnswerThatIsNotMuchSmallerIsTaken(t *testing.T) {
	r := watch(t, 10*time.Second, func(n int, _ *http.Request) reply {
		switch n {
		case 0:
			return reply{ids: "a b c d"}
		case 1:
			return reply{ids: "a b", header: "X-Consul-Results-Filtered-By-ACLs: true"}
		}
		return block("a b")
	})
	r.want(t, "a b c d", "a b")
	if n := r.source.Counters().ACLFiltered.Load(); n != 1 {
		t.Fatalf("%d filtered answers counted", n)
	}
}

func TestStreamedAnswerWithoutLeaderIsTaken(t *testing.T) {
	r := watch(t, 10*time.Second, func(n int, _ *http.Request) reply {
		switch n {
		case 0:
			return reply{ids: "a"}
		case 1:
			return reply{ids: "a b", header: leaderless + ",X-Consul-Query-Backend: streaming"}
		}
		return block("a b")
	})
	r.want(t, "a", "a b")
}

func TestMuchSmallerSetIsConfirmedByTheLeader(t *testing.T) {
	f := func(name, then string, confirmation reply, want ...string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			r := watch(t, 30*time.Second, func(n int, req *http.Request) reply {
				switch n {
				case 0:
					return reply{ids: "a b c d"}
				case 1:
					return reply{ids: then}
				case 2:
					if q := req.URL.RawQuery; q != "passing=1" {
						t.Errorf("confirmation asked with %s", q)
					}
					return confirmation
				}
				return reply{ids: "a b c d", after: wait}
			})
			r.want(t, want...)
		})
	}
	f("confirmed empty", "", reply{}, "a b c d", "")
	f("confirmed one of four", "c", reply{ids: "c"}, "a b c d", "c")
	f("not so", "", reply{ids: "a b c"}, "a b c d", "a b c")
	f("leader unreachable", "", reply{err: errors.New("refused")}, "a b c d")
	f("leader too slow", "", reply{after: time.Minute}, "a b c d")
	f("leader lost", "", reply{header: leaderless}, "a b c d")
	f("filtered", "", reply{header: "X-Consul-Results-Filtered-By-ACLs: true"}, "a b c d")
}

func TestHalfOfTheSetIsTakenAtOnce(t *testing.T) {
	r := watch(t, 10*time.Second, func(n int, _ *http.Request) reply {
		switch n {
		case 0:
			return reply{ids: "a b c d"}
		case 1:
			return reply{ids: "a b"}
		}
		return block("a b")
	})
	r.want(t, "a b c d", "a b")
	if len(r.asked) != 3 {
		t.Fatalf("%d requests, want no confirmation", len(r.asked))
	}
}

func TestFirstEmptyAnswerIsConfirmedAndAFilteredOneRefused(t *testing.T) {
	r := watch(t, 10*time.Second, func(n int, _ *http.Request) reply {
		if n < 2 {
			return reply{}
		}
		return block("")
	})
	r.want(t, "")
	if r.asked[1].query != "/v1/health/service/orders?passing=1" {
		t.Fatalf("second request %s, want a confirmation", r.asked[1].query)
	}
	r = watch(t, 10*time.Second, func(int, *http.Request) reply {
		return reply{header: "X-Consul-Results-Filtered-By-ACLs: true"}
	})
	r.want(t)
}

func TestBadInstanceIsReportedOnceAndDropsOnlyItself(t *testing.T) {
	const body = `[{"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":"a","Port":80}},
		{"Node":{"Node":"n","Address":"10.0.0.9"},"Service":{"ID":"b","Port":0}}]`
	r := watch(t, 10*time.Second, func(n int, _ *http.Request) reply {
		return reply{body: body, index: fmt.Sprint(n)}
	})
	if len(r.found) < 5 || r.found[0] != "a" || r.found[4] != "a" {
		t.Fatalf("found %q", r.found)
	}
	if len(r.reports) != 1 || !strings.Contains(r.reports[0], `instance "n/b": port 0`) {
		t.Fatalf("reports %q, want one", r.reports)
	}
	if n := int(r.source.Counters().Dropped.Load()); n != len(r.found) {
		t.Fatalf("%d dropped counted in %d answers", n, len(r.found))
	}
}

func TestTokenFileIsReadAgainAfter403(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("s3cret-old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := watchWith(t, 10*time.Second, func(n int, req *http.Request) reply {
		switch {
		case n == 0:
			return reply{ids: "a"}
		case req.Header.Get("X-Consul-Token") == "s3cret-new":
			return block("a b")
		case n == 1: // the operator rotates it now
			if err := os.WriteFile(file, []byte("s3cret-new"), 0o600); err != nil {
				t.Error(err)
			}
		}
		return reply{status: 403, body: "ACL not found"}
	}, Config{TokenFile: file}, discovery.Query{Service: "orders"})
	r.want(t, "a")
	if len(r.asked) != 3 || r.asked[1].token != "s3cret-old" || r.asked[2].token != "s3cret-new" {
		t.Fatalf("asked %+v", r.asked)
	}
}

func TestWatchersThatStartTogetherAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &trip{start: time.Now(), script: func(int, *http.Request) reply { return block("a") }}
		src, err := New(Config{Address: "http://consul.test", HTTPClient: &http.Client{Transport: tr},
			Rand: func() float64 { return 1 }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		for i := range 3 {
			go func() {
				done <- src.Watch(ctx, discovery.Query{Service: fmt.Sprint(i)}, func([]discovery.Endpoint) {})
			}()
			synctest.Wait()
		}
		time.Sleep(time.Second)
		synctest.Wait()
		for i, want := range []time.Duration{0, startJitter, 2 * startJitter} {
			if tr.asked[i].at != want {
				t.Errorf("watcher %d asked after %v, want %v", i, tr.asked[i].at, want)
			}
		}
		cancel()
		for range 3 {
			<-done
		}
	})
}
