package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func testWire(t *testing.T) *wire {
	t.Helper()
	w, err := newWire()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w
}

func endless() *supply { return &supply{standing: [][]byte{request("/plain/items/1", "token")}} }

// The origin is the proxy here: drive meets no other server than itself.
func TestDriveCountsWhatTheOriginAnswered(t *testing.T) {
	w := testWire(t)
	f := func(name string, l load, check func(tally) bool) {
		t.Helper()
		marks := 0
		l.port, l.requests, l.mark = w.port, endless(), func() error { marks++; return nil }
		got, err := w.drive(t.Context(), l)
		if err != nil || got.errors != 0 || marks != 2 {
			t.Fatalf("%s: %v, %d errors (%v), %d marks", name, err, got.errors, got.sample, marks)
		}
		if got.atOrigin != got.answered || got.latency.count != got.requests || got.elapsed <= 0 || !check(got) {
			t.Errorf("%s: %d requests, %d answers, %d at the origin, in %v", name, got.requests, got.answered, got.atOrigin, got.elapsed)
		}
	}
	f("by number", load{connections: 7, total: 1000}, func(g tally) bool { return g.requests == 1000 && g.answered == 1000 })
	f("fewer than connections", load{connections: 7, total: 3}, func(g tally) bool { return g.requests == 3 })
	f("by time", load{connections: 3, warm: 20 * time.Millisecond, measure: 50 * time.Millisecond},
		func(g tally) bool {
			return g.elapsed >= 50*time.Millisecond && g.requests > 0 && g.answered > g.requests
		})
}

func TestDriveCountsErrors(t *testing.T) {
	w := testWire(t)
	f := func(name, answer, want string) {
		t.Helper()
		got, err := w.drive(t.Context(), load{
			port: answering(t, answer), connections: 2, total: 10,
			requests: endless(), mark: func() error { return nil },
		})
		if err != nil || got.errors == 0 || got.sample == nil || !strings.Contains(got.sample.Error(), want) {
			t.Errorf("%s: %v, %d errors, %v; want %q", name, err, got.errors, got.sample, want)
		}
	}
	good := string(w.answer)
	f("status", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", `"500"`)
	f("hangs up", "", "closed a connection")
	f("truncates", good[:len(good)-1], "closed a connection")
	f("sends too much", good+"more", "more than the answer")
	f("does not end", "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 9000), "does not end")
}

// answering starts a server that answers one request on each connection and
// then closes it.
func answering(t *testing.T, answer string) (port int) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err == nil {
					io.WriteString(c, answer)
				}
			})
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

func TestDriveGivesUpOnSilence(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0") // its backlog accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got, err := testWire(t).drive(t.Context(), load{
		port: l.Addr().(*net.TCPAddr).Port, connections: 2, warm: time.Millisecond, measure: time.Minute, patience: 100 * time.Millisecond,
		requests: endless(), mark: func() error { return nil },
	})
	if err != nil || got.errors != 1 || !strings.Contains(got.sample.Error(), "no answer") {
		t.Errorf("%v, %d errors, %v", err, got.errors, got.sample)
	}
}

func TestDriveEndsWithItsSupply(t *testing.T) {
	w := testWire(t)
	s := endless()
	s.freshEvery, s.fresh = 10, [][]byte{s.standing[0]}
	got, err := w.drive(t.Context(), load{port: w.port, connections: 2, measure: time.Minute, requests: s, mark: func() error { return nil }})
	if err != nil || got.answered != 19 || got.sample == nil || !strings.Contains(got.sample.Error(), "ran out") {
		t.Errorf("%v, %d answers, %v", err, got.answered, got.sample)
	}
}

func TestDriveEndsWithItsContextAndMarks(t *testing.T) {
	w := testWire(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	l := load{port: w.port, connections: 2, measure: time.Minute, requests: endless(), mark: func() error { return nil }}
	if _, err := w.drive(ctx, l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	broken := errors.New("no clock")
	l.mark = func() error { return broken }
	if _, err := w.drive(t.Context(), l); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
