package sqlstore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// audited runs f and appends events in the same transaction. The head of the
// audit log is the last lock of every transaction that takes it, so that none
// waits in a circle.
func (s *Store) audited(ctx context.Context, verb string, events []store.AuditEvent, f func(ctx context.Context, c conn) error) error {
	if len(events) == 0 {
		return s.statement(ctx, verb, f)
	}
	return s.transaction(ctx, verb, func(ctx context.Context, c conn) error {
		if err := f(ctx, c); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// AppendAudit implements store.Audits.
func (s *Store) AppendAudit(ctx context.Context, events []store.AuditEvent) error {
	return s.transaction(ctx, "append audit", func(ctx context.Context, c conn) error {
		return appendAudit(ctx, c, events)
	})
}

// appendAudit numbers and chains events under the lock of the log's head,
// which lasts until the transaction ends.
func appendAudit(ctx context.Context, c conn, events []store.AuditEvent) error {
	if len(events) == 0 {
		return nil
	}
	var head store.Link
	if err := c.row(ctx, []any{&head.Seq, hashColumn{&head.Hash}},
		`UPDATE heads SET seq = seq + ?1 WHERE name = 'audit' RETURNING seq, hash`, int64(len(events))); err != nil {
		return err
	}
	head.Seq -= int64(len(events))
	for chunk := range slices.Chunk(events, c.d.auditRows) {
		query, args := c.d.insertAudit(chained(&head, chunk))
		if _, err := c.exec(ctx, query, args...); err != nil {
			return err
		}
	}
	_, err := c.exec(ctx, `UPDATE heads SET hash = ?1 WHERE name = 'audit'`, head.Hash[:])
	return err
}

// chained returns events with their places in the chain, and moves head over
// them.
func chained(head *store.Link, events []store.AuditEvent) []store.AuditEvent {
	placed := slices.Clone(events)
	for i := range placed {
		e := &placed[i]
		head.Seq++
		e.Seq = head.Seq
		head.Hash = e.Chained(head.Hash)
		e.Hash = head.Hash
	}
	return placed
}

const auditColumns = `seq, at, action, outcome, actor, client, subject, grant_id, session, ip, reason, hash`

// auditValues is a statement with a row for each event, for SQLite. Its
// parameters have no numbers: the driver looks for the names of those that do,
// among all of them for each.
func auditValues(events []store.AuditEvent) (query string, args []any) {
	var b strings.Builder
	b.WriteString(`INSERT INTO audit (` + auditColumns + `) VALUES `)
	args = make([]any, 0, len(events)*12)
	for i := range events {
		e := &events[i]
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for j, value := range []any{e.Seq, e.Time.UnixMicro(), e.Action, e.Outcome, e.Actor, e.Client, e.Subject,
			e.Grant, e.Session, e.IP, e.Reason, e.Hash[:]} {
			if j > 0 {
				b.WriteString(", ")
			}
			args = append(args, value)
			b.WriteByte('?')
		}
		b.WriteByte(')')
	}
	return b.String(), args
}

// auditArrays is one statement however many events there are, with an array
// for each column: it is prepared once, and has twelve parameters.
func auditArrays(events []store.AuditEvent) (query string, args []any) {
	seqs, times, hashes := make([]int64, len(events)), make([]int64, len(events)), make([][]byte, len(events))
	var texts [9][]string
	for i := range texts {
		texts[i] = make([]string, len(events))
	}
	for i := range events {
		e := &events[i]
		seqs[i], times[i], hashes[i] = e.Seq, e.Time.UnixMicro(), e.Hash[:]
		for j, s := range [...]string{e.Action, e.Outcome, e.Actor, e.Client, e.Subject, e.Grant, e.Session, e.IP, e.Reason} {
			texts[j][i] = s
		}
	}
	args = []any{seqs, times}
	for i := range texts {
		args = append(args, texts[i])
	}
	return `INSERT INTO audit (` + auditColumns + `) SELECT * FROM unnest(?1::bigint[], ?2::bigint[], ?3::text[], ?4::text[],
		?5::text[], ?6::text[], ?7::text[], ?8::text[], ?9::text[], ?10::text[], ?11::text[], ?12::bytea[])`, append(args, hashes)
}

// AuditSince implements store.Audits.
func (s *Store) AuditSince(ctx context.Context, after int64, limit int) ([]store.AuditEvent, error) {
	return s.Audit(ctx, store.AuditQuery{After: after, Limit: limit})
}

// Audit implements store.Audits.
func (s *Store) Audit(ctx context.Context, q store.AuditQuery) (events []store.AuditEvent, err error) {
	where, args := []string{"seq > ?1"}, []any{q.After}
	for _, column := range []struct{ name, value string }{
		{"action", q.Action}, {"client", q.Client}, {"subject", q.Subject}, {"grant_id", q.Grant},
	} {
		if column.value != "" {
			args = append(args, column.value)
			where = append(where, fmt.Sprintf("%s = ?%d", column.name, len(args)))
		}
	}
	for _, bound := range []struct {
		operator string
		at       time.Time
	}{{">=", q.From}, {"<", q.Until}} {
		if !bound.at.IsZero() {
			args = append(args, micros(bound.at))
			where = append(where, fmt.Sprintf("at %s ?%d", bound.operator, len(args)))
		}
	}
	order := ""
	if q.Newest {
		order = " DESC"
	}
	args = append(args, q.Limit)
	query := fmt.Sprintf(`SELECT %s FROM audit WHERE %s ORDER BY seq%s LIMIT ?%d`,
		auditColumns, strings.Join(where, " AND "), order, len(args))
	err = s.read(ctx, "audit", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var e store.AuditEvent
			if err := row.Scan(&e.Seq, timeColumn{&e.Time}, &e.Action, &e.Outcome, &e.Actor, &e.Client, &e.Subject,
				&e.Grant, &e.Session, &e.IP, &e.Reason, hashColumn{&e.Hash}); err != nil {
				return err
			}
			events = append(events, e)
			return nil
		}, query, args...)
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// AuditChain implements store.Audits.
func (s *Store) AuditChain(ctx context.Context) (base, head store.Link, err error) {
	err = s.read(ctx, "audit chain", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&base.Seq, hashColumn{&base.Hash}, &head.Seq, hashColumn{&head.Hash}},
			`SELECT b.seq, b.hash, h.seq, h.hash FROM heads b, heads h WHERE b.name = 'audit_base' AND h.name = 'audit'`)
	})
	return base, head, err
}

