package servers

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Template makes new databases as copies of one that was filled once, where
// filling one costs more than a test does. The zero value with Fill is ready.
type Template struct {
	// Fill is called with the URL of an empty database, once for each kind.
	Fill func(dsn string) error

	sqlite, postgres struct {
		once sync.Once
		copy string // the file's content; the database's name
		err  error
	}
}

// SQLite returns the URL of a new SQLite database, in memory where the system
// has a file system there: no commit has to wait for a disk. A process that
// dies loses nothing of it.
func (p *Template) SQLite(t testing.TB) (dsn string) {
	t.Helper()
	made := &p.sqlite
	made.once.Do(func() {
		var content []byte
		path := filepath.Join(memoryDir(t), "template.db")
		if made.err = p.Fill("sqlite:" + path); made.err == nil {
			content, made.err = os.ReadFile(path)
		}
		made.copy = string(content)
	})
	if made.err != nil || made.copy == "" {
		t.Fatalf("fill the template database: %v", made.err)
	}
	path := filepath.Join(memoryDir(t), "state.db")
	if err := os.WriteFile(path, []byte(made.copy), 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + path
}

// Postgres returns the URL of a new database of the server that Postgres
// shares.
func (p *Template) Postgres(t testing.TB) (dsn string) {
	t.Helper()
	made := &p.postgres
	made.once.Do(func() {
		dsn := Postgres(t)
		_, made.copy, _ = strings.Cut(strings.TrimPrefix(dsn, "postgres://"), "/")
		made.copy, _, _ = strings.Cut(made.copy, "?")
		made.err = p.Fill(dsn)
	})
	if made.err != nil || made.copy == "" {
		t.Fatalf("fill the template database: %v", made.err)
	}
	return createDatabase(t, postgresBin(t), shared.addr, "-T", made.copy)
}

// memoryDir returns a new folder in memory, or the test's TempDir.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "gatehouse-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
