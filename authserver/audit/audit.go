// Package audit writes down what the authorization server did: each event as
// one structured log line and as one row of the append-only audit log.
//
// It owns the names of events, the batching, and the proof that nothing of an
// exported log was changed (Verify). What an event says is the caller's, who
// never puts a secret, a token or a password into it: there is no field for
// one. How the chain is stored is the store's.
//
//	err := log.With(ctx, store.AuditEvent{Action: audit.ClientAdded, …}, func(e store.AuditEvent) error {
//		return clients.AddClient(ctx, c, e) // one transaction
//	})
//	log.Queue(ctx, store.AuditEvent{Action: audit.TokenIssued, …}) // never waits
package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// Actions. They are part of the product's interface and never renamed.
const (
	TokenIssued    = "token.issued"
	TokenRefreshed = "token.refreshed"
	TokenExchanged = "token.exchanged"
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
	SessionEnded   = "session.ended"

	PasswordChanged = "password.changed"
	// PasswordReset is a new password by a link that was mailed, ResetRequested
	// the wish for one, whoever it was and whether or not there is such a user.
	PasswordReset  = "password.reset"
	ResetRequested = "reset.requested"
	// SignupRequested is the wish for an account, UserRegistered that there is one.
	SignupRequested = "signup.requested"
	UserRegistered  = "user.registered"
	EmailRequested  = "email.requested"
	EmailConfirmed  = "email.confirmed"
	// MailSent and MailUndelivered are about one letter; Reason says which.
	MailSent        = "mail.sent"
	MailUndelivered = "mail.undelivered"
	TOTPEnabled     = "totp.enabled"
	TOTPDisabled    = "totp.disabled"
	RecoveryRenewed = "recovery.renewed"
	RecoveryUsed    = "recovery.used"
	PasskeyAdded    = "passkey.added"
	PasskeyRemoved  = "passkey.removed"
	// The Unusual ones are about what was allowed and looks like somebody else;
	// Failure says that something was ended, or refused, because of it.
	UnusualRefresh  = "unusual.refresh"
	UnusualCountry  = "unusual.new_country"
	UnusualFailures = "unusual.failures"
	// FactorsReset says that an operator removed all that a user signs in with
	// besides the password.
	FactorsReset = "factors.reset"

	// LogoutNotified and LogoutUndelivered are about one application that a
	// session's end was told to, or could not be told for a whole day.
	LogoutNotified    = "logout.notified"
	LogoutUndelivered = "logout.undelivered"
	ClientRegistered  = "client.registered"
	InitialAdded      = "registration_token.added"
	InitialRemoved    = "registration_token.removed"
	ClientAdded       = "client.added"
	ClientUpdated     = "client.updated"
	ClientRemoved     = "client.removed"
	ClientSecret      = "client.secret_rotated"
	// ClientSecretDropped ends the overlap of a rotation.
	ClientSecretDropped = "client.secret_dropped"
	UserAdded           = "user.added"
	UserUpdated         = "user.updated"
	UserRemoved         = "user.removed"
	UserLinked          = "user.linked"
	// UserGone says that the directory lets somebody in no more, who lost
	// everything here for it.
	UserGone    = "user.gone"
	KeysRotated = "keys.rotated"
	KeyRetired  = "key.retired"
	Revoked     = "revocation.added"
	// Dropped stands in for queued events that found the queue full; Reason
	// says how many. Each of them is in the process log.
	Dropped = "audit.dropped"
	// Pruned says that old events were deleted; Reason is the link up to which.
	Pruned = "audit.pruned"
	// Restored says that the state comes from a backup: what was done between
	// the backup and this is not there.
	Restored = "store.restored"
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

// Unknown is an actor that did not prove who it is; System is the server, of
// its own accord.
const (
	Unknown = "unknown"
	System  = "system"
)

const (
	flushAfter = 500 * time.Millisecond
	batchSize  = 1024
	queueSize  = 16 * batchSize
	flushLimit = 5 * time.Second
)

// Appender is the store as a Log needs it.
type Appender interface {
	AppendAudit(ctx context.Context, events []store.AuditEvent) error
}

// Log is safe for concurrent use.
type Log struct {
	store  Appender
	logger *slog.Logger
	now    func() time.Time

	mu sync.Mutex
	// queue grows while taken is being stored; spare is what queue will be.
	queue, taken, spare []store.AuditEvent
	// lost counts drops that no event tells of yet; dropped all of them.
	lost, dropped uint64
	full          chan struct{} // has a value when a batch is ready
}

// New returns a log that writes its lines to logger.
func New(s Appender, logger *slog.Logger, now func() time.Time) *Log {
	return &Log{store: s, logger: logger, now: now, full: make(chan struct{}, 1)}
}

// Stamp returns the event as it will be stored: with the time where it has
// none, and with every field fit for every database. Client identifiers in
// refused requests are whatever somebody sent.
func (l *Log) Stamp(e store.AuditEvent) store.AuditEvent {
	if e.Time.IsZero() {
		e.Time = l.now()
	}
	for _, field := range []*string{&e.Action, &e.Outcome, &e.Actor, &e.Client, &e.Subject, &e.Grant, &e.Session, &e.IP, &e.Reason} {
		*field = clean(*field)
	}
	return e
}

// maxField bounds a field of an event.
const maxField = 512

func clean(s string) string {
	if len(s) > maxField {
		s = s[:maxField]
	}
	if plain(s) {
		return s
	}
	fit := func(r rune) bool { return r >= ' ' && r != 0x7f && r != utf8.RuneError }
	return strings.Map(func(r rune) rune {
		if !fit(r) {
			return '?'
		}
		return r
	}, s)
}

// plain reports whether s is printable ASCII.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// With does something that stores the event it is given in the transaction of
// its change, and logs the line when that is committed.
func (l *Log) With(ctx context.Context, e store.AuditEvent, do func(store.AuditEvent) error) error {
	e = l.Stamp(e)
	if err := do(e); err != nil {
		return err
	}
	l.Line(ctx, e)
	return nil
}

// Write stores an event that belongs to no other change, and logs its line. An
// error means that the event is not in the store: what it stands for must not
// be reported as done.
func (l *Log) Write(ctx context.Context, e store.AuditEvent) error {
	return l.With(ctx, e, func(e store.AuditEvent) error {
		if err := l.store.AppendAudit(ctx, []store.AuditEvent{e}); err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
		return nil
	})
}

// Queue logs an event now and stores it within a second, together with others.
// It never waits: an event that finds the queue full has its line only, and is
// counted.
func (l *Log) Queue(ctx context.Context, e store.AuditEvent) {
	e = l.Stamp(e)
	l.Line(ctx, e)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue)+len(l.taken) >= queueSize {
		l.lost++
		l.dropped++
		return
	}
	l.queue = append(l.queue, e)
	if len(l.queue) >= batchSize {
		select {
		case l.full <- struct{}{}:
		default:
		}
	}
}

