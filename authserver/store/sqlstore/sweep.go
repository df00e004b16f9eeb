package sqlstore

import (
	"context"
	"time"
)

// Once implements store.Store. A key counts as recorded until Sweep deletes
// it, which is not before it expires.
func (s *Store) Once(ctx context.Context, key string, expires time.Time) (fresh bool, err error) {
	err = s.statement(ctx, "once", func(ctx context.Context, c conn) error {
		n, err := c.exec(ctx, `INSERT INTO once (name, expires) VALUES (?1, ?2) ON CONFLICT DO NOTHING`,
			key, micros(expires))
		fresh = n == 1
		return err
	})
	return fresh && err == nil, err
}

// Tally implements store.Store.
func (s *Store) Tally(ctx context.Context, key string, now time.Time, window time.Duration) (n int, err error) {
	err = s.statement(ctx, "tally", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&n}, `INSERT INTO tallies (name, n, expires) VALUES (?1, 1, ?2)
			ON CONFLICT (name) DO UPDATE SET
				n = CASE WHEN tallies.expires <= ?3 THEN 1 ELSE tallies.n + 1 END,
				expires = CASE WHEN tallies.expires <= ?3 THEN excluded.expires ELSE tallies.expires END
			RETURNING n`, key, micros(now.Add(window)), micros(now))
	})
	return n, err
}

// sweepLimit bounds what one Sweep deletes from a table.
const sweepLimit = 1000

// Sweep implements store.Store. Each table is a transaction of its own; an
// error leaves the rest for the next call.
func (s *Store) Sweep(ctx context.Context, now time.Time) error {
	kept := micros(now.Add(-retention))
	sweeps := []struct {
		query  string
		before int64
	}{
		{`DELETE FROM codes WHERE hash IN
			(SELECT hash FROM codes WHERE keep_until < ?1 ORDER BY keep_until LIMIT ?2)`, micros(now)},
		{`DELETE FROM devices WHERE hash IN
			(SELECT hash FROM devices WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, kept},
		{`DELETE FROM families WHERE grant_id IN
			(SELECT grant_id FROM families WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, kept},
		{`DELETE FROM session_clients WHERE session IN
			(SELECT id FROM sessions WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, kept},
		{`DELETE FROM sessions WHERE id IN
			(SELECT id FROM sessions WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, kept},
		{`DELETE FROM revocations WHERE seq IN
			(SELECT seq FROM revocations WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, micros(now.Add(-leeway))},
		{`DELETE FROM pushed WHERE hash IN
			(SELECT hash FROM pushed WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, micros(now)},
		{`DELETE FROM tallies WHERE name IN
			(SELECT name FROM tallies WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, micros(now.Add(-leeway))},
		{`DELETE FROM tickets WHERE hash IN
			(SELECT hash FROM tickets WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, micros(now)},
		{`DELETE FROM mails WHERE id IN
			(SELECT id FROM mails WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, kept}, // nobody sends any more
		{`DELETE FROM counters WHERE name IN
			(SELECT name FROM counters WHERE expires < ?1 ORDER BY expires LIMIT 5 * ?2)`, micros(now)},
		{`DELETE FROM once WHERE name IN
			(SELECT name FROM once WHERE expires < ?1 ORDER BY expires LIMIT ?2)`, micros(now.Add(-leeway))},
	}
	for _, sweep := range sweeps {
		err := s.statement(ctx, "sweep", func(ctx context.Context, c conn) error {
			_, err := c.exec(ctx, sweep.query, sweep.before, sweepLimit)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
