package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// dialect is everything that SQLite and PostgreSQL do differently.
type dialect struct {
	goose      goose.Dialect
	autocommit bool // see Store.statement
	// placeholder replaces the ? of ?1.
	placeholder string
	// rebound holds queries with their placeholders, of which there are few:
	// their text depends on what is asked, never on a value.
	rebound sync.Map
	// forUpdate and forShare lock the rows of a SELECT to the transaction's
	// end; SQLite has one writer at a time.
	forUpdate, forShare string
	// lockKeys excludes every other RotateKeys until the transaction ends.
	lockKeys string
	// notify tells listeners of other processes about the revocation log.
	notify string
	// duplicate recognises the violation of a unique index.
	duplicate func(error) bool
	// lockTimeout recognises that a lock was not had in time.
	lockTimeout func(error) bool
	// snapshot lets a transaction see one moment only.
	snapshot sql.IsolationLevel
	// insertAudit is a statement that stores up to auditRows events.
	insertAudit func(events []store.AuditEvent) (query string, args []any)
	auditRows   int
	// patient lifts, for one transaction, the limits that keep verbs short.
	patient []string
}

func (d *dialect) unhurry(ctx context.Context, tx *sql.Tx) error {
	for _, query := range d.patient {
		if _, err := tx.ExecContext(ctx, query); err != nil {
			return err
		}
	}
	return nil
}

func (d *dialect) rebind(query string) string {
	if d.placeholder == "?" {
		return query
	}
	if known, ok := d.rebound.Load(query); ok {
		return known.(string)
	}
	text := strings.ReplaceAll(query, "?", d.placeholder)
	d.rebound.Store(query, text)
	return text
}

const (
	channel = "gatehouse_rev"
	// Advisory locks of PostgreSQL are numbers shared by a whole database;
	// these two are ours: "gtehouse" read as digits of a telephone, and next.
	lockSchema = 48346873
	lockKeys   = 48346874
)

func sqliteDialect() *dialect {
	return &dialect{
		goose:       goose.DialectSQLite3,
		placeholder: "?",
		duplicate: func(err error) bool {
			var e *sqlite.Error
			return errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
		},
		lockTimeout: func(error) bool { return false }, // its busy timeout is as long as a verb
		insertAudit: auditValues,
		auditRows:   100,
	}
}

func postgresDialect() *dialect {
	return &dialect{
		goose:       goose.DialectPostgres,
		autocommit:  true,
		placeholder: "$",
		forUpdate:   " FOR UPDATE",
		forShare:    " FOR SHARE",
		lockKeys:    fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", lockKeys),
		notify:      "NOTIFY " + channel,
		duplicate: func(err error) bool {
			var e *pgconn.PgError
			return errors.As(err, &e) && e.Code == "23505"
		},
		lockTimeout: func(err error) bool {
			var e *pgconn.PgError
			return errors.As(err, &e) && e.Code == "55P03"
		},
		snapshot:    sql.LevelRepeatableRead,
		insertAudit: auditArrays,
		auditRows:   4096,
		patient:     []string{"SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0"},
	}
}

// openSQLite opens the file at path with one writing connection and a few that
// only read, or a private database in memory.
func openSQLite(ctx context.Context, path string, upTo int64) (*Store, error) {
	if path == "" {
		return nil, errors.New("no path (want sqlite:PATH)")
	}
	// Percent-encoded, a path may hold the ? and # that end one in a URI.
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath()}
	q := url.Values{"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	if path == ":memory:" {
		u.Opaque = path
	} else {
		// SQLite would create the file readable by others; its siblings -wal and
		// -shm take over the mode.
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	q.Set("_txlock", "immediate")
	u.RawQuery = q.Encode()
	writer, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	writer.SetMaxOpenConns(1)
	s := &Store{dialect: sqliteDialect(), writer: writer, reader: writer}
	if err := migrateSQLite(ctx, writer, upTo); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if path == ":memory:" {
		return s, nil // a second connection would see a database of its own
	}
	q.Del("_txlock")
	q.Add("_pragma", "query_only(true)")
	u.RawQuery = q.Encode()
	if s.reader, err = sql.Open("sqlite", u.String()); err != nil {
		s.reader = writer
		return nil, errors.Join(err, s.Close())
	}
	s.reader.SetMaxOpenConns(4)
	s.reader.SetMaxIdleConns(4)
	return s, nil
}

// openPostgres opens a pool of connections to the server that accepts writes
// among the hosts of the URL.
func openPostgres(ctx context.Context, dsn string, maxConns int, upTo int64) (*Store, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The driver's message quotes the URL, and finds a password in it only
		// by best effort.
		return nil, errors.New("the URL is malformed (want postgres://user:password@host:port/database, special characters percent-encoded)")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 2 * time.Second
	}
	config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "gatehouse"
	}
	config.RuntimeParams["default_transaction_isolation"] = "read committed"
	config.RuntimeParams["synchronous_commit"] = "on"

	// Migrations wait for each other and may rewrite tables: no short limits.
	if err := migratePostgres(ctx, config, upTo); err != nil {
		return nil, err
	}
	config.RuntimeParams["statement_timeout"] = "2000"
	config.RuntimeParams["lock_timeout"] = "500"
	config.RuntimeParams["idle_in_transaction_session_timeout"] = "5000"
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	// Bounds how long a connection stays with a server that a proxy in between
	// has taken out of service.
	db.SetConnMaxLifetime(5 * time.Minute)
	return &Store{dialect: postgresDialect(), writer: db, reader: db, listener: config.Copy()}, nil
}
