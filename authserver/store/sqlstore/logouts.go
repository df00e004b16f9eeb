package sqlstore

import (
	"context"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// takesPart records that a client takes part in a session. It runs under the
// lock of sessionLives, so whatever ends the session sees it.
func takesPart(ctx context.Context, c conn, session, client string) error {
	if session == "" {
		return nil
	}
	_, err := c.exec(ctx, `INSERT INTO session_clients (session, client_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING`,
		session, client)
	return err
}

// notices puts a notice into the queue for every client of the sessions that
// were just ended, at ?1. It follows the statement that ends them.
const notices = `INSERT INTO logouts (session, client_id, subject, created, due, attempts)
	SELECT p.session, p.client_id, s.subject, s.ended, s.ended, 0
	FROM session_clients p JOIN sessions s ON s.id = p.session WHERE s.ended = ?1 AND `

// ClaimLogouts implements store.Logouts. The outer condition is judged again
// for a row that another replica has just claimed.
func (s *Store) ClaimLogouts(ctx context.Context, now time.Time, lease time.Duration, limit int) (list []store.LogoutNotice, err error) {
	err = s.transaction(ctx, "claim logouts", func(ctx context.Context, c conn) error {
		list = nil
		return c.rows(ctx, func(row scanner) error {
			var n store.LogoutNotice
			if err := row.Scan(&n.Session, &n.ClientID, &n.Subject, timeColumn{&n.Created}, &n.Attempts); err != nil {
				return err
			}
			list = append(list, n)
			return nil
		}, `UPDATE logouts SET due = ?1, attempts = attempts + 1
			WHERE due <= ?2 AND (session, client_id) IN
				(SELECT session, client_id FROM logouts WHERE due <= ?2 ORDER BY due LIMIT ?3)
			RETURNING session, client_id, subject, created, attempts`,
			micros(now.Add(lease)), micros(now), limit)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// FinishLogout implements store.Logouts.
func (s *Store) FinishLogout(ctx context.Context, n store.LogoutNotice, events ...store.AuditEvent) error {
	return s.transaction(ctx, "finish logout", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `DELETE FROM logouts WHERE session = ?1 AND client_id = ?2`, n.Session, n.ClientID); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// DeferLogout implements store.Logouts.
func (s *Store) DeferLogout(ctx context.Context, n store.LogoutNotice, due time.Time) error {
	return s.statement(ctx, "defer logout", func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `UPDATE logouts SET due = ?1 WHERE session = ?2 AND client_id = ?3`,
			micros(due), n.Session, n.ClientID)
		return err
	})
}
