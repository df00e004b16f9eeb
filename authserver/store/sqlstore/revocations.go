package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Revoke implements store.Revocations.
func (s *Store) Revoke(ctx context.Context, r oauth.Revocation, now time.Time, events ...store.AuditEvent) (oauth.Revocation, error) {
	if r.ID == "" || r.Expires.IsZero() {
		return oauth.Revocation{}, errors.New("store: revoke: an entry needs an id and an end")
	}
	if _, known := appliers[r.Level]; !known {
		return oauth.Revocation{}, fmt.Errorf("store: revoke: unknown level %q", r.Level)
	}
	var logged oauth.Revocation
	err := s.transaction(ctx, "revoke", func(ctx context.Context, c conn) error {
		entry, err := appendRevocation(ctx, c, r, now)
		if err != nil {
			return err
		}
		logged = entry
		return appendAudit(ctx, c, events)
	})
	if err != nil {
		return oauth.Revocation{}, err
	}
	s.revoked()
	return logged, nil
}

// appendRevocation logs r and applies it. Its first change locks the head of
// the log: whoever wants to revoke anything does so before it locks anything
// else, so that two revocations never wait for each other.
func appendRevocation(ctx context.Context, c conn, r oauth.Revocation, now time.Time) (oauth.Revocation, error) {
	r.NotBefore = r.NotBefore.Truncate(time.Second)
	var seq uint64
	if err := c.row(ctx, []any{&seq},
		`UPDATE heads SET seq = seq + 1 WHERE name = 'revocation' RETURNING seq`); err != nil {
		return r, err
	}
	known, err := logged(ctx, c, &r)
	if err != nil {
		return r, err
	}
	if known {
		_, err = c.exec(ctx, `UPDATE heads SET seq = seq - 1 WHERE name = 'revocation'`)
	} else {
		r.Seq = seq
		_, err = c.exec(ctx, `INSERT INTO revocations (seq, level, id, not_before, expires) VALUES (?1, ?2, ?3, ?4, ?5)`,
			int64(r.Seq), string(r.Level), r.ID, micros(r.NotBefore), micros(r.Expires))
	}
	if err != nil {
		return r, err
	}
	before := int64(math.MaxInt64)
	if !r.NotBefore.IsZero() {
		before = micros(r.NotBefore.Add(time.Second))
	}
	for _, query := range appliers[r.Level] {
		args := []any{micros(now), r.ID, before}
		if _, err := c.exec(ctx, query, args[:strings.Count(query, "?")]...); err != nil {
			return r, err
		}
	}
	if !known && c.d.notify != "" {
		if _, err := c.exec(ctx, c.d.notify); err != nil {
			return r, err
		}
	}
	return r, nil
}

