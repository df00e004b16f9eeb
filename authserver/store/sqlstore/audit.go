package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// AppendAudit implements store.Audits. The events of one call are stored all
// or not at all, and numbered in commit order without gaps.
func (s *Store) AppendAudit(ctx context.Context, events []store.AuditEvent) error {
	if len(events) == 0 {
		return nil
	}
	return s.transaction(ctx, "append audit", func(ctx context.Context, c conn) error {
		var seq int64
		if err := c.row(ctx, []any{&seq}, `UPDATE heads SET seq = seq + ?1 WHERE name = 'audit' RETURNING seq`,
			int64(len(events))); err != nil {
			return err
		}
		seq -= int64(len(events))
		for chunk := range slices.Chunk(events, 100) {
			if err := insertAudit(ctx, c, seq, chunk); err != nil {
				return err
			}
			seq += int64(len(chunk))
		}
		return nil
	})
}

// insertAudit stores events as one statement; the first gets the number after
// seq.
func insertAudit(ctx context.Context, c conn, seq int64, events []store.AuditEvent) error {
	var query strings.Builder
	query.WriteString(`INSERT INTO audit (seq, at, action, outcome, actor, client, subject, grant_id, session, ip, reason) VALUES `)
	args := make([]any, 0, len(events)*11)
	for i, e := range events {
		if i > 0 {
			query.WriteString(", ")
		}
		n := len(args)
		fmt.Fprintf(&query, "(?%d, ?%d, ?%d, ?%d, ?%d, ?%d, ?%d, ?%d, ?%d, ?%d, ?%d)",
			n+1, n+2, n+3, n+4, n+5, n+6, n+7, n+8, n+9, n+10, n+11)
		args = append(args, seq+int64(i)+1, micros(e.Time), e.Action, e.Outcome, e.Actor, e.Client, e.Subject,
			e.Grant, e.Session, e.IP, e.Reason)
	}
	_, err := c.exec(ctx, query.String(), args...)
	return err
}

// AuditSince implements store.Audits.
func (s *Store) AuditSince(ctx context.Context, after int64, limit int) (events []store.AuditEvent, err error) {
	err = s.read(ctx, "audit", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var e store.AuditEvent
			if err := row.Scan(&e.Seq, timeColumn{&e.Time}, &e.Action, &e.Outcome, &e.Actor, &e.Client, &e.Subject,
				&e.Grant, &e.Session, &e.IP, &e.Reason); err != nil {
				return err
			}
			events = append(events, e)
			return nil
		}, `SELECT seq, at, action, outcome, actor, client, subject, grant_id, session, ip, reason FROM audit
			WHERE seq > ?1 ORDER BY seq LIMIT ?2`, after, limit)
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}
