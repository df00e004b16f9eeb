package sqlstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Restore fills the empty database that dsn names with what Dump wrote, of
// whichever database it was, and migrates it to this version. All of it is
// there in the end, or nothing: ErrNotEmpty when the database holds something,
// another error when the dump is damaged, cut off, or of newer software.
func Restore(ctx context.Context, dsn string, r io.Reader) error {
	in := &dumpReader{r: bufio.NewReader(r), sum: sha256.New()}
	var header dumpHeader
	if err := in.next(&header); err != nil || header.Format != dumpFormat {
		return errors.New("store: restore: this is no dump of a store")
	}
	// As old as the dump, so that its rows fit.
	s, err := Open(ctx, dsn, Options{upTo: header.Schema})
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	err = s.restore(ctx, in, header.Schema)
	if err = errors.Join(err, s.Close()); err != nil {
		return fmt.Errorf("store: restore: %w", err)
	}
	if s, err = Open(ctx, dsn, Options{}); err != nil {
		return fmt.Errorf("restore: migrate: %w", err)
	}
	return s.Close()
}

func (s *Store) restore(ctx context.Context, in *dumpReader, version int64) error {
	known, err := tables(version)
	if err != nil {
		return err
	}
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if err := s.dialect.unhurry(ctx, tx); err != nil {
		return err
	}
	have, err := schema(ctx, tx)
	if err != nil {
		return err
	}
	if have != version {
		return fmt.Errorf("the dump has schema %d, and the database has schema %d already: take a new database", version, have)
	}
	if err := clearSeeds(ctx, tx, known); err != nil {
		return err
	}
	if err := in.load(ctx, conn{tx, s.dialect}, known); err != nil {
		return err
	}
	return tx.Commit()
}

// clearSeeds refuses a database with rows but for those that migrations put there,
// and removes these.
func clearSeeds(ctx context.Context, tx *sql.Tx, known []string) error {
	for _, name := range known {
		query := `SELECT count(*) FROM ` + name
		if name == "heads" {
			query += ` WHERE seq <> 0 AND name <> 'ping'`
		}
		var n int64
		err := tx.QueryRowContext(ctx, query).Scan(&n)
		if err != nil {
			return err
		}
		if n > 0 {
			return ErrNotEmpty
		}
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM heads`)
	return err
}

// dumpReader reads a dump line by line.
type dumpReader struct {
	r    *bufio.Reader
	sum  hash.Hash
	rows int64
}

var errDump = errors.New("the dump is damaged or cut off")

// raw returns the next line; whoever takes it for a part of the dump adds it to
// the checksum.
func (d *dumpReader) raw() ([]byte, error) {
	line, err := d.r.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return nil, errDump // a whole dump ends before this is read
	}
	return line, err
}

func (d *dumpReader) next(into any) error {
	line, err := d.raw()
	if err != nil {
		return err
	}
	d.sum.Write(line)
	return json.Unmarshal(line, into)
}

var columnName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// load inserts all rows, and returns nil only if the dump was whole.
func (d *dumpReader) load(ctx context.Context, c conn, known []string) error {
	var table dumpTable
	var batch [][]any
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := insertRows(ctx, c, table, batch)
		batch = batch[:0]
		return err
	}
	for {
		line, err := d.raw()
		if err != nil {
			return err
		}
		if line[0] == '[' {
			d.sum.Write(line)
			d.rows++
			row, err := readRow(line)
			if err != nil || len(row) != len(table.Columns) {
				return errDump
			}
			if batch = append(batch, row); len(batch) < 50 {
				continue
			}
			if err := flush(); err != nil {
				return err
			}
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		var next struct {
			dumpTable
			dumpEnd
		}
		if err := json.Unmarshal(line, &next); err != nil {
			return errDump
		}
		if next.Checksum != "" {
			if next.Rows != d.rows || next.Checksum != hex.EncodeToString(d.sum.Sum(nil)) {
				return errDump
			}
			return nil
		}
		d.sum.Write(line)
		table = next.dumpTable
		if !slices.Contains(known, table.Table) || slices.ContainsFunc(table.Columns, func(name string) bool { return !columnName.MatchString(name) }) {
			return fmt.Errorf("the dump has a table or column that this version does not know: %.40q", table.Table)
		}
	}
}

// readRow decodes a row: numbers, strings, null, and bytes.
func readRow(line []byte) ([]any, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return nil, err
	}
	row := make([]any, len(raw))
	for i, v := range raw {
		switch {
		case bytes.Equal(v, []byte("null")):
		case v[0] == '"':
			var s string
			if err := json.Unmarshal(v, &s); err != nil {
				return nil, err
			}
			row[i] = s
		case v[0] == '{':
			b := dumpBytes{Bytes: []byte{}}
			if err := json.Unmarshal(v, &b); err != nil {
				return nil, err
			}
			row[i] = b.Bytes
		default:
			n, err := strconv.ParseInt(string(v), 10, 64)
			if err != nil {
				return nil, err
			}
			row[i] = n
		}
	}
	return row, nil
}

func insertRows(ctx context.Context, c conn, table dumpTable, rows [][]any) error {
	var query strings.Builder
	fmt.Fprintf(&query, "INSERT INTO %s (%s) VALUES ", table.Table, strings.Join(table.Columns, ", "))
	var args []any
	for i, row := range rows {
		if i > 0 {
			query.WriteString(", ")
		}
		query.WriteByte('(')
		for j, v := range row {
			if j > 0 {
				query.WriteString(", ")
			}
			args = append(args, v)
			query.WriteString("?" + strconv.Itoa(len(args)))
		}
		query.WriteByte(')')
	}
	if _, err := c.exec(ctx, query.String(), args...); err != nil {
		return fmt.Errorf("table %s: %w", table.Table, err)
	}
	return nil
}
