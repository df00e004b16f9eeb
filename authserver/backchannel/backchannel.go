// Package backchannel tells applications that a session in which they took part
// has ended (OpenID Connect Back-Channel Logout 1.0).
//
// It owns the delivery: who is told, how often it is tried, and when it is given
// up. It does not own what ends a session, nor the queue (store), which is
// filled in the transaction that ends one and emptied by one replica at a time.
//
//	err := backchannel.New(config).Run(ctx)
package backchannel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
)

const (
	// poll is how soon at the latest a logout is told.
	poll = time.Second
	// batch is how many are told at the same time.
	batch = 16
	// lease is longer than an attempt can take. A notice of a replica that died
	// is tried again when it is over.
	lease = time.Minute
	// An attempt that failed is repeated after firstWait, then after twice as
	// long each time, up to mostWait; after giveUp nobody will want to know any
	// more: the tokens of that session are long dead.
	firstWait = 5 * time.Second
	mostWait  = 10 * time.Minute
	giveUp    = 24 * time.Hour
)

// Poster sends a form to a URL that a client chose.
type Poster interface {
	Post(ctx context.Context, url string, form url.Values) (status int, err error)
}

// Config is what a Notifier needs.
type Config struct {
	Store   store.Logouts
	Clients *clients.Registry
	Tokens  *tokens.Issuer
	Post    Poster
	Audit   *audit.Log
	Logger  *slog.Logger
	Now     func() time.Time
}

// Notifier delivers logout tokens.
type Notifier struct{ Config }

// New returns a notifier; see Run.
func New(c Config) *Notifier { return &Notifier{c} }

// Run delivers what is due until ctx ends; it returns ctx's error.
func (n *Notifier) Run(ctx context.Context) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		for {
			more, err := n.round(ctx)
			if err != nil && ctx.Err() == nil {
				n.Logger.LogAttrs(ctx, slog.LevelWarn, "back-channel logout waits for the store", slog.Any("error", err))
			}
			if err != nil || !more {
				break
			}
		}
	}
}

// round delivers a batch; more tells that there may be another one.
func (n *Notifier) round(ctx context.Context) (more bool, err error) {
	due, err := n.Store.ClaimLogouts(ctx, n.Now(), lease, batch)
	if err != nil {
		return false, err
	}
	errs := make([]error, len(due))
	var group sync.WaitGroup
	for i, notice := range due {
		group.Go(func() { errs[i] = n.deliver(ctx, notice) })
	}
	group.Wait()
	return len(due) == batch, errors.Join(errs...)
}

// deliver makes one attempt. An error is the store's.
func (n *Notifier) deliver(ctx context.Context, notice store.LogoutNotice) error {
	c, err := n.Clients.Client(ctx, notice.ClientID)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && c.BackchannelLogoutURI == "":
		return n.Store.FinishLogout(ctx, notice) // nobody to tell
	case err != nil:
		return err
	}
	failure := n.tell(ctx, c, notice)
	event := store.AuditEvent{
		Action: audit.LogoutNotified, Outcome: audit.Success, Actor: audit.System,
		Client: notice.ClientID, Subject: notice.Subject, Session: notice.Session,
	}
	now := n.Now()
	if failure != nil {
		n.Logger.LogAttrs(ctx, slog.LevelWarn, "back-channel logout failed",
			slog.String("client", notice.ClientID), slog.Int("attempt", notice.Attempts), slog.Any("error", failure))
		if now.Sub(notice.Created) < giveUp {
			return n.Store.DeferLogout(ctx, notice, now.Add(wait(notice.Attempts)))
		}
		event.Action, event.Outcome = audit.LogoutUndelivered, audit.Failure
	}
	return n.Audit.With(ctx, event, func(e store.AuditEvent) error { return n.Store.FinishLogout(ctx, notice, e) })
}

// tell sends one logout token. Each has an identifier of its own: an
// application that got one and whose answer was lost may refuse to see it
// again.
func (n *Notifier) tell(ctx context.Context, c *clients.Client, notice store.LogoutNotice) error {
	token, err := n.Tokens.MintLogout(tokens.Logout{
		ClientID: c.ID, Subject: notice.Subject, Session: notice.Session, Issued: n.Now(),
	})
	if err != nil {
		return err
	}
	status, err := n.Post.Post(ctx, c.BackchannelLogoutURI, url.Values{"logout_token": {token}})
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusNoContent {
		return fmt.Errorf("the application answered %d", status)
	}
	return nil
}

// wait is how long to wait after so many attempts.
func wait(attempts int) time.Duration {
	if attempts > 8 {
		return mostWait
	}
	return min(firstWait<<max(attempts-1, 0), mostWait)
}