// PruneAudit implements store.Audits.
func (s *Store) PruneAudit(ctx context.Context, before time.Time, limit int, event store.AuditEvent) (pruned int, err error) {
	err = s.transaction(ctx, "prune audit", func(ctx context.Context, c conn) error {
		// The lock keeps the order of locks that every append has.
		if _, err := c.exec(ctx, `UPDATE heads SET seq = seq WHERE name = 'audit'`); err != nil {
			return err
		}
		pruned = 0
		var base store.Link
		young := false
		if err := c.rows(ctx, func(row scanner) error {
			var at time.Time
			var link store.Link
			if err := row.Scan(&link.Seq, timeColumn{&at}, hashColumn{&link.Hash}); err != nil {
				return err
			}
			if young = young || !at.Before(before); !young {
				base = link
				pruned++
			}
			return nil
		}, `SELECT seq, at, hash FROM audit ORDER BY seq LIMIT ?1`, limit); err != nil || pruned == 0 {
			return err
		}
		if _, err := c.exec(ctx, `DELETE FROM audit WHERE seq <= ?1`, base.Seq); err != nil {
			return err
		}
		if base.Hash != (store.Digest{}) { // else it is from before the chain, whose base stays
			if _, err := c.exec(ctx, `UPDATE heads SET seq = ?1, hash = ?2 WHERE name = 'audit_base'`,
				base.Seq, base.Hash[:]); err != nil {
				return err
			}
		}
		event.Reason = base.String()
		return appendAudit(ctx, c, []store.AuditEvent{event})
	})
	if err != nil {
		return 0, err
	}
	return pruned, nil
}
