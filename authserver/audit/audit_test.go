package audit

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// rows is a store that can fail.
type rows struct {
	mu     sync.Mutex
	events []store.AuditEvent
	calls  int
	err    error
}

func (r *rows) AppendAudit(_ context.Context, events []store.AuditEvent) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.err == nil {
		r.events = append(r.events, events...)
	}
	return r.err
}

func (r *rows) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *rows) state() (stored, calls int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events), r.calls
}

func TestQueuedEventsAreStoredWithinASecondTogetherAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rows{}
		l := New(r, slog.New(slog.NewJSONHandler(io.Discard, nil)), time.Now)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- l.Run(ctx) }()
		for i := range 100 {
			l.Queue(ctx, store.AuditEvent{Reason: strconv.Itoa(i)})
		}
		time.Sleep(time.Second)
		if n, calls := r.state(); n != 100 || calls != 1 {
			t.Errorf("%d events in %d calls", n, calls)
		}
		r.fail(errors.New("away"))
		for i := range 50 {
			l.Queue(ctx, store.AuditEvent{Reason: strconv.Itoa(100 + i)})
		}
		time.Sleep(2 * time.Second)
		r.fail(nil)
		time.Sleep(time.Second)
		l.Queue(ctx, store.AuditEvent{Reason: "150"})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n, _ := r.state(); n != 151 {
			t.Errorf("%d events stored after an outage and the end", n)
		}
		for i, e := range r.events {
			if e.Reason != strconv.Itoa(i) || e.Time.IsZero() {
				t.Fatalf("event %d is %+v", i, e)
			}
		}
	})
}

func TestFullQueueDropsAndSaysSo(t *testing.T) {
	r := &rows{}
	l := New(r, slog.New(slog.DiscardHandler), time.Now)
	for range queueSize + 3 {
		l.Queue(t.Context(), store.AuditEvent{Action: TokenIssued})
	}
	if n, _ := r.state(); n != 0 || l.Queued() != queueSize || l.Dropped() != 3 {
		t.Fatalf("%d stored, %d queued, %d dropped", n, l.Queued(), l.Dropped())
	}
	away := errors.New("away")
	r.fail(away)
	if err := l.Write(t.Context(), store.AuditEvent{}); !errors.Is(err, away) {
		t.Errorf("Write: %v", err)
	}
	r.fail(nil)
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.state(); n != queueSize+1 {
		t.Fatalf("%d events in the end", n)
	}
	if e := r.events[queueSize]; e.Action != Dropped || e.Reason != "3" || e.Actor != System {
		t.Errorf("the gap is recorded as %+v", e)
	}
}

func TestLineIsWrittenOnlyForWhatWasStored(t *testing.T) {
	var lines strings.Builder
	l := New(&rows{}, slog.New(slog.NewJSONHandler(&lines, nil)), time.Now)
	refused := errors.New("refused")
	if err := l.With(t.Context(), store.AuditEvent{Action: ClientAdded}, func(store.AuditEvent) error { return refused }); !errors.Is(err, refused) {
		t.Error(err)
	}
	if lines.Len() > 0 {
		t.Errorf("a line of a change that was not made: %s", &lines)
	}
	err := l.With(t.Context(), store.AuditEvent{Action: ClientAdded}, func(e store.AuditEvent) error {
		if e.Time.IsZero() {
			t.Error("no time")
		}
		return nil
	})
	if err != nil || !strings.Contains(lines.String(), ClientAdded) {
		t.Errorf("%v: %s", err, &lines)
	}
}

func TestFieldsFitEveryDatabase(t *testing.T) {
	l := New(&rows{}, slog.New(slog.DiscardHandler), time.Now)
	for given, want := range map[string]string{
		"web": "web", "Müller": "Müller", "a\x00b\n": "a?b?", "\xff": "?", strings.Repeat("x", 600): strings.Repeat("x", 512),
		strings.Repeat("x", 511) + "ü": strings.Repeat("x", 511) + "?",
	} {
		if have := l.Stamp(store.AuditEvent{Client: given}).Client; have != want {
			t.Errorf("%q became %q, want %q", given, have, want)
		}
	}
}
