package authserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/store"
)

const (
	pingInterval  = time.Second
	pingTimeout   = 2 * time.Second
	sweepInterval = time.Minute
	sweepTimeout  = 30 * time.Second
	pruneInterval = time.Hour
	pruneBatch    = 1000
)

// Run does what goes on behind the endpoints until ctx ends: it follows the
// keys, stores queued audit events, watches the store and sweeps it, sends mail,
// and tells applications of sessions that ended. It returns early only when one of them cannot go on.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	tasks := []func(context.Context) error{s.config.Keys.Run, s.audit.Run, s.watch, s.sweep, s.prune, s.logouts.Run}
	if s.post != nil {
		tasks = append(tasks, func(ctx context.Context) error { return s.post.Run(ctx, s.enrol.Write) })
	}
	errs := make([]error, len(tasks))
	var group sync.WaitGroup
	for i, task := range tasks {
		group.Go(func() {
			defer stop()
			if err := task(ctx); err != nil && !errors.Is(err, context.Canceled) {
				errs[i] = err
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// health is the last thing known about the store.
type health struct{ failure atomic.Pointer[error] }

func (h *health) err() error {
	if e := h.failure.Load(); e != nil {
		return *e
	}
	return nil
}

// watch asks the store every second whether it can commit.
func (s *Server) watch(ctx context.Context) error {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, pingTimeout)
		err := s.config.Store.Ping(limited)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if s.health.failure.Swap(nil) != nil {
				s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "the authorization server's store is back")
			}
		default:
			err = fmt.Errorf("the store cannot commit: %w", err)
			if s.health.failure.Swap(&err) == nil {
				s.config.Logger.LogAttrs(ctx, slog.LevelError, "the authorization server's store is away", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// sweep deletes what has expired, a bounded amount a minute.
func (s *Server) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		limited, cancel := context.WithTimeout(ctx, sweepTimeout)
		if err := s.config.Store.Sweep(limited, s.config.Now()); err != nil && ctx.Err() == nil {
			s.config.Logger.LogAttrs(ctx, slog.LevelWarn, "sweep failed", slog.Any("error", err))
		}
		cancel()
	}
}

// prune deletes audit events that are older than they are kept.
func (s *Server) prune(ctx context.Context) error {
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	for {
		if keep := s.config.AuditRetention; keep > 0 {
			limited, cancel := context.WithTimeout(ctx, sweepTimeout)
			if err := s.pruneBefore(limited, s.config.Now().Add(-keep)); err != nil && ctx.Err() == nil {
				s.config.Logger.LogAttrs(ctx, slog.LevelWarn, "pruning the audit log failed", slog.Any("error", err))
			}
			cancel()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (s *Server) pruneBefore(ctx context.Context, before time.Time) error {
	for {
		event := s.audit.Stamp(store.AuditEvent{Action: audit.Pruned, Outcome: audit.Success, Actor: audit.System})
		n, err := s.config.Store.PruneAudit(ctx, before, pruneBatch, event)
		if err != nil {
			return err
		}
		if n > 0 {
			event.Reason = fmt.Sprintf("%d events", n)
			s.audit.Line(ctx, event)
		}
		if n < pruneBatch {
			return nil
		}
	}
}

// Audit is how the audit log stands: events that wait for the store, and those
// that found the queue full.
func (s *Server) Audit() (queued int, dropped uint64) { return s.audit.Queued(), s.audit.Dropped() }
