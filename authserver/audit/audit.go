// Package audit writes down what the authorization server did: each event as
// one structured log line and as one row of the append-only audit log.
//
// It owns the names of events and the batching. What an event says is the
// caller's, who never puts a secret, a token or a password into it: there is
// no field for one.
//
//	err := log.Write(ctx, store.AuditEvent{Action: audit.Logout, Actor: audit.User(s.Subject), …})
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// Actions. They are part of the product's interface and never renamed.
const (
	TokenIssued    = "token.issued"
	TokenRefreshed = "token.refreshed"
	TokenRefused   = "token.refused"
	TokenRevoked   = "token.revoked"
	CodeIssued     = "code.issued"
	CodeReplayed   = "code.replayed"
	RefreshReuse   = "refresh.reuse"
	DeviceStarted  = "device.started"
	DeviceAllowed  = "device.allowed"
	DeviceDenied   = "device.denied"
	DeviceGuessed  = "device.guessed"
	LoginSucceeded = "login.succeeded"
	LoginFailed    = "login.failed"
	LoginThrottled = "login.throttled"
	ConsentGranted = "consent.granted"
	ConsentDenied  = "consent.denied"
	ConsentRemoved = "consent.removed"
	Logout         = "logout"
	ClientAdded    = "client.added"
	ClientUpdated  = "client.updated"
	ClientRemoved  = "client.removed"
	ClientSecret   = "client.secret_rotated"
	UserAdded      = "user.added"
	UserUpdated    = "user.updated"
	UserRemoved    = "user.removed"
	KeysRotated    = "keys.rotated"
	Revoked        = "revocation.added"
)

// Outcomes.
const (
	Success = "success"
	Failure = "failure"
)

// Client, User and the constants name actors.
func Client(id string) string { return "client:" + id }

// User names a user by subject.
func User(subject string) string {
	if subject == "" {
		return Unknown
	}
	return "user:" + subject
}

// Unknown is an actor that did not prove who it is.
const Unknown = "unknown"

const (
	flushAfter = 500 * time.Millisecond
	batchSize  = 256
	queueSize  = 4096
	flushLimit = 5 * time.Second
)

// Log is safe for concurrent use.
type Log struct {
	store  store.Audits
	logger *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	queue []store.AuditEvent
	full  chan struct{} // has a value when a batch is ready
}

// New returns a log that writes its lines to logger.
func New(s store.Audits, logger *slog.Logger, now func() time.Time) *Log {
	return &Log{store: s, logger: logger, now: now, full: make(chan struct{}, 1)}
}

// Write logs and stores an event before it returns. An error means that the
// event is not in the store: what it stands for must not be reported as done.
func (l *Log) Write(ctx context.Context, e store.AuditEvent) error {
	l.line(ctx, &e)
	if err := l.store.AppendAudit(ctx, []store.AuditEvent{e}); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// Queue logs an event now and stores it within a second, together with others.
// Only when the queue is full does it wait for the store like Write.
func (l *Log) Queue(ctx context.Context, e store.AuditEvent) error {
	l.line(ctx, &e)
	l.mu.Lock()
	if len(l.queue) >= queueSize {
		l.mu.Unlock()
		if err := l.store.AppendAudit(ctx, []store.AuditEvent{e}); err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
		return nil
	}
	l.queue = append(l.queue, e)
	ready := len(l.queue) >= batchSize
	l.mu.Unlock()
	if ready {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
	return nil
}

// line stamps the event and writes it as one line.
func (l *Log) line(ctx context.Context, e *store.AuditEvent) {
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	if !l.logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("action", e.Action)
	add("outcome", e.Outcome)
	add("actor", e.Actor)
	add("client", e.Client)
	add("subject", e.Subject)
	add("grant", e.Grant)
	add("session", e.Session)
	add("ip", e.IP)
	add("reason", e.Reason)
	l.logger.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
}

// Run stores queued events until ctx ends, and then the rest.
func (l *Log) Run(ctx context.Context) error {
	tick := time.NewTicker(flushAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLimit)
			defer cancel()
			return l.Flush(last)
		case <-tick.C:
		case <-l.full:
		}
		limited, cancel := context.WithTimeout(ctx, flushLimit)
		if err := l.Flush(limited); err != nil && ctx.Err() == nil {
			l.logger.LogAttrs(ctx, slog.LevelWarn, "the audit log waits for the store", slog.Any("error", err))
		}
		cancel()
	}
}

// Flush stores what is queued. What it could not store stays queued. It is for
// one goroutine at a time: Run, or a test.
func (l *Log) Flush(ctx context.Context) error {
	for {
		l.mu.Lock()
		batch := l.queue[:min(len(l.queue), batchSize)]
		l.mu.Unlock()
		if len(batch) == 0 {
			return nil
		}
		// Queue only appends, so the batch stays as it is without the lock.
		if err := l.store.AppendAudit(ctx, batch); err != nil {
			return fmt.Errorf("store audit events: %w", err)
		}
		l.mu.Lock()
		l.queue = l.queue[len(batch):]
		if len(l.queue) == 0 {
			l.queue = nil
		}
		l.mu.Unlock()
		if err := ctx.Err(); errors.Is(err, context.Canceled) {
			return err
		}
	}
}
