package authbench

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var measure = flag.Bool("measure", false, "measure in full, and put the table into loadtest/README.md")

// row is one kind of request, to one server.
type row struct {
	title string
	pid   int
	// ask makes one request as the caller of a number, and checks its answer.
	ask    func(ctx context.Context, caller int) error
	rounds []result
}

// result is what one round of a row showed.
type result struct {
	cost     time.Duration // processor time of the server for a request
	rate     float64       // requests/s
	p50, p99 time.Duration
}

const callers = 16

// TestEndpointsAreMeasured asks every endpoint of both servers. Without
// -measure it is short and says nothing about speed.
func TestEndpointsAreMeasured(t *testing.T) {
	rounds, length := 1, 300*time.Millisecond
	if *measure {
		rounds, length = 7, 3*time.Second
	}
	rows := append(gatehouse(t), provider(t)...)
	for n := range rounds {
		order := slices.Clone(rows)
		if n%2 == 1 {
			slices.Reverse(order) // a drift of the machine favours nobody
		}
		for _, r := range order {
			res, err := r.round(t.Context(), length)
			if err != nil {
				t.Fatalf("%s: %v", r.title, err)
			}
			r.rounds = append(r.rounds, res)
			t.Logf("round %d: %-44s %8.1f µs %8.0f/s", n+1, r.title, float64(res.cost)/1e3, res.rate)
		}
	}
	text := table(rows)
	t.Log("\n" + text)
	if *measure {
		publish(t, text)
	}
}

// round asks as fast as the callers can for a while, after a moment of warming.
func (r *row) round(ctx context.Context, length time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, length+time.Minute)
	defer cancel()
	var mu sync.Mutex
	var group sync.WaitGroup
	var all []time.Duration
	var failure error
	warm := time.Now().Add(length / 4)
	end := warm.Add(length)
	cpu := make(chan [2]time.Duration, 1)
	group.Go(func() {
		time.Sleep(time.Until(warm))
		before, err1 := processorTime(r.pid)
		time.Sleep(time.Until(end))
		after, err2 := processorTime(r.pid)
		mu.Lock()
		failure = errors.Join(failure, err1, err2)
		mu.Unlock()
		cpu <- [2]time.Duration{before, after}
	})
	for caller := range callers {
		group.Go(func() {
			var mine []time.Duration
			for {
				sent := time.Now()
				if !sent.Before(end) {
					break
				}
				if err := r.ask(ctx, caller); err != nil {
					mu.Lock()
					failure = errors.Join(failure, err)
					mu.Unlock()
					break
				}
				if done := time.Now(); done.After(warm) && done.Before(end) {
					mine = append(mine, done.Sub(sent))
				}
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	group.Wait()
	if failure != nil {
		return result{}, failure
	}
	if len(all) == 0 {
		return result{}, errors.New("no answer")
	}
	slices.Sort(all)
	spent := <-cpu
	return result{
		cost: (spent[1] - spent[0]) / time.Duration(len(all)), rate: float64(len(all)) / length.Seconds(),
		p50: all[len(all)/2], p99: all[len(all)*99/100],
	}, nil
}

// processorTime is what the process has used, by the kernel's account in
// nanoseconds.
func processorTime(pid int) (time.Duration, error) {
	const scheduler = 2 // CPUCLOCK_SCHED of a whole process
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduler), &t); err != nil {
		return 0, fmt.Errorf("reading the processor clock of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

func table(rows []*row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s · each server on one core, PostgreSQL 15 (fsync off) and the load on another · median of %d rounds, %d callers\n\n",
		time.Now().UTC().Format("2006-01-02"), len(rows[0].rounds), callers)
	b.WriteString("| endpoint | processor µs/request (min–max) | requests/s | p50 | p99 |\n| --- | ---: | ---: | ---: | ---: |\n")
	for _, r := range rows {
		costs := sorted(r.rounds, func(r result) float64 { return float64(r.cost) / 1e3 })
		fmt.Fprintf(&b, "| %s | %.1f (%.1f–%.1f) | %.0f | %.2f ms | %.2f ms |\n", r.title,
			middle(costs), costs[0], costs[len(costs)-1],
			middle(sorted(r.rounds, func(r result) float64 { return r.rate })),
			middle(sorted(r.rounds, func(r result) float64 { return r.p50.Seconds() * 1e3 })),
			middle(sorted(r.rounds, func(r result) float64 { return r.p99.Seconds() * 1e3 })))
	}
	return b.String()
}

func sorted(of []result, figure func(result) float64) []float64 {
	var all []float64
	for _, r := range of {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	return all
}

func middle(sorted []float64) float64 { return sorted[len(sorted)/2] }

// publish puts the table between its marks.
func publish(t *testing.T, text string) {
	t.Helper()
	const file, begin, end = "../README.md", "<!-- authserver:begin -->\n", "<!-- authserver:end -->"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(old), begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s: no marks for the table", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+text+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// client keeps a connection for each caller.
var client = &http.Client{
	Transport:     &http.Transport{MaxIdleConnsPerHost: callers, MaxConnsPerHost: callers},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       30 * time.Second,
}

// post sends a form with HTTP Basic, wants 200 and JSON, and returns it.
func post(ctx context.Context, to, id, secret string, form url.Values) (map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if secret != "" {
		req.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	} else {
		form.Set("client_id", id)
	}
	body, err := read(req)
	if err != nil {
		return nil, err
	}
	var answer map[string]any
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	return answer, nil
}

func read(req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		// An error of these endpoints holds no token.
		return nil, fmt.Errorf("%s answers %d: %.200s", req.URL.Path, resp.StatusCode, body)
	}
	return body, nil
}

// fetch is a row of a document that anybody may read.
func fetch(title, link string, pid int) *row {
	return &row{title: title, pid: pid, ask: func(ctx context.Context, _ int) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
		if err != nil {
			return err
		}
		_, err = read(req)
		return err
	}}
}

// issue is a row of access tokens for a service.
func issue(title, link, id, secret string, extra url.Values, pid int) *row {
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"read:orders"}}
	for k, v := range extra {
		form[k] = v
	}
	return &row{title: title, pid: pid, ask: func(ctx context.Context, _ int) error {
		_, err := post(ctx, link, id, secret, form)
		return err
	}}
}

// introspect is a row of questions about one live token for each caller.
func introspect(t *testing.T, title, tokens, link, id, secret string, asker [2]string, pid int) *row {
	t.Helper()
	var live []string
	for range callers {
		answer, err := post(t.Context(), tokens, id, secret, url.Values{"grant_type": {"client_credentials"}, "scope": {"read:orders"}})
		if err != nil {
			t.Fatal(err)
		}
		live = append(live, answer["access_token"].(string))
	}
	return &row{title: title, pid: pid, ask: func(ctx context.Context, caller int) error {
		answer, err := post(ctx, link, asker[0], asker[1], url.Values{"token": {live[caller]}})
		if err == nil && answer["active"] != true {
			err = errors.New("a live token is not active")
		}
		return err
	}}
}
