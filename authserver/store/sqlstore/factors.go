package sqlstore

import (
	"context"
	"errors"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// PutTOTP implements store.Factors.
func (s *Store) PutTOTP(ctx context.Context, t store.TOTP, recovery []store.Digest, events ...store.AuditEvent) error {
	return s.transaction(ctx, "put TOTP", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `INSERT INTO totp (subject, sealed, last_step, created) VALUES (?1, ?2, ?3, ?4)
			ON CONFLICT (subject) DO UPDATE SET sealed = ?2, last_step = ?3, created = ?4`,
			t.Subject, t.Sealed, t.LastStep, micros(t.Created)); err != nil {
			return err
		}
		if err := putRecoveryCodes(ctx, c, t.Subject, recovery); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

func putRecoveryCodes(ctx context.Context, c conn, subject string, codes []store.Digest) error {
	if _, err := c.exec(ctx, `DELETE FROM recovery_codes WHERE subject = ?1`, subject); err != nil {
		return err
	}
	for _, code := range codes {
		if _, err := c.exec(ctx, `INSERT INTO recovery_codes (subject, hash) VALUES (?1, ?2)`, subject, code[:]); err != nil {
			return err
		}
	}
	return nil
}

// TOTP implements store.Factors.
func (s *Store) TOTP(ctx context.Context, subject string) (store.TOTP, error) {
	t := store.TOTP{Subject: subject}
	err := s.read(ctx, "TOTP", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&t.Sealed, &t.LastStep, timeColumn{&t.Created}},
			`SELECT sealed, last_step, created FROM totp WHERE subject = ?1`, subject)
	})
	if err != nil {
		return store.TOTP{}, err
	}
	return t, nil
}

// SpendTOTP implements store.Factors.
func (s *Store) SpendTOTP(ctx context.Context, subject string, step int64) error {
	return s.transaction(ctx, "spend TOTP", func(ctx context.Context, c conn) error {
		err := found(c.exec(ctx, `UPDATE totp SET last_step = ?2 WHERE subject = ?1 AND last_step < ?2`, subject, step))
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var last int64
		if err := c.row(ctx, []any{&last}, `SELECT last_step FROM totp WHERE subject = ?1`, subject); err != nil {
			return err
		}
		return store.ErrUsed
	})
}

// RemoveTOTP implements store.Factors.
func (s *Store) RemoveTOTP(ctx context.Context, subject string, events ...store.AuditEvent) error {
	return s.transaction(ctx, "remove TOTP", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `DELETE FROM recovery_codes WHERE subject = ?1`, subject); err != nil {
			return err
		}
		if err := found(c.exec(ctx, `DELETE FROM totp WHERE subject = ?1`, subject)); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// PutRecoveryCodes implements store.Factors.
func (s *Store) PutRecoveryCodes(ctx context.Context, subject string, codes []store.Digest, events ...store.AuditEvent) error {
	return s.transaction(ctx, "put recovery codes", func(ctx context.Context, c conn) error {
		if err := putRecoveryCodes(ctx, c, subject, codes); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// RecoveryCodes implements store.Factors.
func (s *Store) RecoveryCodes(ctx context.Context, subject string) (n int, err error) {
	err = s.read(ctx, "recovery codes", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&n}, `SELECT count(*) FROM recovery_codes WHERE subject = ?1`, subject)
	})
	return n, err
}

// SpendRecoveryCode implements store.Factors.
func (s *Store) SpendRecoveryCode(ctx context.Context, subject string, code store.Digest, events ...store.AuditEvent) error {
	return s.audited(ctx, "spend recovery code", events, func(ctx context.Context, c conn) error {
		return found(c.exec(ctx, `DELETE FROM recovery_codes WHERE subject = ?1 AND hash = ?2`, subject, code[:]))
	})
}

// AddPasskey implements store.Factors.
func (s *Store) AddPasskey(ctx context.Context, p store.Passkey, events ...store.AuditEvent) error {
	return s.audited(ctx, "add passkey", events, func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `INSERT INTO passkeys (id, subject, name, credential, counter, created, used)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)`,
			p.ID, p.Subject, p.Name, p.Credential, int64(p.Count), micros(p.Created), micros(p.Used))
		return err
	})
}

// Passkeys implements store.Factors.
func (s *Store) Passkeys(ctx context.Context, subject string) (list []store.Passkey, err error) {
	err = s.read(ctx, "passkeys", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			p := store.Passkey{Subject: subject}
			if err := row.Scan(&p.ID, &p.Name, &p.Credential, &p.Count, timeColumn{&p.Created}, timeColumn{&p.Used}); err != nil {
				return err
			}
			list = append(list, p)
			return nil
		}, `SELECT id, name, credential, counter, created, used FROM passkeys WHERE subject = ?1 ORDER BY created, id`, subject)
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// UsePasskey implements store.Factors.
func (s *Store) UsePasskey(ctx context.Context, p store.Passkey) error {
	return s.transaction(ctx, "use passkey", func(ctx context.Context, c conn) error {
		err := found(c.exec(ctx, `UPDATE passkeys SET credential = ?2, counter = ?3, used = ?4
			WHERE id = ?1 AND subject = ?5 AND (counter < ?3 OR counter = 0 AND ?3 = 0)`,
			p.ID, p.Credential, int64(p.Count), micros(p.Used), p.Subject))
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		var counter int64
		if err := c.row(ctx, []any{&counter}, `SELECT counter FROM passkeys WHERE id = ?1 AND subject = ?2`, p.ID, p.Subject); err != nil {
			return err
		}
		return store.ErrReuse
	})
}

// RemovePasskey implements store.Factors.
func (s *Store) RemovePasskey(ctx context.Context, subject string, id []byte, events ...store.AuditEvent) error {
	return s.audited(ctx, "remove passkey", events, func(ctx context.Context, c conn) error {
		return found(c.exec(ctx, `DELETE FROM passkeys WHERE id = ?1 AND subject = ?2`, id, subject))
	})
}

// RemoveFactors implements store.Factors.
func (s *Store) RemoveFactors(ctx context.Context, subject string, events ...store.AuditEvent) error {
	return s.audited(ctx, "remove factors", events, func(ctx context.Context, c conn) error {
		return removeFactors(ctx, c, subject)
	})
}

// removeFactors removes what a user signs in with besides the password.
func removeFactors(ctx context.Context, c conn, subject string) error {
	for _, query := range []string{
		`DELETE FROM totp WHERE subject = ?1`, `DELETE FROM recovery_codes WHERE subject = ?1`,
		`DELETE FROM passkeys WHERE subject = ?1`,
	} {
		if _, err := c.exec(ctx, query, subject); err != nil {
			return err
		}
	}
	return nil
}
