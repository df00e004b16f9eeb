package sqlstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// dumped fills a database with odd values and dumps it.
func dumped(t *testing.T, dsn string) []byte {
	t.Helper()
	s := open(t, dsn, Options{})
	ctx := t.Context()
	c := store.Client{ID: "c", Name: "<Müller> & \"Co\"\n\u2028", SecretHashes: []store.Digest{digest(1)}, Scopes: []string{"a"}, Created: time.Now()}
	if err := s.AddClient(ctx, c, store.AuditEvent{Time: time.Now(), Action: "client.added"}); err != nil {
		t.Fatal(err)
	}
	for i := range 120 { // more than a statement's worth
		if _, err := s.Once(ctx, strings.Repeat("k", i+1), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	revoke(t, s)
	if _, err := s.Envelope(ctx, "empty", []byte{}); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Dump(ctx, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRestoredDatabaseDumpsTheSame(t *testing.T) {
	f := func(t *testing.T, from, to string) {
		t.Helper()
		first := dumped(t, from)
		if err := Restore(t.Context(), to, bytes.NewReader(first)); err != nil {
			t.Fatal(err)
		}
		var second bytes.Buffer
		if err := open(t, to, Options{}).Dump(t.Context(), &second); err != nil {
			t.Fatal(err)
		}
		a, b := bytes.Split(first, []byte("\n")), bytes.Split(second.Bytes(), []byte("\n"))
		if len(a) != len(b) || !sameLines(a[:len(a)-2], b[:len(b)-2]) {
			t.Errorf("%d lines became %d, or others", len(a), len(b))
		}
		if err := Restore(t.Context(), to, bytes.NewReader(first)); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("into a database that is not empty: %v", err)
		}
	}
	t.Run("sqlite to sqlite", func(t *testing.T) { f(t, sqliteFile(t), sqliteFile(t)) })
	t.Run("sqlite to postgres", func(t *testing.T) { f(t, sqliteFile(t), servers.Postgres(t)) })
	t.Run("postgres to sqlite", func(t *testing.T) { f(t, servers.Postgres(t), sqliteFile(t)) })
}

// sameLines compares without the order, which a table does not have.
func sameLines(a, b [][]byte) bool {
	count := map[string]int{}
	for i := range a {
		count[string(a[i])]++
		count[string(b[i])]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestDamagedDumpLeavesTheDatabaseEmpty(t *testing.T) {
	good := dumped(t, sqliteFile(t))
	lines := bytes.SplitAfter(good, []byte("\n"))
	to := sqliteFile(t)
	for name, bad := range map[string][]byte{
		"nothing":         nil,
		"something else":  []byte("{}\n"),
		"the end missing": bytes.Join(lines[:len(lines)-2], nil),
		"half a line":     good[:len(good)-10],
		"a row missing":   append(bytes.Join(lines[:len(lines)-4], nil), lines[len(lines)-2]...),
		"a value changed": bytes.Replace(good, []byte("kkk"), []byte("kkj"), 1),
		"another table":   bytes.Replace(good, []byte(`"table":"clients"`), []byte(`"table":"sqlite_master"`), 1),
		"another column":  bytes.Replace(good, []byte(`"id"`), []byte(`"id) VALUES (1); --"`), 1),
		"newer software":  bytes.Replace(good, []byte(`"schema":`), []byte(`"schema":9`), 1),
	} {
		if err := Restore(t.Context(), to, bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
	s := open(t, to, Options{})
	if all, err := s.Clients(context.Background()); err != nil || len(all) != 0 {
		t.Errorf("%d clients, %v", len(all), err)
	}
	s.Close()
	if err := Restore(t.Context(), to, bytes.NewReader(good)); err != nil {
		t.Errorf("after all the bad ones: %v", err)
	}
}

// TestOlderDumpIsMigrated restores what the first version would have dumped: it
// had fewer tables and columns.
func TestOlderDumpIsMigrated(t *testing.T) {
	var b bytes.Buffer
	d := &dumper{w: bufio.NewWriter(&b), sum: sha256.New()}
	d.line(dumpHeader{Format: dumpFormat, Schema: 1})
	d.line(dumpTable{"heads", []string{"name", "seq"}})
	for _, head := range []string{"revocation", "audit", "ping"} {
		d.line([]any{head, 7})
		d.rows++
	}
	d.line(dumpTable{"users", []string{"subject", "name", "password_hash", "email", "display_name", "declared", "disabled", "created"}})
	d.line([]any{"usr_1", "alice", "", "", "", 0, 0, 0})
	d.rows++
	d.line(dumpEnd{d.rows, hex.EncodeToString(d.sum.Sum(nil))})
	if err := errors.Join(d.err, d.w.Flush()); err != nil {
		t.Fatal(err)
	}
	f := func(t *testing.T, to string) {
		t.Helper()
		if err := Restore(t.Context(), to, bytes.NewReader(b.Bytes())); err != nil {
			t.Fatal(err)
		}
		s := open(t, to, Options{})
		if u, err := s.UserByName(t.Context(), "alice"); err != nil || u.Subject != "usr_1" {
			t.Errorf("%+v, %v", u, err)
		}
		// The chain begins after what the first version wrote.
		if base, head, err := s.AuditChain(t.Context()); err != nil || base != (store.Link{Seq: 7}) || head != base {
			t.Errorf("base %v, head %v, %v", base, head, err)
		}
	}
	t.Run("SQLite", func(t *testing.T) { f(t, sqliteFile(t)) })
	t.Run("Postgres", func(t *testing.T) { f(t, servers.Postgres(t)) })
}
