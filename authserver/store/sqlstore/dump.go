package sqlstore

import (
	"bufio"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ErrNotEmpty says that a database to restore into holds something already.
var ErrNotEmpty = errors.New("the database is not empty")

// A dump is lines of JSON: a header; for each table a line with its name and
// columns, and a line for each row; and at the end a count and a checksum of
// all lines before. Bytes are objects with one field, in base64.
type (
	dumpHeader struct {
		Format string `json:"format"`
		Schema int64  `json:"schema"`
	}
	dumpTable struct {
		Table   string   `json:"table"`
		Columns []string `json:"columns"`
	}
	dumpBytes struct {
		Bytes []byte `json:"b"`
	}
	dumpEnd struct {
		Rows     int64  `json:"rows"`
		Checksum string `json:"sha256"`
	}
)

const dumpFormat = "gatehouse-store-1"

var (
	createTable = regexp.MustCompile(`(?m)^CREATE TABLE (\w+)`)
	dropTable   = regexp.MustCompile(`(?m)^DROP TABLE (\w+)`)
)

// tables are those that the migrations up to a version made, so that others in
// the same database are left alone.
func tables(upTo int64) ([]string, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, file := range files {
		number, _, _ := strings.Cut(path.Base(file), "_")
		if version, err := strconv.ParseInt(number, 10, 64); err != nil || version > upTo {
			continue
		}
		text, err := fs.ReadFile(migrations, file)
		if err != nil {
			return nil, err
		}
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		for _, m := range createTable.FindAllStringSubmatch(up, -1) {
			list = append(list, m[1])
		}
		for _, m := range dropTable.FindAllStringSubmatch(up, -1) {
			list = slices.DeleteFunc(list, func(name string) bool { return name == m[1] })
		}
	}
	slices.Sort(list)
	return list, nil
}

// Dump writes the whole state as it is at one moment, for Restore to read.
// Private keys are in it as they are stored: sealed. It may take long, and ctx
// is all that bounds it.
func (s *Store) Dump(ctx context.Context, w io.Writer) error {
	tx, err := s.reader.BeginTx(ctx, &sql.TxOptions{Isolation: s.dialect.snapshot, ReadOnly: true})
	if err != nil {
		return fmt.Errorf("store: dump: %w", err)
	}
	defer tx.Rollback() // there is nothing to commit
	if err := s.dialect.unhurry(ctx, tx); err != nil {
		return fmt.Errorf("store: dump: %w", err)
	}
	d := &dumper{w: bufio.NewWriter(w), sum: sha256.New()}
	header := dumpHeader{Format: dumpFormat}
	if header.Schema, err = schema(ctx, tx); err != nil {
		return fmt.Errorf("store: dump: %w", err)
	}
	names, err := tables(header.Schema)
	if err != nil {
		return fmt.Errorf("store: dump: %w", err)
	}
	d.line(header)
	for _, name := range names {
		if err := d.table(ctx, tx, name); err != nil {
			return fmt.Errorf("store: dump: table %s: %w", name, err)
		}
	}
	d.line(dumpEnd{d.rows, hex.EncodeToString(d.sum.Sum(nil))})
	if err := errors.Join(d.err, d.w.Flush()); err != nil {
		return fmt.Errorf("store: dump: %w", err)
	}
	return nil
}

func schema(ctx context.Context, tx *sql.Tx) (version int64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT max(version_id) FROM gatehouse_schema`).Scan(&version)
	return version, err
}

type dumper struct {
	w    *bufio.Writer
	sum  hash.Hash
	rows int64
	err  error // the first one
}

func (d *dumper) line(v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		d.err = errors.Join(d.err, err)
		return
	}
	raw = append(raw, '\n')
	d.sum.Write(raw)
	if _, err := d.w.Write(raw); err != nil && d.err == nil {
		d.err = err
	}
}

func (d *dumper) table(ctx context.Context, tx *sql.Tx, name string) error {
	rows, err := tx.QueryContext(ctx, `SELECT * FROM `+name)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	d.line(dumpTable{name, columns})
	values := make([]any, len(columns))
	into := make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() && d.err == nil {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		row := make([]any, len(values))
		for i, v := range values {
			switch v := v.(type) {
			case nil, int64, string:
				row[i] = v
			case []byte:
				row[i] = dumpBytes{append([]byte{}, v...)} // SQLite gives nil for none
			default:
				return fmt.Errorf("column %s holds a %T", columns[i], v)
			}
		}
		d.line(row)
		d.rows++
	}
	return errors.Join(rows.Err(), d.err)
}
