package sqlstore

import (
	"context"
	"errors"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

const familyColumns = `grant_id, client_id, subject, session, scopes, resources, acr, nonce, auth_time, created,
	expires, generation, hash, previous, rotated, idle_until, revoked, jkt, x5t`

func familyFields(f *store.Family) []any {
	return []any{&f.Grant, &f.ClientID, &f.Subject, &f.Session, listColumn{&f.Scopes}, listColumn{&f.Resources},
		&f.ACR, &f.Nonce, timeColumn{&f.AuthTime}, timeColumn{&f.Created}, timeColumn{&f.Expires}, &f.Generation,
		digestColumn{&f.Hash}, digestColumn{&f.Previous}, timeColumn{&f.Rotated}, timeColumn{&f.IdleUntil},
		timeColumn{&f.Revoked}, &f.DPoPKey, &f.Certificate}
}

// AddFamily implements store.Refreshes.
func (s *Store) AddFamily(ctx context.Context, f store.Family) error {
	return s.transaction(ctx, "add family", func(ctx context.Context, c conn) error {
		if err := sessionLives(ctx, c, f.Session); err != nil {
			return err
		}
		return insertFamily(ctx, c, f)
	})
}

func insertFamily(ctx context.Context, c conn, f store.Family) error {
	_, err := c.exec(ctx, `INSERT INTO families (`+familyColumns+`)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)`,
		f.Grant, f.ClientID, f.Subject, f.Session, list(f.Scopes), list(f.Resources), f.ACR, f.Nonce,
		micros(f.AuthTime), micros(f.Created), micros(f.Expires), f.Generation, f.Hash[:], f.Previous[:],
		micros(f.Rotated), micros(f.IdleUntil), micros(f.Revoked), f.DPoPKey, f.Certificate)
	return err
}

// Family implements store.Refreshes.
func (s *Store) Family(ctx context.Context, grant string) (f store.Family, err error) {
	err = s.read(ctx, "family", func(ctx context.Context, c conn) error {
		return familyOf(ctx, c, grant, "", &f)
	})
	if err != nil {
		return store.Family{}, err
	}
	return f, nil
}

var familyAndUser = `SELECT ` + qualified("f", familyColumns) + `, ` + qualified("u", userColumns) + `
	FROM families f JOIN users u ON u.subject = f.subject WHERE f.grant_id = ?1`

// FamilyAndUser implements store.Refreshes, in one round trip where there is
// such a user.
func (s *Store) FamilyAndUser(ctx context.Context, grant string) (f store.Family, u store.User, err error) {
	err = s.read(ctx, "family and user", func(ctx context.Context, c conn) error {
		return c.row(ctx, append(familyFields(&f), userFields(&u)...), familyAndUser, grant)
	})
	if errors.Is(err, store.ErrNotFound) {
		f, err = s.Family(ctx, grant)
		return f, store.User{}, err
	}
	if err != nil {
		return store.Family{}, store.User{}, err
	}
	return f, u, nil
}

func familyOf(ctx context.Context, c conn, grant, lock string, f *store.Family) error {
	return c.row(ctx, familyFields(f), `SELECT `+familyColumns+` FROM families WHERE grant_id = ?1`+lock, grant)
}

// Families implements store.Refreshes.
func (s *Store) Families(ctx context.Context, subject string, now time.Time) ([]store.Family, error) {
	var found []store.Family
	err := s.read(ctx, "families", func(ctx context.Context, c conn) error {
		return c.rows(ctx, func(row scanner) error {
			var f store.Family
			if err := row.Scan(familyFields(&f)...); err != nil {
				return err
			}
			found = append(found, f)
			return nil
		}, `SELECT `+familyColumns+` FROM families
			WHERE subject = ?1 AND revoked = 0 AND expires > ?2 AND idle_until > ?2 ORDER BY created, grant_id`,
			subject, micros(now))
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// RotateRefresh implements store.Refreshes. Nearly every call is decided by
// one conditional UPDATE; the others look at the family under its lock.
func (s *Store) RotateRefresh(ctx context.Context, r store.Rotation) (f store.Family, replayed bool, err error) {
	const verb = "rotate refresh token"
	err = s.statement(ctx, verb, func(ctx context.Context, c conn) error { return advance(ctx, c, r, &f) })
	if err == nil {
		return f, false, nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return store.Family{}, false, err
	}
	err = s.transaction(ctx, verb, func(ctx context.Context, c conn) error {
		if err := familyOf(ctx, c, r.Grant, c.d.forUpdate, &f); err != nil {
			return err
		}
		var err error
		if replayed, err = judge(&f, r); err != nil || replayed {
			return err
		}
		return advance(ctx, c, r, &f)
	})
	if errors.Is(err, store.ErrReuse) {
		err = s.killFamily(ctx, r, &f)
	}
	switch {
	case err == nil:
		return f, replayed, nil
	case errors.Is(err, store.ErrReuse), errors.Is(err, store.ErrUsed), errors.Is(err, store.ErrExpired):
		return f, false, err
	}
	return store.Family{}, false, err
}

// advance makes r.Next current if r presents the family's live token;
// store.ErrNotFound if not.
func advance(ctx context.Context, c conn, r store.Rotation, f *store.Family) error {
	return c.row(ctx, familyFields(f), `UPDATE families
		SET generation = generation + 1, previous = hash, hash = ?1, rotated = ?2, idle_until = ?3
		WHERE grant_id = ?4 AND client_id = ?5 AND generation = ?6 AND hash = ?7
			AND revoked = 0 AND expires > ?2 AND idle_until > ?2
		RETURNING `+familyColumns,
		r.Next[:], micros(r.Now), micros(r.IdleUntil), r.Grant, r.ClientID, r.Generation, r.Presented[:])
}

// judge says what presenting r to f means: nil for the live token, replayed
// for the one before it within the grace, else an error of package store.
func judge(f *store.Family, r store.Rotation) (replayed bool, err error) {
	switch {
	case r.ClientID != f.ClientID:
		return false, store.ErrMismatch
	case r.Generation < 1 || r.Generation > f.Generation,
		r.Generation == f.Generation && r.Presented != f.Hash,
		r.Generation == f.Generation-1 && r.Presented != f.Previous:
		return false, store.ErrNotFound
	case !f.Revoked.IsZero():
		return false, store.ErrUsed
	case r.Generation == f.Generation:
		if !f.IdleUntil.After(r.Now) || !f.Expires.After(r.Now) {
			return false, store.ErrExpired
		}
		return false, nil
	case r.Generation < f.Generation-1 || r.Grace <= 0 || r.Now.Sub(f.Rotated) > r.Grace:
		return false, store.ErrReuse
	case !f.Expires.After(r.Now):
		return false, store.ErrExpired
	case r.Next != f.Hash:
		return false, errors.New("the successor was derived by another key")
	}
	return true, nil
}

// killFamily revokes the family that r reuses. It takes the log's lock before
// the family's, as every revocation does, hence a transaction of its own; a
// reuse cannot cease to be one in between.
func (s *Store) killFamily(ctx context.Context, r store.Rotation, f *store.Family) error {
	err := s.transaction(ctx, "revoke reused family", func(ctx context.Context, c conn) error {
		_, err := appendRevocation(ctx, c, oauth.Revocation{
			Level: oauth.LevelGrant, ID: r.Grant, Expires: r.Now.Add(r.TokenLife + leeway),
		}, r.Now)
		if err != nil {
			return err
		}
		if err := familyOf(ctx, c, r.Grant, "", f); err != nil {
			return err
		}
		return appendAudit(ctx, c, r.OnReuse)
	})
	if err != nil {
		return err
	}
	s.revoked()
	return s.failed("rotate refresh token", store.ErrReuse)
}

// leeway is how much longer than its life a token may be accepted, and how
// long after the decision to issue it that life may begin.
const leeway = time.Minute

// RevokeGrant implements store.Refreshes.
func (s *Store) RevokeGrant(ctx context.Context, grant string, now, expires time.Time, events ...store.AuditEvent) error {
	_, err := s.Revoke(ctx, oauth.Revocation{Level: oauth.LevelGrant, ID: grant, Expires: expires}, now, events...)
	return err
}
