package sqlstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/storetest"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func TestMain(m *testing.M) {
	storetest.Child(openStore)
	os.Exit(m.Run())
}

func openStore(ctx context.Context, dsn string) (store.Store, error) {
	s, err := Open(ctx, dsn, Options{Timeout: 20 * time.Second})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// replicas opens two handles on the database, as two processes would.
func replicas(t *testing.T, dsn string) []store.Store {
	t.Helper()
	var stores []store.Store
	for range 2 {
		s, err := openStore(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		stores = append(stores, s)
	}
	return stores
}

func sqliteFile(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "a ?#%db")
}

// ready are databases with all tables and no rows.
var ready = servers.Template{Fill: func(dsn string) error {
	s, err := Open(context.Background(), dsn, Options{})
	if err != nil {
		return err
	}
	return s.Close()
}}

func TestSQLiteKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) []store.Store { return replicas(t, ready.SQLite(t)) })
}

func TestMemoryKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) []store.Store {
		s, err := openStore(t.Context(), "sqlite::memory:")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return []store.Store{s, s}
	})
}

func TestPostgresKeepsTheContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) []store.Store { return replicas(t, ready.Postgres(t)) })
}

func TestProcessesShareSQLite(t *testing.T) {
	storetest.RunProcesses(t, sqliteFile(t), openStore)
}

func TestProcessesSharePostgres(t *testing.T) {
	storetest.RunProcesses(t, servers.Postgres(t), openStore)
}

func TestReplicasMayOpenAtTheSameTime(t *testing.T) {
	f := func(t *testing.T, dsn string) {
		t.Helper()
		errs := make(chan error)
		for range 8 {
			go func() {
				s, err := Open(t.Context(), dsn, Options{})
				if err == nil {
					err = errors.Join(s.Ping(t.Context()), s.Close())
				}
				errs <- err
			}()
		}
		for range 8 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("SQLite", func(t *testing.T) { f(t, sqliteFile(t)) })
	t.Run("Postgres", func(t *testing.T) { f(t, servers.Postgres(t)) })
}

func TestDatabaseOfNewerSoftwareIsRefused(t *testing.T) {
	f := func(t *testing.T, dsn string) {
		t.Helper()
		s, err := Open(t.Context(), dsn, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.writer.Exec(`INSERT INTO gatehouse_schema (version_id, is_applied) VALUES (999, true)`); err != nil {
			t.Fatal(err)
		}
		s.Close()
		_, err = Open(t.Context(), dsn, Options{})
		if !errors.Is(err, errNewer) || !strings.Contains(err.Error(), "version 999") {
			t.Errorf("error %v, want one that names version 999 and newer software", err)
		}
	}
	t.Run("SQLite", func(t *testing.T) { f(t, sqliteFile(t)) })
	t.Run("Postgres", func(t *testing.T) { f(t, servers.Postgres(t)) })
}

func TestBadDSNIsExplainedWithoutItsSecrets(t *testing.T) {
	for dsn, want := range map[string]string{
		"":                                     "sqlite:PATH",
		"hunter2":                              "sqlite:PATH",
		"mysql://u:hunter2@h/d":                `unknown kind "mysql"`,
		"sqlite:":                              "no path",
		"sqlite:/no/such/folder/x":             "no such file",
		"postgres://u:hunter2%zz@h:x/d":        "malformed",
		"postgres://u:hunter2@127.0.0.1:1/d":   "refused",
		"postgres://u:hunter2@h/d?sslmode=bad": "malformed",
	} {
		_, err := Open(t.Context(), dsn, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q and no secret", dsn, err, want)
		}
	}
}

func TestSQLiteFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s, err := Open(t.Context(), "sqlite:"+path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", info.Name(), info.Mode())
		}
	}
	var mode string
	var sync int
	if err := s.writer.QueryRow("PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %q, %v", mode, err)
	}
	if err := s.writer.QueryRow("PRAGMA synchronous").Scan(&sync); err != nil || sync != 2 {
		t.Errorf("synchronous %d, %v; want 2 (FULL)", sync, err)
	}
	if _, err := s.reader.Exec("DELETE FROM users"); err == nil {
		t.Error("a reading connection wrote")
	}
}

func TestSweepIsBounded(t *testing.T) {
	s, err := Open(t.Context(), "sqlite::memory:", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	err = s.transaction(t.Context(), "fill", func(ctx context.Context, c conn) error {
		for i := range sweepLimit + 100 {
			if _, err := c.exec(ctx, `INSERT INTO once (name, expires) VALUES (?1, ?2)`, i, micros(now)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{100, 0} {
		if err := s.Sweep(t.Context(), now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		var left int
		if err := s.reader.QueryRow(`SELECT count(*) FROM once`).Scan(&left); err != nil || left != want {
			t.Errorf("%d rows left, %v; want %d", left, err, want)
		}
	}
}
