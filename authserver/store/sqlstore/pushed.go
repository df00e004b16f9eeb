package sqlstore

import (
	"context"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// AddPushed implements store.PushedRequests.
func (s *Store) AddPushed(ctx context.Context, p store.Pushed) error {
	return s.statement(ctx, "add pushed request", func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `INSERT INTO pushed (hash, client_id, query, signed, expires) VALUES (?1, ?2, ?3, ?4, ?5)`,
			p.Hash[:], p.ClientID, p.Query, number(p.Signed), micros(p.Expires))
		return err
	})
}

// TakePushed implements store.PushedRequests. The DELETE has one winner.
func (s *Store) TakePushed(ctx context.Context, hash store.Digest, clientID string, now time.Time) (store.Pushed, error) {
	p := store.Pushed{Hash: hash, ClientID: clientID}
	err := s.statement(ctx, "take pushed request", func(ctx context.Context, c conn) error {
		return c.row(ctx, []any{&p.Query, boolColumn{&p.Signed}, timeColumn{&p.Expires}},
			`DELETE FROM pushed WHERE hash = ?1 AND client_id = ?2 AND expires > ?3 RETURNING query, signed, expires`,
			hash[:], clientID, micros(now))
	})
	if err != nil {
		return store.Pushed{}, err
	}
	return p, nil
}
