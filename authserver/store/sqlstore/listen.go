package sqlstore

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
)

// Listen calls wake whenever the revocation log may have grown, in whichever
// process, until ctx ends; it returns ctx's error. It keeps a connection of its
// own to PostgreSQL and replaces it when it breaks; a notification may be lost
// then, so wake is called again, and a reader of the log polls besides. SQLite
// has nobody to hear from but OnRevoke.
func (s *Store) Listen(ctx context.Context, wake func()) error {
	if s.listener == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		if s.listen(ctx, wake) {
			wait = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

// probe is how long a silent connection is trusted: the network may have
// dropped it without a word.
const probe = 10 * time.Second

// listen serves one connection to its end and reports whether it ever worked.
func (s *Store) listen(ctx context.Context, wake func()) (worked bool) {
	c, err := pgx.ConnectConfig(ctx, s.listener)
	if err != nil {
		return false
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(ctx) // nothing is lost with it
	}()
	if _, err := c.Exec(ctx, "LISTEN "+channel); err != nil {
		return false
	}
	wake()
	for {
		heard, cancel := context.WithTimeout(ctx, probe)
		_, err := c.WaitForNotification(heard)
		silent := heard.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return true
		case err == nil:
			wake()
		case !silent || s.pingListener(ctx, c) != nil:
			return true
		}
	}
}

func (s *Store) pingListener(ctx context.Context, c *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.Ping(ctx)
}
