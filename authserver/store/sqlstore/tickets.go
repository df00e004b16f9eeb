package sqlstore

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// AddTicket implements store.Tickets.
func (s *Store) AddTicket(ctx context.Context, t store.Ticket) error {
	return s.statement(ctx, "add ticket", func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `INSERT INTO tickets (hash, kind, subject, email, expires) VALUES (?1, ?2, ?3, ?4, ?5)`,
			t.Hash[:], t.Kind, t.Subject, t.Email, micros(t.Expires))
		return err
	})
}

// Ticket implements store.Tickets.
func (s *Store) Ticket(ctx context.Context, hash store.Digest, kind string, now time.Time) (store.Ticket, error) {
	var t store.Ticket
	err := s.read(ctx, "ticket", func(ctx context.Context, c conn) (err error) {
		t, err = ticket(ctx, c, hash, kind, now)
		return err
	})
	if err != nil {
		return store.Ticket{}, err
	}
	return t, nil
}

func ticket(ctx context.Context, c conn, hash store.Digest, kind string, now time.Time) (store.Ticket, error) {
	t := store.Ticket{Hash: hash, Kind: kind}
	err := c.row(ctx, []any{&t.Subject, &t.Email, timeColumn{&t.Expires}},
		`SELECT subject, email, expires FROM tickets WHERE hash = ?1 AND kind = ?2 AND expires > ?3`, hash[:], kind, micros(now))
	return t, err
}

// RemoveTickets implements store.Tickets.
func (s *Store) RemoveTickets(ctx context.Context, subject string) error {
	return s.transaction(ctx, "remove tickets", func(ctx context.Context, c conn) error {
		if err := lockUser(ctx, c, subject); err != nil {
			return ignoreNotFound(err)
		}
		return removeTickets(ctx, c, subject)
	})
}

func removeTickets(ctx context.Context, c conn, subject string) error {
	_, err := c.exec(ctx, `DELETE FROM tickets WHERE subject = ?1`, subject)
	return err
}

// lockUser makes everything that spends tickets of a user wait for each other,
// so that none waits for a row that another one of them holds.
func lockUser(ctx context.Context, c conn, subject string) error {
	return c.row(ctx, []any{&subject}, `SELECT subject FROM users WHERE subject = ?1`+c.d.forUpdate, subject)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// spend runs change for the user of a live ticket, with all tickets of the user
// gone.
func (s *Store) spend(ctx context.Context, verb string, hash store.Digest, kind string, now time.Time, events []store.AuditEvent, change func(ctx context.Context, c conn, t store.Ticket) error) error {
	return s.transaction(ctx, verb, func(ctx context.Context, c conn) error {
		t, err := ticket(ctx, c, hash, kind, now)
		if err == nil {
			err = lockUser(ctx, c, t.Subject)
		}
		if err == nil { // another one may have spent it before the lock was had
			_, err = ticket(ctx, c, hash, kind, now)
		}
		if err == nil {
			err = removeTickets(ctx, c, t.Subject)
		}
		if err == nil {
			err = change(ctx, c, t)
		}
		if err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// ResetPassword implements store.Tickets.
func (s *Store) ResetPassword(ctx context.Context, hash store.Digest, kind, password string, now time.Time, events ...store.AuditEvent) error {
	return s.spend(ctx, "reset password", hash, kind, now, events, func(ctx context.Context, c conn, t store.Ticket) error {
		return found(c.exec(ctx, `UPDATE users SET password_hash = ?2,
			email_verified = CASE WHEN email_key = ?3 THEN 1 ELSE email_verified END WHERE subject = ?1`,
			t.Subject, password, emailKey(t.Email)))
	})
}

// ConfirmEmail implements store.Tickets.
func (s *Store) ConfirmEmail(ctx context.Context, hash store.Digest, kind string, now time.Time, events ...store.AuditEvent) error {
	return s.spend(ctx, "confirm e-mail", hash, kind, now, events, func(ctx context.Context, c conn, t store.Ticket) error {
		return found(c.exec(ctx, `UPDATE users SET email = ?2, email_key = ?3, email_verified = 1 WHERE subject = ?1`,
			t.Subject, t.Email, emailKey(t.Email)))
	})
}

// RegisterUser implements store.Tickets.
func (s *Store) RegisterUser(ctx context.Context, hash store.Digest, kind string, u store.User, now time.Time, events ...store.AuditEvent) error {
	return s.transaction(ctx, "register user", func(ctx context.Context, c conn) error {
		if err := found(c.exec(ctx, `DELETE FROM tickets WHERE hash = ?1 AND kind = ?2 AND expires > ?3`, hash[:], kind, micros(now))); err != nil {
			return err
		}
		if err := insertUser(ctx, c, u); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// Count implements store.Counters. Names are locked in one order, so that two of
// these never wait for each other.
func (s *Store) Count(ctx context.Context, names []string, plan func([]store.Counter)) error {
	order := slices.Compact(slices.Sorted(slices.Values(names)))
	return s.transaction(ctx, "counter", func(ctx context.Context, c conn) error {
		before := map[string]store.Counter{}
		for _, name := range order {
			// The row is made first, so that there is one to lock.
			if _, err := c.exec(ctx, `INSERT INTO counters (name, counted, open, at, expires) VALUES (?1, 0, 0, 0, 0)
				ON CONFLICT DO NOTHING`, name); err != nil {
				return err
			}
			t := store.Counter{Name: name}
			if err := c.row(ctx, []any{&t.Count, &t.Open, timeColumn{&t.At}, timeColumn{&t.Expires}},
				`SELECT counted, open, at, expires FROM counters WHERE name = ?1`+c.d.forUpdate, name); err != nil {
				return err
			}
			before[name] = t
		}
		after := make([]store.Counter, len(names))
		for i, name := range names {
			after[i] = before[name]
		}
		plan(after)
		for _, t := range after {
			var err error
			switch {
			case t.Expires.IsZero():
				_, err = c.exec(ctx, `DELETE FROM counters WHERE name = ?1`, t.Name)
			case t != before[t.Name]:
				_, err = c.exec(ctx, `UPDATE counters SET counted = ?2, open = ?3, at = ?4, expires = ?5 WHERE name = ?1`,
					t.Name, t.Count, t.Open, micros(t.At), micros(t.Expires))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
