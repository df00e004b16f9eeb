package audit

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
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

func (r *rows) AuditSince(context.Context, int64, int) ([]store.AuditEvent, error) { return nil, nil }

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
			if err := l.Queue(ctx, store.AuditEvent{Reason: strconv.Itoa(i)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if n, calls := r.state(); n != 100 || calls != 1 {
			t.Errorf("%d events in %d calls", n, calls)
		}
		r.fail(errors.New("away"))
		for i := range 50 {
			_ = l.Queue(ctx, store.AuditEvent{Reason: strconv.Itoa(100 + i)})
		}
		time.Sleep(2 * time.Second)
		r.fail(nil)
		time.Sleep(time.Second)
		_ = l.Queue(ctx, store.AuditEvent{Reason: "150"})
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

func TestFullQueueWritesAtOnceOrFails(t *testing.T) {
	r := &rows{}
	l := New(r, slog.New(slog.DiscardHandler), time.Now)
	for range queueSize {
		if err := l.Queue(t.Context(), store.AuditEvent{}); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := r.state(); n != 0 {
		t.Fatalf("%d events were written early", n)
	}
	if err := l.Queue(t.Context(), store.AuditEvent{Reason: "over"}); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.state(); n != 1 {
		t.Errorf("%d events written by a full queue", n)
	}
	away := errors.New("away")
	r.fail(away)
	if err := l.Queue(t.Context(), store.AuditEvent{}); !errors.Is(err, away) {
		t.Errorf("an event was lost in silence: %v", err)
	}
	if err := l.Write(t.Context(), store.AuditEvent{}); !errors.Is(err, away) {
		t.Errorf("Write: %v", err)
	}
	r.fail(nil)
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.state(); n != queueSize+1 {
		t.Errorf("%d events in the end", n)
	}
}
