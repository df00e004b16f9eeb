package authbench

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	measure  = flag.Bool("measure", false, "measure in full; without it every endpoint is asked for a moment")
	publish  = flag.Bool("write", false, "put the table into loadtest/README.md")
	only     = flag.String("only", "", "measure the rows alone whose titles match this expression")
	profiles = flag.String("profiles", "", "a folder for processor profiles of gatehouse, one a row")
)

// row is one kind of request, to one server.
type row struct {
	title  string
	server target
	// request is what a caller of this number sends.
	request func(caller int) []byte
	// check looks at the content that came back.
	check  func(caller int, body []byte) error
	rounds []result
}

// target is a server that is measured.
type target struct {
	addr string
	pid  int
	// profile writes a processor profile of the next while into a file; nil:
	// there is none to be had.
	profile func(file string, d time.Duration) error
}

// result is what one round of a row showed.
type result struct {
	cost     time.Duration // processor time of the server for a request
	sign     time.Duration // of one ES256 signature, just before
	rate     float64       // requests/s
	p50, p99 time.Duration
}

const callers = 16

// TestEndpointsAreMeasured asks every endpoint of both servers. Without
// -measure it is short and says nothing about speed.
func TestEndpointsAreMeasured(t *testing.T) {
	rounds, length := 1, 300*time.Millisecond
	if *measure {
		rounds, length = 7, 2*time.Second
	}
	wanted, err := regexp.Compile(*only)
	if err != nil {
		t.Fatal(err)
	}
	rows := append(gatehouse(t), provider(t)...)
	rows = slices.DeleteFunc(rows, func(r *row) bool { return !wanted.MatchString(r.title) })
	if len(rows) == 0 {
		t.Fatal("no row is of that title")
	}
	for n := range rounds {
		order := slices.Clone(rows)
		if n%2 == 1 {
			slices.Reverse(order) // a drift of the machine favours nobody
		}
		for _, r := range order {
			if err := r.measure(t, length); err != nil {
				t.Fatalf("%s: %v", r.title, err)
			}
			last := r.rounds[len(r.rounds)-1]
			t.Logf("round %d: %-44s %8.1f µs %6.2f signatures %8.0f/s", n+1, r.title,
				float64(last.cost)/1e3, float64(last.cost)/float64(last.sign), last.rate)
		}
	}
	text := table(rows)
	t.Log("\n" + text)
	if *publish {
		write(t, text)
	}
	for _, r := range rows {
		if *profiles != "" && r.server.profile != nil {
			r.record(t, length)
		}
	}
}

// measure is one round.
func (r *row) measure(t *testing.T, length time.Duration) error {
	sign, err := signature()
	if err != nil {
		return err
	}
	res, err := r.round(t, length)
	if err != nil {
		return err
	}
	res.sign = sign
	r.rounds = append(r.rounds, res)
	return nil
}

// record is one more round, under the profiler.
func (r *row) record(t *testing.T, length time.Duration) {
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(r.title), "-")
	done := make(chan error, 1)
	go func() { done <- r.server.profile(*profiles+"/"+name+".pprof", length) }()
	_, err := r.round(t, length+length/2)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatalf("%s: %v", r.title, err)
	}
}

// round asks as fast as the callers can for a while, after a moment of warming.
func (r *row) round(t *testing.T, length time.Duration) (result, error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	var all []time.Duration
	var failure error
	warm := time.Now().Add(length / 4)
	end := warm.Add(length)
	var spent time.Duration
	group.Go(func() {
		time.Sleep(time.Until(warm))
		before, err1 := processorTime(r.server.pid)
		time.Sleep(time.Until(end))
		after, err2 := processorTime(r.server.pid)
		mu.Lock()
		failure = errors.Join(failure, err1, err2)
		spent = after - before
		mu.Unlock()
	})
	for n := range callers {
		group.Go(func() {
			mine, err := r.call(n, warm, end)
			mu.Lock()
			all = append(all, mine...)
			failure = errors.Join(failure, err)
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
	return result{
		cost: spent / time.Duration(len(all)), rate: float64(len(all)) / length.Seconds(),
		p50: all[len(all)/2], p99: all[len(all)*99/100],
	}, nil
}

// call is one caller's part of a round: how long each answer took that came
// between warm and end.
func (r *row) call(n int, warm, end time.Time) (took []time.Duration, err error) {
	c, err := dial(r.server.addr)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	for {
		sent := time.Now()
		if !sent.Before(end) {
			return took, nil
		}
		body, err := c.ask(r.request(n))
		if err == nil {
			err = r.check(n, body)
		}
		if err != nil {
			return nil, err
		}
		if done := time.Now(); done.After(warm) && done.Before(end) {
			took = append(took, done.Sub(sent))
		}
	}
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

// holding wants a text in the answer.
func holding(text string) func(int, []byte) error {
	return func(_ int, body []byte) error {
		if !bytes.Contains(body, []byte(text)) {
			return fmt.Errorf("the answer lacks %s", text)
		}
		return nil
	}
}

// document is a row of a document that anybody may read.
func document(title string, s target, path string) *row {
	request := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, s.addr)
	return &row{title: title, server: s, request: func(int) []byte { return request }, check: holding("{")}
}

// issue is a row of access tokens for a service.
func issue(title string, s target, path, id, secret string, extra url.Values) *row {
	content := url.Values{"grant_type": {"client_credentials"}, "scope": {"read:orders"}}
	for k, v := range extra {
		content[k] = v
	}
	request := form(s.addr, path, id, secret, content)
	return &row{title: title, server: s, request: func(int) []byte { return request }, check: holding(`"access_token"`)}
}

// introspect is a row of questions about one live token for each caller, that
// tokens issues.
func introspect(t *testing.T, title string, tokens *row, path, id, secret string) *row {
	t.Helper()
	c, err := dial(tokens.server.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	var requests [callers][]byte
	for n := range requests {
		body, err := c.ask(tokens.request(n))
		if err != nil {
			t.Fatal(err)
		}
		requests[n] = form(tokens.server.addr, path, id, secret, url.Values{"token": {text(body, "access_token")}})
	}
	return &row{title: title, server: tokens.server, request: func(n int) []byte { return requests[n] }, check: holding(`"active":true`)}
}

// refresh is a row of refresh tokens, one family for each caller, rotated again
// and again.
func refresh(title string, s target, path, id, secret string, tokens [callers]string) *row {
	return &row{
		title: title, server: s,
		request: func(n int) []byte {
			return form(s.addr, path, id, secret, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {tokens[n]}})
		},
		check: func(n int, body []byte) error {
			next := text(body, "refresh_token")
			if next == "" || next == tokens[n] {
				return errors.New("the refresh token was not rotated")
			}
			tokens[n] = next
			return nil
		},
	}
}

// write puts the table between its marks.
func write(t *testing.T, table string) {
	t.Helper()
	const file = "../README.md"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := []byte("<!-- authserver:begin -->\n"), []byte("<!-- authserver:end -->")
	before, rest, ok := bytes.Cut(old, begin)
	_, after, found := bytes.Cut(rest, end)
	if !ok || !found {
		t.Fatalf("%s: no marks for the table", file)
	}
	if err := os.WriteFile(file, slices.Concat(before, begin, []byte(table), end, after), 0o644); err != nil {
		t.Fatal(err)
	}
}
