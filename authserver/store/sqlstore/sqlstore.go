// Package sqlstore keeps the authorization server's state in SQLite or
// PostgreSQL: one implementation of package store's verbs over database/sql.
//
// It owns the schema and its migrations, the transactions that make each verb
// atomic, and the mapping of driver errors. It owns no rule of OAuth, hashes
// nothing and seals nothing: it stores the digests and envelopes it is given.
// What the two databases do differently stands in dialect.go.
//
//	s, err := sqlstore.Open(ctx, "sqlite:gatehouse.db", sqlstore.Options{})
//	if err != nil { … }
//	defer s.Close()
//	err = s.ConsumeCode(ctx, hash, now, &family) // one caller in the world gets nil
package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gatehouse/gatehouse/authserver/store"
)

var _ store.Store = (*Store)(nil)

// Options tune a Store; the zero value is right for most.
type Options struct {
	// MaxConns bounds the connections to PostgreSQL; 0 means 16. SQLite has one
	// writer and a few readers, whatever is asked.
	MaxConns int
	// Timeout bounds every verb on top of its context; 0 means 5 s.
	Timeout time.Duration
	// upTo is the version of the schema to stop at; 0: the newest.
	upTo int64
}

// Store is a database. Its methods may be called from many goroutines; any
// error that is not one of package store's leaves the verb's effect unknown.
type Store struct {
	dialect  *dialect
	writer   *sql.DB // one connection for SQLite, the pool for PostgreSQL
	reader   *sql.DB // the same pool for PostgreSQL
	timeout  time.Duration
	listener *pgx.ConnConfig // nil for SQLite
	onRevoke atomic.Pointer[func()]
}

// Open opens the database that dsn names, creates or migrates its schema, and
// returns once it can be used. dsn is sqlite:PATH, sqlite::memory: or a
// postgres:// URL; parts of it that may be secret never appear in an error. A
// schema that newer software migrated is refused. Replicas may open one
// database at the same time.
func Open(ctx context.Context, dsn string, o Options) (*Store, error) {
	if o.MaxConns <= 0 {
		o.MaxConns = 16
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	kind, rest, found := strings.Cut(dsn, ":")
	if !found {
		return nil, errors.New("store: want sqlite:PATH or postgres://…")
	}
	var s *Store
	var err error
	switch kind {
	case "sqlite":
		s, err = openSQLite(ctx, rest, o.upTo)
	case "postgres", "postgresql":
		s, err = openPostgres(ctx, dsn, o.MaxConns, o.upTo)
	default:
		return nil, fmt.Errorf("store: unknown kind %q (want sqlite:PATH or postgres://…)", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("store: open %s: %w", kind, err)
	}
	s.timeout = o.Timeout
	return s, nil
}

// OnRevoke sets the function that is called after this process committed an
// entry of the revocation log; it must not block. The last one set counts.
func (s *Store) OnRevoke(f func()) { s.onRevoke.Store(&f) }

func (s *Store) revoked() {
	if f := s.onRevoke.Load(); f != nil && *f != nil {
		(*f)()
	}
}

// Close closes the connections.
func (s *Store) Close() error {
	err := s.writer.Close()
	if s.reader != s.writer {
		err = errors.Join(err, s.reader.Close())
	}
	return err
}

// Ping commits a small change: a database that only answers is not enough.
func (s *Store) Ping(ctx context.Context) error {
	return s.statement(ctx, "ping", func(ctx context.Context, c conn) error {
		_, err := c.exec(ctx, `UPDATE heads SET seq = seq + 1 WHERE name = 'ping'`)
		return err
	})
}

// conn runs queries, written with ?1, ?2, …, in or outside a transaction.
type conn struct {
	q interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
	d *dialect
}

// exec returns the number of rows that the query changed.
func (c conn) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := c.q.ExecContext(ctx, c.d.rebind(query), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row reads one row; store.ErrNotFound when there is none. It does not return
// nil before the database has reported the whole statement as done.
func (c conn) row(ctx context.Context, dest []any, query string, args ...any) error {
	err := c.q.QueryRowContext(ctx, c.d.rebind(query), args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	}
	return err
}

// rows calls scan for every row.
func (c conn) rows(ctx context.Context, scan func(row scanner) error, query string, args ...any) error {
	rows, err := c.q.QueryContext(ctx, c.d.rebind(query), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return rows.Close()
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

// transaction runs f in one transaction, and once more for as long as a lock is
// not to be had, so f must not build on what an earlier run of it left. nil
// means that it is committed.
func (s *Store) transaction(ctx context.Context, verb string, f func(ctx context.Context, c conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for {
		queued, err := s.attempt(ctx, f)
		if !queued || ctx.Err() != nil {
			return s.failed(verb, err)
		}
	}
}

// attempt runs f in one transaction. queued tells that it waited too long for a
// lock that others hold, as every revocation does for the head of the log:
// nothing was changed, and it may be tried again.
func (s *Store) attempt(ctx context.Context, f func(ctx context.Context, c conn) error) (queued bool, err error) {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	if err := f(ctx, conn{tx, s.dialect}); err != nil {
		// The server ends the transaction of a broken connection by itself.
		_ = tx.Rollback()
		return s.dialect.lockTimeout(err), err
	}
	return false, tx.Commit()
}

// statement runs f, which sends at most one statement that changes something.
// PostgreSQL commits it without further round trips. SQLite reports a failed
// commit reliably only for an explicit transaction.
func (s *Store) statement(ctx context.Context, verb string, f func(ctx context.Context, c conn) error) error {
	if !s.dialect.autocommit {
		return s.transaction(ctx, verb, f)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.failed(verb, f(ctx, conn{s.writer, s.dialect}))
}

// read runs f, which changes nothing.
func (s *Store) read(ctx context.Context, verb string, f func(ctx context.Context, c conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.failed(verb, f(ctx, conn{s.reader, s.dialect}))
}

func (s *Store) failed(verb string, err error) error {
	switch {
	case err == nil:
		return nil
	case s.dialect.duplicate(err):
		err = store.ErrExists
	}
	return fmt.Errorf("store: %s: %w", verb, err)
}
