package sqlstore

import (
	"context"
	"errors"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// SignInIdentity implements store.Users.
func (s *Store) SignInIdentity(ctx context.Context, id store.Identity, u store.User, events ...store.AuditEvent) (signedIn store.User, added bool, err error) {
	err = s.transaction(ctx, "sign in identity", func(ctx context.Context, c conn) error {
		signedIn, added = store.User{}, false
		var subject string
		var linked bool
		err := c.row(ctx, []any{&subject, boolColumn{&linked}}, `SELECT subject, linked FROM identities
			WHERE provider = ?1 AND external_id = ?2`+c.d.forUpdate, id.Provider, id.ID)
		if errors.Is(err, store.ErrNotFound) {
			added = true
			return addIdentity(ctx, c, id, u, &signedIn, events)
		}
		if err != nil {
			return err
		}
		if _, err := c.exec(ctx, `UPDATE identities SET roles = ?3, member_of = ?4, seen = ?5 WHERE provider = ?1 AND external_id = ?2`,
			id.Provider, id.ID, list(id.Roles), list(id.Groups), micros(id.Seen)); err != nil {
			return err
		}
		if !linked { // the provider knows best; a linked user is our own
			if _, err := c.exec(ctx, `UPDATE users SET email = ?2, display_name = ?3, email_verified = ?4, email_key = ?5
				WHERE subject = ?1`, subject, u.Email, u.DisplayName, number(u.EmailVerified), emailKey(u.Email)); err != nil {
				return err
			}
		}
		return userOf(ctx, c, subject, &signedIn)
	})
	if err != nil {
		return store.User{}, false, err
	}
	return signedIn, added, nil
}

func userOf(ctx context.Context, c conn, subject string, u *store.User) error {
	return c.row(ctx, userFields(u), `SELECT `+userColumns+` FROM users WHERE subject = ?1`, subject)
}

func addIdentity(ctx context.Context, c conn, id store.Identity, u store.User, signedIn *store.User, events []store.AuditEvent) error {
	if !id.Linked {
		if err := insertUser(ctx, c, u); err != nil {
			return err
		}
	}
	if _, err := c.exec(ctx, `INSERT INTO identities (provider, external_id, subject, linked, roles, member_of, created, seen)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7)`,
		id.Provider, id.ID, u.Subject, number(id.Linked), list(id.Roles), list(id.Groups), micros(id.Seen)); err != nil {
		return err
	}
	if err := userOf(ctx, c, u.Subject, signedIn); err != nil {
		return err
	}
	return appendAudit(ctx, c, events)
}

// Identities implements store.Users.
func (s *Store) Identities(ctx context.Context, subject string) (all []store.Identity, err error) {
	err = s.read(ctx, "identities", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var id store.Identity
			if err := row.Scan(&id.Provider, &id.ID, &id.Subject, boolColumn{&id.Linked}, listColumn{&id.Roles},
				listColumn{&id.Groups}, timeColumn{&id.Created}, timeColumn{&id.Seen}); err != nil {
				return err
			}
			all = append(all, id)
			return nil
		}, `SELECT provider, external_id, subject, linked, roles, member_of, created, seen FROM identities
			WHERE subject = ?1 ORDER BY provider, external_id`, subject)
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}
