// Package mail sends letters out of the way of requests: what is to be sent is
// queued in the store, and one replica at a time writes and delivers it.
//
// It owns the queue's order, retries and their end, and the way to an SMTP
// server. It does not own what a letter says (enrol, web): a queued letter is
// written when it is sent, so that no link waits in a database, and its
// content is sealed, since it says who asked for what.
//
//	post, err := mail.New(config)
//	err = post.Queue(ctx, request, time.Hour)
//	err = post.Run(ctx, write)
package mail

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/store"
)

const (
	// poll is how soon at the latest a letter is seen. It is not seen at once, so
	// that a request which follows another one does not feel whether there was
	// anything to write.
	poll = time.Second
	// batch is how many are on their way at the same time.
	batch = 8
	// lease is longer than an attempt can take. A letter of a replica that died
	// is tried again when it is over.
	lease = 5 * time.Minute
	// limit bounds how many wait.
	limit = 10000
	// An attempt that failed is repeated after firstWait, then after twice as
	// long each time, up to mostWait.
	firstWait = 5 * time.Second
	mostWait  = 10 * time.Minute
)

// Message is a letter as it is sent.
type Message struct {
	// ID is the same at each attempt, so that receivers may drop repetitions.
	ID                      string
	To, Subject, Text, HTML string
	// User is the subject that it is for, "" for nobody yet, and Topic what it
	// is about: for the audit.
	User, Topic string
}

// RefusedError says that a letter can never be delivered.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the mail server refused: " + e.Reason }

// Sender delivers messages.
type Sender interface {
	// Send delivers one. *RefusedError: it is of no use to try again. No error
	// holds an address or a part of the message.
	Send(ctx context.Context, m Message) error
}

// Writer makes messages of what was queued; none where there is nobody to write
// to. first is false when it was asked before for the same content. An error
// means that it is worth asking again.
type Writer func(ctx context.Context, content json.RawMessage, first bool) ([]Message, error)

// Observer counts letters.
type Observer interface {
	// Mail counts one: sent, failed (given up), retried, dropped (not queued).
	Mail(result string)
}

// Config is what a Post needs.
type Config struct {
	Store  store.Outbox
	Sender Sender
	// Key seals what waits; 32 bytes, shared by replicas.
	Key      []byte
	Audit    *audit.Log
	Observer Observer
	Logger   *slog.Logger
	Now      func() time.Time
}

// Post is safe for concurrent use.
type Post struct {
	Config
	aead cipher.AEAD
}

// New returns a post that takes letters; see Run.
func New(c Config) (*Post, error) {
	block, err := aes.NewCipher(c.Key)
	if err != nil {
		return nil, fmt.Errorf("mail key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("mail key: %w", err)
	}
	return &Post{c, aead}, nil
}

// Queue stores what a Writer will get. It is given up after life.
// store.ErrFull when too many wait.
func (p *Post) Queue(ctx context.Context, content any, life time.Duration) error {
	plain, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("queue a mail: %w", err)
	}
	id, now := rand.Text(), p.Now()
	err = p.Store.AddMail(ctx, store.Mail{
		ID: id, Sealed: p.aead.Seal(nil, nil, plain, []byte(id)), Created: now, Expires: now.Add(life),
	}, limit)
	if err != nil {
		p.Observer.Mail("dropped")
		return fmt.Errorf("queue a mail: %w", err)
	}
	return nil
}

// Run writes and sends what is due until ctx ends; it returns ctx's error.
func (p *Post) Run(ctx context.Context, write Writer) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for {
			more, err := p.round(ctx, write)
			if err != nil && ctx.Err() == nil {
				p.Logger.LogAttrs(ctx, slog.LevelWarn, "mail waits for the store", slog.Any("error", err))
			}
			if err != nil || !more {
				break
			}
		}
	}
}

// round delivers a batch; more tells that there may be another one.
func (p *Post) round(ctx context.Context, write Writer) (more bool, err error) {
	due, err := p.Store.ClaimMails(ctx, p.Now(), lease, batch)
	if err != nil {
		return false, err
	}
	errs := make([]error, len(due))
	var group sync.WaitGroup
	for i, m := range due {
		group.Go(func() { errs[i] = p.deliver(ctx, m, write) })
	}
	group.Wait()
	return len(due) == batch, errors.Join(errs...)
}

// deliver makes one attempt. An error is the store's.
func (p *Post) deliver(ctx context.Context, m store.Mail, write Writer) error {
	plain, err := p.aead.Open(nil, nil, m.Sealed, []byte(m.ID))
	if err != nil {
		return p.finish(ctx, m, Message{}, &RefusedError{"it was sealed under another key"})
	}
	if !p.Now().Before(m.Expires) {
		return p.finish(ctx, m, Message{}, &RefusedError{"it waited too long"})
	}
	messages, err := write(ctx, plain, m.Attempts == 1)
	if err != nil {
		return errors.Join(err, p.Store.DeferMail(ctx, m.ID, p.Now().Add(wait(m.Attempts))))
	}
	if len(messages) == 0 {
		return p.Store.FinishMail(ctx, m.ID)
	}
	for i, message := range messages {
		message.ID = fmt.Sprintf("%s-%d", m.ID, i)
		err := p.Sender.Send(ctx, message)
		var refused *RefusedError
		if err != nil && !errors.As(err, &refused) {
			p.Observer.Mail("retried")
			p.Logger.LogAttrs(ctx, slog.LevelWarn, "mail was not delivered yet",
				slog.String("mail", m.ID), slog.Int("attempt", m.Attempts), slog.Any("error", err))
			return p.Store.DeferMail(ctx, m.ID, p.Now().Add(wait(m.Attempts)))
		}
		if err := p.finish(ctx, m, message, err); err != nil {
			return err
		}
	}
	return nil
}

// finish ends a letter that was sent, where failure is nil, or given up.
func (p *Post) finish(ctx context.Context, m store.Mail, message Message, failure error) error {
	event := store.AuditEvent{
		Action: audit.MailSent, Outcome: audit.Success, Actor: audit.System, Subject: message.User, Reason: message.Topic,
	}
	result := "sent"
	if failure != nil {
		result, event.Action, event.Outcome = "failed", audit.MailUndelivered, audit.Failure
		p.Logger.LogAttrs(ctx, slog.LevelWarn, "mail was given up",
			slog.String("mail", m.ID), slog.Int("attempt", m.Attempts), slog.Any("error", failure))
	}
	p.Observer.Mail(result)
	return p.Audit.With(ctx, event, func(e store.AuditEvent) error { return p.Store.FinishMail(ctx, m.ID, e) })
}

// wait is how long to wait after so many attempts.
func wait(attempts int) time.Duration {
	if attempts > 8 {
		return mostWait
	}
	return min(firstWait<<max(attempts-1, 0), mostWait)
}
