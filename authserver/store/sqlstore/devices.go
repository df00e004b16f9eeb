package sqlstore

import (
	"context"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const deviceColumns = `hash, user_hash, client_id, scopes, resources, expires, pause, polled, decided, denied,
	subject, session, grant_id, acr, auth_time, used`

func deviceFields(d *store.Device) []any {
	return []any{digestColumn{&d.Hash}, digestColumn{&d.UserHash}, &d.ClientID, listColumn{&d.Scopes},
		listColumn{&d.Resources}, timeColumn{&d.Expires}, &d.Interval, timeColumn{&d.Polled}, timeColumn{&d.Decided},
		boolColumn{&d.Denied}, &d.Subject, &d.Session, &d.Grant, &d.ACR, timeColumn{&d.AuthTime}, timeColumn{&d.Used}}
}

// AddDevice implements store.Devices.
func (s *Store) AddDevice(ctx context.Context, d store.Device) error {
	return s.statement(ctx, "add device", func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `INSERT INTO devices (`+deviceColumns+`, soon)
			VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 0)`,
			d.Hash[:], d.UserHash[:], d.ClientID, list(d.Scopes), list(d.Resources), micros(d.Expires), int64(d.Interval),
			micros(d.Polled), micros(d.Decided), number(d.Denied), d.Subject, d.Session, d.Grant, d.ACR,
			micros(d.AuthTime), micros(d.Used))
		return err
	})
}

// DeviceByUserCode implements store.Devices.
func (s *Store) DeviceByUserCode(ctx context.Context, hash store.Digest, now time.Time) (d store.Device, err error) {
	err = s.read(ctx, "device", func(ctx context.Context, c conn) error {
		return c.row(ctx, deviceFields(&d), `SELECT `+deviceColumns+` FROM devices
			WHERE user_hash = ?1 AND decided = 0 AND used = 0 AND expires > ?2`, hash[:], micros(now))
	})
	if err != nil {
		return store.Device{}, err
	}
	return d, nil
}

// DecideDevice implements store.Devices. The conditional UPDATE has one winner.
func (s *Store) DecideDevice(ctx context.Context, d store.Device, events ...store.AuditEvent) error {
	return s.transaction(ctx, "decide device", func(ctx context.Context, c conn) error {
		if err := sessionLives(ctx, c, d.Session); err != nil {
			return err
		}
		if err := found(c.exec(ctx, `UPDATE devices SET decided = ?1, denied = ?2, subject = ?3, session = ?4,
			grant_id = ?5, acr = ?6, auth_time = ?7
			WHERE user_hash = ?8 AND decided = 0 AND used = 0 AND expires > ?1`,
			micros(d.Decided), number(d.Denied), d.Subject, d.Session, d.Grant, d.ACR, micros(d.AuthTime), d.UserHash[:])); err != nil {
			return err
		}
		if !d.Denied {
			var client string
			if err := c.row(ctx, []any{&client}, `SELECT client_id FROM devices WHERE user_hash = ?1`, d.UserHash[:]); err != nil {
				return err
			}
			if err := takesPart(ctx, c, d.Session, client); err != nil {
				return err
			}
		}
		return appendAudit(ctx, c, events)
	})
}

// Polls that come a little soon are the network's doing.
const pollTolerance = 500 * time.Millisecond

// PollDevice implements store.Devices. Whether the poll came soon is decided
// where it is recorded, so that polls over several replicas count together.
func (s *Store) PollDevice(ctx context.Context, hash store.Digest, client string, now time.Time) (d store.Device, soon bool, err error) {
	err = s.statement(ctx, "poll device", func(ctx context.Context, c conn) error {
		// The right sides see the row as it was. An interval is in nanoseconds.
		return c.row(ctx, append(deviceFields(&d), boolColumn{&soon}), `UPDATE devices SET
			soon = CASE WHEN polled + pause / 1000 > ?2 THEN 1 ELSE 0 END,
			pause = CASE WHEN polled + pause / 1000 > ?2 THEN pause + 5000000000 ELSE pause END,
			polled = ?1
			WHERE hash = ?3 AND client_id = ?4 RETURNING `+deviceColumns+`, soon`,
			micros(now), micros(now.Add(pollTolerance)), hash[:], client)
	})
	if err != nil {
		return store.Device{}, false, err
	}
	return d, soon, nil
}

// ConsumeDevice implements store.Devices.
func (s *Store) ConsumeDevice(ctx context.Context, hash store.Digest, now time.Time, refresh *store.Family) error {
	return s.transaction(ctx, "consume device", func(ctx context.Context, c conn) error {
		won, err := c.exec(ctx, `UPDATE devices SET used = ?1
			WHERE hash = ?2 AND used = 0 AND decided <> 0 AND denied = 0 AND expires > ?1`, micros(now), hash[:])
		if err != nil {
			return err
		}
		if won == 0 {
			return whyNotConsumedDevice(ctx, c, hash)
		}
		if refresh == nil {
			return nil
		}
		return insertFamily(ctx, c, *refresh)
	})
}

func whyNotConsumedDevice(ctx context.Context, c conn, hash store.Digest) error {
	var used, decided int64
	var denied bool
	err := c.row(ctx, []any{&used, &decided, boolColumn{&denied}},
		`SELECT used, decided, denied FROM devices WHERE hash = ?1`, hash[:])
	switch {
	case err != nil:
		return err
	case used != 0:
		return store.ErrUsed
	case decided == 0 || denied:
		return store.ErrNotFound
	}
	return store.ErrExpired
}
