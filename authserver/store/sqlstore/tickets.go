package sqlstore

import (
	"context"
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
	t := store.Ticket{Hash: hash, Kind: kind}
	err := s.read(ctx, "ticket", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&t.Subject, &t.Email, timeColumn{&t.Expires}},
			`SELECT subject, email, expires FROM tickets WHERE hash = ?1 AND kind = ?2 AND expires > ?3`, hash[:], kind, micros(now))
	})
	if err != nil {
		return store.Ticket{}, err
	}
	return t, nil
}

// ConsumeTicket implements store.Tickets.
func (s *Store) ConsumeTicket(ctx context.Context, hash store.Digest, kind string, now time.Time) (store.Ticket, error) {
	t := store.Ticket{Hash: hash, Kind: kind}
	err := s.statement(ctx, "consume ticket", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&t.Subject, &t.Email, timeColumn{&t.Expires}},
			`DELETE FROM tickets WHERE hash = ?1 AND kind = ?2 AND expires > ?3 RETURNING subject, email, expires`,
			hash[:], kind, micros(now))
	})
	if err != nil {
		return store.Ticket{}, err
	}
	return t, nil
}

// RemoveTickets implements store.Tickets.
func (s *Store) RemoveTickets(ctx context.Context, subject, kind string) error {
	return s.statement(ctx, "remove tickets", func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `DELETE FROM tickets WHERE subject = ?1 AND kind = ?2`, subject, kind)
		return err
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