// Dropped is how many events found the queue full.
func (l *Log) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// Queued is how many events wait for the store.
func (l *Log) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) + len(l.taken)
}

// Line writes the line of a stamped event that was stored.
func (l *Log) Line(ctx context.Context, e store.AuditEvent) { Line(ctx, l.logger, e) }

// Line writes the line of an event to logger. The line has the event's time.
func Line(ctx context.Context, logger *slog.Logger, e store.AuditEvent) {
	if !logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	var attrs [9]slog.Attr
	n := 0
	add := func(key, value string) {
		if value != "" {
			attrs[n] = slog.String(key, value)
			n++
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
	// Not by the logger's methods: they look for the line of code that calls.
	line := slog.NewRecord(e.Time, slog.LevelInfo, "audit", 0)
	line.AddAttrs(attrs[:n]...)
	_ = logger.Handler().Handle(ctx, line) // as the logger's methods do
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
		batch := l.take()
		if len(batch) == 0 {
			return nil
		}
		if err := l.store.AppendAudit(ctx, batch); err != nil {
			return fmt.Errorf("store audit events: %w", err)
		}
		l.stored(len(batch))
		if err := ctx.Err(); errors.Is(err, context.Canceled) {
			return err
		}
	}
}

// take returns the next events to store, which nobody else touches.
func (l *Log) take() []store.AuditEvent {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.taken) == 0 {
		if l.lost > 0 {
			l.queue = append(l.queue, l.Stamp(store.AuditEvent{
				Action: Dropped, Outcome: Failure, Actor: System, Reason: strconv.FormatUint(l.lost, 10),
			}))
			l.lost = 0
		}
		l.taken, l.queue, l.spare = l.queue, l.spare, nil
	}
	return l.taken[:min(len(l.taken), batchSize)]
}

// stored forgets the first n events that were taken.
func (l *Log) stored(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	whole := l.taken[:n]
	clear(whole)
	if l.taken = l.taken[n:]; len(l.taken) == 0 {
		l.taken, l.spare = nil, whole[:0]
	}
}