// logged finds an entry that says what r says, so that revoking again does not
// make the log grow.
func logged(ctx context.Context, c conn, r *oauth.Revocation) (bool, error) {
	if !r.NotBefore.IsZero() {
		return false, nil
	}
	err := c.row(ctx, []any{&r.Seq, timeColumn{&r.Expires}}, `SELECT seq, expires FROM revocations
		WHERE id = ?1 AND level = ?2 AND not_before = 0 AND expires >= ?3 ORDER BY seq LIMIT 1`,
		r.ID, string(r.Level), micros(r.Expires))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// appliers holds what a level changes besides the log; ?1 is now, ?2 the id,
// ?3 the first moment that the entry spares.
//
// The order within a level closes races with transactions that are under way:
// after the sessions no code can be added for them, after the codes none can
// be redeemed into a family, so the last statement sees every family.
var appliers = map[oauth.Level][]string{
	oauth.LevelToken: nil,
	oauth.LevelGrant: {
		`UPDATE families SET revoked = ?1 WHERE grant_id = ?2 AND revoked = 0`,
	},
	oauth.LevelSession: {
		`UPDATE sessions SET ended = ?1 WHERE id = ?2 AND ended = 0`,
		notices + `s.id = ?2 ON CONFLICT DO NOTHING`,
		`UPDATE codes SET used = ?1 WHERE session = ?2 AND used = 0`,
		`UPDATE devices SET used = ?1 WHERE session = ?2 AND used = 0`,
		`UPDATE families SET revoked = ?1 WHERE session = ?2 AND revoked = 0`,
	},
	oauth.LevelSubject: {
		`UPDATE sessions SET ended = ?1 WHERE subject = ?2 AND ended = 0 AND created < ?3`,
		notices + `s.subject = ?2 ON CONFLICT DO NOTHING`,
		`UPDATE codes SET used = ?1 WHERE subject = ?2 AND used = 0 AND auth_time < ?3`,
		`UPDATE devices SET used = ?1 WHERE subject = ?2 AND used = 0 AND auth_time < ?3`,
		`UPDATE families SET revoked = ?1 WHERE subject = ?2 AND revoked = 0 AND created < ?3`,
	},
	oauth.LevelClient: {
		`UPDATE codes SET used = ?1 WHERE client_id = ?2 AND used = 0`,
		`UPDATE devices SET used = ?1 WHERE client_id = ?2 AND used = 0`,
		`UPDATE families SET revoked = ?1 WHERE client_id = ?2 AND revoked = 0 AND created < ?3`,
	},
	// One issuer a database: its epoch concerns every row.
	oauth.LevelIssuer: {
		`UPDATE sessions SET ended = ?1 WHERE ?2 <> '' AND ended = 0 AND created < ?3`,
		notices + `?2 <> '' ON CONFLICT DO NOTHING`,
		`UPDATE codes SET used = ?1 WHERE used = 0 AND ?2 <> ''`,
		`UPDATE devices SET used = ?1 WHERE used = 0 AND ?2 <> ''`,
		`UPDATE families SET revoked = ?1 WHERE ?2 <> '' AND revoked = 0 AND created < ?3`,
	},
}

// RevokedSince implements store.Revocations: one statement, so that head and
// entries are of one moment.
func (s *Store) RevokedSince(ctx context.Context, after uint64, limit int) (entries []oauth.Revocation, head uint64, err error) {
	err = s.read(ctx, "revoked since", func(ctx context.Context, c conn) error {
		entries, head = nil, 0
		return c.rows(ctx, func(row scanner) error {
			var seq, notBefore, expires sql.NullInt64
			var level, id sql.NullString
			if err := row.Scan(&head, &seq, &level, &id, &notBefore, &expires); err != nil {
				return err
			}
			if !seq.Valid {
				return nil
			}
			r := oauth.Revocation{Seq: uint64(seq.Int64), Level: oauth.Level(level.String), ID: id.String}
			if err := (timeColumn{&r.NotBefore}).Scan(notBefore.Int64); err != nil {
				return err
			}
			if err := (timeColumn{&r.Expires}).Scan(expires.Int64); err != nil {
				return err
			}
			entries = append(entries, r)
			return nil
		}, `SELECT h.seq, r.seq, r.level, r.id, r.not_before, r.expires FROM heads h
			LEFT JOIN (SELECT seq, level, id, not_before, expires FROM revocations
				WHERE seq > ?1 ORDER BY seq LIMIT ?2) r ON h.name = 'revocation'
			WHERE h.name = 'revocation' ORDER BY r.seq`, int64(min(after, math.MaxInt64)), limit)
	})
	if err != nil {
		return nil, 0, err
	}
	return entries, head, nil
}

// Revoked implements store.Revocations.
func (s *Store) Revoked(ctx context.Context, pairs []oauth.Revocation, issued time.Time) (bool, error) {
	if len(pairs) == 0 {
		return false, nil
	}
	// A row that spares tokens after some second concerns those issued within it.
	args := []any{micros(issued.Truncate(time.Second))}
	var match strings.Builder
	for i, p := range pairs {
		if i > 0 {
			match.WriteString(" OR ")
		}
		fmt.Fprintf(&match, "(id = ?%d AND level = ?%d)", len(args)+1, len(args)+2)
		args = append(args, p.ID, string(p.Level))
	}
	var n int64
	err := s.read(ctx, "revoked", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&n}, `SELECT count(*) FROM revocations
			WHERE (`+match.String()+`) AND (not_before = 0 OR not_before >= ?1)`, args...)
	})
	return n > 0, err
}
