package sqlstore

import (
	"context"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const userColumns = `subject, name, password_hash, email, display_name, declared, disabled, created, email_verified, roles`

func userFields(u *store.User) []any {
	return []any{&u.Subject, &u.Name, &u.PasswordHash, &u.Email, &u.DisplayName,
		boolColumn{&u.Declared}, boolColumn{&u.Disabled}, timeColumn{&u.Created}, boolColumn{&u.EmailVerified}, listColumn{&u.Roles}}
}

func userValues(u store.User) []any {
	return []any{u.Subject, u.Name, u.PasswordHash, u.Email, u.DisplayName,
		number(u.Declared), number(u.Disabled), micros(u.Created), number(u.EmailVerified), list(u.Roles), emailKey(u.Email)}
}

// emailKey is an address as it is looked for.
func emailKey(email string) string { return strings.ToLower(email) }

// AddUser implements store.Users.
func (s *Store) AddUser(ctx context.Context, u store.User, events ...store.AuditEvent) error {
	return s.transaction(ctx, "add user", func(ctx context.Context, c conn) error {
		if err := insertUser(ctx, c, u); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// insertUser fails with a duplicate when the subject ever was in use.
func insertUser(ctx context.Context, c conn, u store.User) error {
	if _, err := c.exec(ctx, `INSERT INTO subjects (subject) VALUES (?1)`, u.Subject); err != nil {
		return err
	}
	_, err := c.exec(ctx, `INSERT INTO users (`+userColumns+`, email_key)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)`, userValues(u)...)
	return err
}

// UserByName implements store.Users.
func (s *Store) UserByName(ctx context.Context, name string) (store.User, error) {
	return s.user(ctx, `WHERE name = ?1`, name)
}

// UserBySubject implements store.Users.
func (s *Store) UserBySubject(ctx context.Context, subject string) (store.User, error) {
	return s.user(ctx, `WHERE subject = ?1`, subject)
}

func (s *Store) user(ctx context.Context, where, arg string) (u store.User, err error) {
	err = s.read(ctx, "user", func(ctx context.Context, c conn) error {
		return c.row(ctx, userFields(&u), `SELECT `+userColumns+` FROM users `+where, arg)
	})
	if err != nil {
		return store.User{}, err
	}
	return u, nil
}

// Users implements store.Users.
func (s *Store) Users(ctx context.Context) ([]store.User, error) {
	return s.users(ctx, `ORDER BY name`)
}

// UsersByEmail implements store.Users.
func (s *Store) UsersByEmail(ctx context.Context, email string) ([]store.User, error) {
	return s.users(ctx, `WHERE email_key = ?1 ORDER BY name`, emailKey(email))
}

// SetPassword implements store.Users.
func (s *Store) SetPassword(ctx context.Context, subject, hash string, events ...store.AuditEvent) error {
	return s.audited(ctx, "set password", events, func(ctx context.Context, c conn) error {
		return found(c.exec(ctx, `UPDATE users SET password_hash = ?2 WHERE subject = ?1`, subject, hash))
	})
}

func (s *Store) users(ctx context.Context, where string, args ...any) (users []store.User, err error) {
	err = s.read(ctx, "users", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var u store.User
			if err := row.Scan(userFields(&u)...); err != nil {
				return err
			}
			users = append(users, u)
			return nil
		}, `SELECT `+userColumns+` FROM users `+where, args...)
	})
	if err != nil {
		return nil, err
	}
	return users, nil
}

// UpdateUser implements store.Users.
func (s *Store) UpdateUser(ctx context.Context, u store.User, events ...store.AuditEvent) error {
	return s.audited(ctx, "update user", events, func(ctx context.Context, c conn) error {
		return found(c.exec(ctx, `UPDATE users SET name = ?2, password_hash = ?3, email = ?4, display_name = ?5,
			declared = ?6, disabled = ?7, created = ?8, email_verified = ?9, roles = ?10, email_key = ?11 WHERE subject = ?1`, userValues(u)...))
	})
}

// RemoveUser implements store.Users. The subject stays known, and is never
// given out again.
func (s *Store) RemoveUser(ctx context.Context, subject string, events ...store.AuditEvent) error {
	return s.transaction(ctx, "remove user", func(ctx context.Context, c conn) error {
		if _, err := c.exec(ctx, `DELETE FROM consents WHERE subject = ?1`, subject); err != nil {
			return err
		}
		if _, err := c.exec(ctx, `DELETE FROM identities WHERE subject = ?1`, subject); err != nil {
			return err
		}
		if err := removeFactors(ctx, c, subject); err != nil {
			return err
		}
		if _, err := c.exec(ctx, `DELETE FROM tickets WHERE subject = ?1`, subject); err != nil {
			return err
		}
		if err := found(c.exec(ctx, `DELETE FROM users WHERE subject = ?1`, subject)); err != nil {
			return err
		}
		return appendAudit(ctx, c, events)
	})
}

// SubjectFor implements store.Users.
func (s *Store) SubjectFor(ctx context.Context, name, candidate string) (subject string, err error) {
	const query = `SELECT subject FROM users WHERE name = ?1`
	err = s.read(ctx, "subject", func(ctx context.Context, c conn) error {
		err := c.rows(ctx, func(row scanner) error { return row.Scan(&subject) }, query, name)
		return err
	})
	if err != nil || subject != "" {
		return subject, err
	}
	err = s.transaction(ctx, "subject", func(ctx context.Context, c conn) error {
		inserted, err := c.exec(ctx, `INSERT INTO users (`+userColumns+`)
			VALUES (?1, ?2, '', '', '', 1, 0, 0, 0, '[]') ON CONFLICT (name) DO NOTHING`, candidate, name)
		if err != nil {
			return err
		}
		if inserted == 0 {
			return c.row(ctx, []any{&subject}, query, name)
		}
		subject = candidate
		_, err = c.exec(ctx, `INSERT INTO subjects (subject) VALUES (?1)`, candidate)
		return err
	})
	if err != nil {
		return "", err
	}
	return subject, nil
}
