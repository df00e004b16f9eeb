package sqlstore

import (
	"context"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const initialColumns = `id, hash, name, scopes, created, expires, uses`

func initialFields(t *store.InitialToken) []any {
	return []any{&t.ID, digestColumn{&t.Hash}, &t.Name, listColumn{&t.Scopes}, timeColumn{&t.Created},
		timeColumn{&t.Expires}, &t.Uses}
}

// AddInitialToken implements store.Registrations.
func (s *Store) AddInitialToken(ctx context.Context, t store.InitialToken, events ...store.AuditEvent) error {
	return s.transaction(ctx, "add initial token", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `INSERT INTO initial_tokens (`+initialColumns+`) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)`,
			t.ID, t.Hash[:], t.Name, list(t.Scopes), micros(t.Created), micros(t.Expires), t.Uses); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// InitialToken implements store.Registrations.
func (s *Store) InitialToken(ctx context.Context, hash store.Digest, now time.Time) (t store.InitialToken, err error) {
	err = s.read(ctx, "initial token", func(ctx context.Context, c conn) error {
		return c.row(ctx, initialFields(&t), `SELECT `+initialColumns+` FROM initial_tokens
			WHERE hash = ?1 AND uses > 0 AND expires > ?2`, hash[:], micros(now))
	})
	if err != nil {
		return store.InitialToken{}, err
	}
	return t, nil
}

// InitialTokens implements store.Registrations.
func (s *Store) InitialTokens(ctx context.Context) (all []store.InitialToken, err error) {
	err = s.read(ctx, "initial tokens", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var t store.InitialToken
			err := row.Scan(initialFields(&t)...)
			all = append(all, t)
			return err
		}, `SELECT `+initialColumns+` FROM initial_tokens ORDER BY created, id`)
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// RemoveInitialToken implements store.Registrations.
func (s *Store) RemoveInitialToken(ctx context.Context, id string, events ...store.AuditEvent) error {
	return s.transaction(ctx, "remove initial token", func(ctx context.Context, c conn) error {
		if err := found(c.exec(ctx, `DELETE FROM initial_tokens WHERE id = ?1`, id)); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// Register implements store.Registrations. The conditional UPDATE comes first:
// its row lock makes registrations with one token queue.
func (s *Store) Register(ctx context.Context, n store.Client, r store.Registration, initial *store.Digest, now time.Time, events ...store.AuditEvent) error {
	return s.transaction(ctx, "register client", func(ctx context.Context, c conn) error {
		if initial != nil {
			if err := found(c.exec(ctx, `UPDATE initial_tokens SET uses = uses - 1
				WHERE hash = ?1 AND uses > 0 AND expires > ?2`, initial[:], micros(now))); err != nil {
				return err
			}
		}
		if err := insertClient(ctx, c, n); err != nil {
			return err
		}
		if _, err := c.exec(ctx, `INSERT INTO registrations (client_id, hash, metadata) VALUES (?1, ?2, ?3)`,
			n.ID, r.Hash[:], string(r.Metadata)); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// Registration implements store.Registrations.
func (s *Store) Registration(ctx context.Context, clientID string) (r store.Registration, err error) {
	err = s.read(ctx, "registration", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{digestColumn{&r.Hash}, documentColumn{&r.Metadata}},
			`SELECT hash, metadata FROM registrations WHERE client_id = ?1`, clientID)
	})
	if err != nil {
		return store.Registration{}, err
	}
	return r, nil
}

// ChangeRegistered implements store.Registrations.
func (s *Store) ChangeRegistered(ctx context.Context, n store.Client, presented store.Digest, r store.Registration, events ...store.AuditEvent) error {
	return s.transaction(ctx, "change registered client", func(ctx context.Context, c conn) error {
		changed, err := c.exec(ctx, `UPDATE registrations SET hash = ?1, metadata = ?2 WHERE client_id = ?3 AND hash = ?4`,
			r.Hash[:], string(r.Metadata), n.ID, presented[:])
		if err != nil {
			return err
		}
		if changed == 0 {
			var there int64
			if err := c.row(ctx, []any{&there}, `SELECT 1 FROM registrations WHERE client_id = ?1`, n.ID); err != nil {
				return err
			}
			return store.ErrMismatch
		}
		if err := updateClient(ctx, c, n); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}
