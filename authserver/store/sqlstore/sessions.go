package sqlstore

import (
	"context"
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const sessionColumns = `id, cookie, subject, acr, auth_time, created, expires, ended, agent`

func sessionFields(s *store.Session) []any {
	return []any{&s.ID, digestColumn{&s.Cookie}, &s.Subject, &s.ACR, timeColumn{&s.AuthTime},
		timeColumn{&s.Created}, timeColumn{&s.Expires}, timeColumn{&s.Ended}, &s.Agent}
}

// AddSession implements store.Sessions.
func (s *Store) AddSession(ctx context.Context, n store.Session, events ...store.AuditEvent) error {
	return s.audited(ctx, "add session", events, func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `INSERT INTO sessions (`+sessionColumns+`) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)`,
			n.ID, n.Cookie[:], n.Subject, n.ACR, micros(n.AuthTime), micros(n.Created), micros(n.Expires),
			micros(n.Ended), n.Agent)
		return err
	})
}

// SessionByCookie implements store.Sessions.
func (s *Store) SessionByCookie(ctx context.Context, cookie store.Digest, now time.Time) (n store.Session, err error) {
	err = s.read(ctx, "session", func(ctx context.Context, c conn) error {
		return c.row(ctx, sessionFields(&n), `SELECT `+sessionColumns+` FROM sessions
			WHERE cookie = ?1 AND ended = 0 AND expires > ?2`, cookie[:], micros(now))
	})
	if err != nil {
		return store.Session{}, err
	}
	return n, nil
}

// Sessions implements store.Sessions.
func (s *Store) Sessions(ctx context.Context, subject string, now time.Time) (live []store.Session, err error) {
	err = s.read(ctx, "sessions", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var n store.Session
			if err := row.Scan(sessionFields(&n)...); err != nil {
				return err
			}
			live = append(live, n)
			return nil
		}, `SELECT `+sessionColumns+` FROM sessions
			WHERE subject = ?1 AND ended = 0 AND expires > ?2 ORDER BY created, id`, subject, micros(now))
	})
	if err != nil {
		return nil, err
	}
	return live, nil
}

// LiveSessions implements store.Sessions.
func (s *Store) LiveSessions(ctx context.Context, after string, limit int, now time.Time) (live []store.Session, err error) {
	err = s.read(ctx, "live sessions", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var n store.Session
			if err := row.Scan(sessionFields(&n)...); err != nil {
				return err
			}
			live = append(live, n)
			return nil
		}, `SELECT `+sessionColumns+` FROM sessions
			WHERE id > ?1 AND ended = 0 AND expires > ?2 ORDER BY id LIMIT ?3`, after, micros(now), limit)
	})
	if err != nil {
		return nil, err
	}
	return live, nil
}

// RenewSession implements store.Sessions.
func (s *Store) RenewSession(ctx context.Context, n store.Session, now time.Time, events ...store.AuditEvent) error {
	return s.audited(ctx, "renew session", events, func(ctx context.Context, c conn) error {
		return found(c.exec(ctx, `UPDATE sessions SET cookie = ?1, auth_time = ?2, acr = ?3, expires = ?4, agent = ?5
			WHERE id = ?6 AND subject = ?7 AND ended = 0 AND expires > ?8`,
			n.Cookie[:], micros(n.AuthTime), n.ACR, micros(n.Expires), n.Agent, n.ID, n.Subject, micros(now)))
	})
}

// PutConsent implements store.Consents.
func (s *Store) PutConsent(ctx context.Context, n store.Consent, events ...store.AuditEvent) error {
	return s.transaction(ctx, "put consent", func(ctx context.Context, c conn) error {
		// The row is made first, so that there is one to lock.
		if _, err := c.exec(ctx, `INSERT INTO consents (subject, client_id, scopes, granted) VALUES (?1, ?2, '[]', 0)
			ON CONFLICT DO NOTHING`, n.Subject, n.ClientID); err != nil {
			return err
		}
		var scopes []string
		if err := c.row(ctx, []any{listColumn{&scopes}}, `SELECT scopes FROM consents
			WHERE subject = ?1 AND client_id = ?2`+c.d.forUpdate, n.Subject, n.ClientID); err != nil {
			return err
		}
		scopes = append(scopes, n.Scopes...)
		slices.Sort(scopes)
		if _, err := c.exec(ctx, `UPDATE consents SET scopes = ?3, granted = ?4 WHERE subject = ?1 AND client_id = ?2`,
			n.Subject, n.ClientID, list(slices.Compact(scopes)), micros(n.Granted)); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// Consent implements store.Consents.
func (s *Store) Consent(ctx context.Context, subject, clientID string) (store.Consent, error) {
	n := store.Consent{Subject: subject, ClientID: clientID}
	err := s.read(ctx, "consent", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{listColumn{&n.Scopes}, timeColumn{&n.Granted}},
			`SELECT scopes, granted FROM consents WHERE subject = ?1 AND client_id = ?2`, subject, clientID)
	})
	if err != nil {
		return store.Consent{}, err
	}
	return n, nil
}

// ConsentsOf implements store.Consents.
func (s *Store) ConsentsOf(ctx context.Context, subject string) (given []store.Consent, err error) {
	err = s.read(ctx, "consents", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			n := store.Consent{Subject: subject}
			if err := row.Scan(&n.ClientID, listColumn{&n.Scopes}, timeColumn{&n.Granted}); err != nil {
				return err
			}
			given = append(given, n)
			return nil
		}, `SELECT client_id, scopes, granted FROM consents WHERE subject = ?1 ORDER BY client_id`, subject)
	})
	if err != nil {
		return nil, err
	}
	return given, nil
}

// WithdrawConsent implements store.Consents. Codes are spent before grants are
// read, so that none is redeemed in between.
func (s *Store) WithdrawConsent(ctx context.Context, subject, clientID string, now time.Time, events ...store.AuditEvent) (grants []string, err error) {
	err = s.transaction(ctx, "withdraw consent", func(ctx context.Context, c conn) error {
		grants = nil
		if _, err := c.exec(ctx, `DELETE FROM consents WHERE subject = ?1 AND client_id = ?2`, subject, clientID); err != nil {
			return err
		}
		if _, err := c.exec(ctx, `UPDATE codes SET used = ?3 WHERE subject = ?1 AND client_id = ?2 AND used = 0`,
			subject, clientID, micros(now)); err != nil {
			return err
		}
		if err := appendAudit(ctx, c, events); err != nil {
			return err
		}
		return c.rows(ctx, func(row scanner) error {
			var grant string
			err := row.Scan(&grant)
			grants = append(grants, grant)
			return err
		}, `SELECT grant_id FROM codes WHERE subject = ?1 AND client_id = ?2 AND keep_until > ?3
			UNION SELECT grant_id FROM families WHERE subject = ?1 AND client_id = ?2 AND revoked = 0 ORDER BY grant_id`,
			subject, clientID, micros(now))
	})
	if err != nil {
		return nil, err
	}
	return grants, nil
}

// RemoveConsent implements store.Consents.
func (s *Store) RemoveConsent(ctx context.Context, subject, clientID string, events ...store.AuditEvent) error {
	return s.audited(ctx, "remove consent", events, func(ctx context.Context, c conn) error {
		return found(c.exec(ctx, `DELETE FROM consents WHERE subject = ?1 AND client_id = ?2`, subject, clientID))
	})
}
