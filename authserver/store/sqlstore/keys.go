package sqlstore

import (
	"bytes"
	"context"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// Keys implements store.Keys.
func (s *Store) Keys(ctx context.Context) (keys []store.Key, err error) {
	err = s.read(ctx, "keys", func(ctx context.Context, c conn) error {
		keys, err = allKeys(ctx, c)
		return err
	})
	return keys, err
}

func allKeys(ctx context.Context, c conn) ([]store.Key, error) {
	var keys []store.Key
	err := c.rows(ctx, func(row scanner) error {
		var k store.Key
		if err := row.Scan(&k.ID, &k.Use, &k.Algorithm, &k.Public, &k.Sealed, &k.State, timeColumn{&k.Created},
			timeColumn{&k.Activates}, timeColumn{&k.Retired}, timeColumn{&k.Gone}); err != nil {
			return err
		}
		keys = append(keys, k)
		return nil
	}, `SELECT id, key_use, algorithm, public, sealed, state, created, activates, retired, gone
		FROM signing_keys ORDER BY created, id`)
	return keys, err
}

// RotateKeys implements store.Keys. plan runs inside the transaction and must
// not use the store.
func (s *Store) RotateKeys(ctx context.Context, plan func([]store.Key) ([]store.Key, error), events ...store.AuditEvent) (keys []store.Key, err error) {
	err = s.transaction(ctx, "rotate keys", func(ctx context.Context, c conn) error {
		if c.d.lockKeys != "" {
			if _, err := c.exec(ctx, c.d.lockKeys); err != nil {
				return err
			}
		}
		if keys, err = allKeys(ctx, c); err != nil {
			return err
		}
		planned, err := plan(keys)
		if err != nil || planned == nil {
			return err
		}
		if _, err := c.exec(ctx, `DELETE FROM signing_keys`); err != nil {
			return err
		}
		for _, k := range planned {
			if _, err := c.exec(ctx, `INSERT INTO signing_keys
				(id, key_use, algorithm, public, sealed, state, created, activates, retired, gone)
				VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)`,
				k.ID, k.Use, k.Algorithm, k.Public, k.Sealed, k.State, micros(k.Created),
				micros(k.Activates), micros(k.Retired), micros(k.Gone)); err != nil {
				return err
			}
		}
		if keys, err = allKeys(ctx, c); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
	if err != nil {
		return nil, err
	}
	return keys, nil
}

// Envelope implements store.Keys.
func (s *Store) Envelope(ctx context.Context, name string, value []byte) (stored []byte, err error) {
	err = s.transaction(ctx, "envelope", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `INSERT INTO envelopes (name, value) VALUES (?1, ?2) ON CONFLICT DO NOTHING`,
			name, value); err != nil {
			return err
		}
		return c.row(ctx, []any{&stored}, `SELECT value FROM envelopes WHERE name = ?1`, name)
	})
	if err != nil {
		return nil, err
	}
	return stored, nil
}

// ReplaceEnvelope implements store.Keys.
func (s *Store) ReplaceEnvelope(ctx context.Context, name string, old, value []byte) error {
	return s.transaction(ctx, "replace envelope", func(ctx context.Context, c conn) error {
		var stored []byte
		err := c.row(ctx, []any{&stored}, `SELECT value FROM envelopes WHERE name = ?1`+c.d.forUpdate, name)
		if err != nil {
			return err
		}
		if !bytes.Equal(stored, old) {
			return store.ErrMismatch
		}
		_, err = c.exec(ctx, `UPDATE envelopes SET value = ?1 WHERE name = ?2`, value, name)
		return err
	})
}
