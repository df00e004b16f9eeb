package sqlstore

import (
	"context"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// AddMail implements store.Outbox.
func (s *Store) AddMail(ctx context.Context, m store.Mail, limit int) error {
	return s.statement(ctx, "add mail", func(ctx context.Context, c conn) error {
		n, err := c.exec(ctx, `INSERT INTO mails (id, sealed, created, expires, due, attempts)
			SELECT ?1, ?2, ?3, ?4, ?3, 0 WHERE (SELECT count(*) FROM mails) < ?5`,
			m.ID, m.Sealed, micros(m.Created), micros(m.Expires), limit)
		if err == nil && n == 0 {
			return store.ErrFull
		}
		return err
	})
}

// ClaimMails implements store.Outbox. The outer condition is judged again for a
// row that another replica has just claimed.
func (s *Store) ClaimMails(ctx context.Context, now time.Time, lease time.Duration, limit int) (list []store.Mail, err error) {
	err = s.transaction(ctx, "claim mails", func(ctx context.Context, c conn) error {
		list = nil
		return c.rows(ctx, func(row scanner) error {
			var m store.Mail
			if err := row.Scan(&m.ID, &m.Sealed, timeColumn{&m.Created}, timeColumn{&m.Expires}, &m.Attempts); err != nil {
				return err
			}
			list = append(list, m)
			return nil
		}, `UPDATE mails SET due = ?1, attempts = attempts + 1
			WHERE due <= ?2 AND id IN (SELECT id FROM mails WHERE due <= ?2 ORDER BY due LIMIT ?3)
			RETURNING id, sealed, created, expires, attempts`,
			micros(now.Add(lease)), micros(now), limit)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// FinishMail implements store.Outbox.
func (s *Store) FinishMail(ctx context.Context, id string, events ...store.AuditEvent) error {
	return s.transaction(ctx, "finish mail", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `DELETE FROM mails WHERE id = ?1`, id); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// DeferMail implements store.Outbox.
func (s *Store) DeferMail(ctx context.Context, id string, due time.Time) error {
	return s.statement(ctx, "defer mail", func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `UPDATE mails SET due = ?1 WHERE id = ?2`, micros(due), id)
		return err
	})
}
