package sqlstore

import (
	"context"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// retention is how long a code, family or session outlives its end: the
// longest life of an access token (60 min) and the leeway of those who check it.
const retention = 61 * time.Minute

// AddCode implements store.Codes.
func (s *Store) AddCode(ctx context.Context, c store.Code) error {
	return s.transaction(ctx, "add code", func(ctx context.Context, q conn) error {
		if err := sessionLives(ctx, q, c.Session); err != nil {
			return err
		}
		if err := takesPart(ctx, q, c.Session, c.ClientID); err != nil {
			return err
		}
		_, err := q.exec(ctx, `INSERT INTO codes (hash, client_id, redirect_uri, challenge, nonce, scopes, resources,
			subject, session, grant_id, acr, auth_time, expires, attempts, used, keep_until, jkt)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)`,
			c.Hash[:], c.ClientID, c.RedirectURI, c.Challenge, c.Nonce, list(c.Scopes), list(c.Resources),
			c.Subject, c.Session, c.Grant, c.ACR, micros(c.AuthTime), micros(c.Expires), c.Attempts, micros(c.Used),
			micros(c.Expires.Add(retention)), c.DPoPKey)
		return err
	})
}

// sessionLives refuses what would be opened for a session that was ended, and
// keeps it from ending before the transaction does.
func sessionLives(ctx context.Context, c conn, session string) error {
	if session == "" {
		return nil
	}
	return c.rows(ctx, func(row scanner) error {
		var ended int64
		if err := row.Scan(&ended); err != nil {
			return err
		}
		if ended != 0 {
			return store.ErrExpired
		}
		return nil
	}, `SELECT ended FROM sessions WHERE id = ?1`+c.d.forShare, session)
}

// Code implements store.Codes.
func (s *Store) Code(ctx context.Context, hash store.Digest) (store.Code, error) {
	c := store.Code{Hash: hash}
	err := s.read(ctx, "code", func(ctx context.Context, q conn) error {
		return q.row(ctx, []any{&c.ClientID, &c.RedirectURI, &c.Challenge, &c.Nonce, listColumn{&c.Scopes},
			listColumn{&c.Resources}, &c.Subject, &c.Session, &c.Grant, &c.ACR, timeColumn{&c.AuthTime},
			timeColumn{&c.Expires}, &c.Attempts, timeColumn{&c.Used}, &c.DPoPKey},
			`SELECT client_id, redirect_uri, challenge, nonce, scopes, resources, subject, session, grant_id, acr,
				auth_time, expires, attempts, used, jkt FROM codes WHERE hash = ?1`, hash[:])
	})
	if err != nil {
		return store.Code{}, err
	}
	return c, nil
}

// ConsumeCode implements store.Codes. The conditional UPDATE has one winner.
func (s *Store) ConsumeCode(ctx context.Context, hash store.Digest, now time.Time, refresh *store.Family) error {
	var keep int64
	if refresh != nil {
		keep = micros(refresh.Expires.Add(retention))
	}
	return s.transaction(ctx, "consume code", func(ctx context.Context, c conn) error {
		won, err := c.exec(ctx, `UPDATE codes SET used = ?1,
			keep_until = CASE WHEN keep_until < ?2 THEN ?2 ELSE keep_until END
			WHERE hash = ?3 AND used = 0 AND expires > ?1`, micros(now), keep, hash[:])
		if err != nil {
			return err
		}
		if won == 0 {
			return whyNotConsumed(ctx, c, hash)
		}
		if refresh == nil {
			return nil
		}
		return insertFamily(ctx, c, *refresh)
	})
}

func whyNotConsumed(ctx context.Context, c conn, hash store.Digest) error {
	var used int64
	if err := c.row(ctx, []any{&used}, `SELECT used FROM codes WHERE hash = ?1`, hash[:]); err != nil {
		return err
	}
	if used != 0 {
		return store.ErrUsed
	}
	return store.ErrExpired
}

// FailCode implements store.Codes.
func (s *Store) FailCode(ctx context.Context, hash store.Digest) (attempts int, err error) {
	err = s.statement(ctx, "fail code", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&attempts},
			`UPDATE codes SET attempts = attempts + 1 WHERE hash = ?1 RETURNING attempts`, hash[:])
	})
	if err != nil {
		return 0, err
	}
	return attempts, nil
}
