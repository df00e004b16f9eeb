package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

var errNewer = errors.New("newer software migrated it")

// migrate brings the schema up to a version, 0 for the newest. One that is
// further already stays.
func migrate(ctx context.Context, db *sql.DB, d goose.Dialect, files fs.FS, upTo int64) error {
	p, err := goose.NewProvider(d, db, files,
		goose.WithTableName("gatehouse_schema"), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, known, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("schema version: %w", err)
	}
	if have > known {
		return fmt.Errorf("the schema has version %d and this gatehouse knows versions up to %d: %w", have, known, errNewer)
	}
	if upTo > known {
		return fmt.Errorf("version %d of the schema is asked for, and this gatehouse knows versions up to %d: %w", upTo, known, errNewer)
	}
	if upTo == 0 {
		upTo = known
	}
	if _, err := p.UpTo(ctx, upTo); err != nil {
		return fmt.Errorf("migrate the schema: %w", err)
	}
	return nil
}

// migrateSQLite tries again when another process migrates at the same time:
// each migration is one transaction, so the loser finds it done the next time.
func migrateSQLite(ctx context.Context, db *sql.DB, upTo int64) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	for try := 0; ; try++ {
		err := migrate(ctx, db, goose.DialectSQLite3, files, upTo)
		if err == nil || errors.Is(err, errNewer) || try == 9 {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
		}
	}
}

// migratePostgres migrates under an advisory lock, for which replicas that
// start together queue.
func migratePostgres(ctx context.Context, config *pgx.ConnConfig, upTo int64) (err error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	lock, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := lock.ExecContext(ctx, fmt.Sprintf("SELECT pg_advisory_lock(%d)", lockSchema)); err != nil {
		return fmt.Errorf("wait for another replica's migration: %w", err)
	}
	// Closing db ends the session and with it the lock.
	return migrate(ctx, db, goose.DialectPostgres, files, upTo)
}
