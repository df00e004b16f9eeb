package servers

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// PostgresServer is a PostgreSQL server of one test.
type PostgresServer struct {
	*Server
	bin string
}

// Postgres returns the URL of a new, empty database. The server is shared by
// the tests of a binary and ends with the binary; a test that stops or
// restarts one starts its own with StartPostgres.
func Postgres(t testing.TB) (dsn string) {
	t.Helper()
	bin := postgresBin(t)
	shared.once.Do(func() { shared.addr, shared.err = startShared(t, bin) })
	if shared.addr == "" {
		t.Fatalf("shared postgres: %v", shared.err)
	}
	return createDatabase(t, bin, shared.addr)
}

// StartPostgres starts a server of the test's own with its own data, which
// Restart keeps. settings are lines of its configuration such as "fsync=on";
// by default it does not wait for the disk (fsync=off), which loses nothing
// when only the process dies.
func StartPostgres(t testing.TB, settings ...string) *PostgresServer {
	t.Helper()
	bin := postgresBin(t)
	dir, err := postgresData(bin)
	if err != nil {
		t.Fatalf("postgres data: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &PostgresServer{bin: bin, Server: start(t, "postgres", func(port int) spec {
		return spec{
			binary: filepath.Join(bin, "postgres"),
			args:   postgresArgs(dir, port, settings),
			attr:   postgresUser(),
			dir:    dir,
			stop:   syscall.SIGINT, // "fast": open transactions are rolled back
			ready:  func(ctx context.Context) error { return postgresAnswers(ctx, bin, port) },
		}
	})}
	t.Cleanup(s.Stop) // a killed server leaves its shared memory segment behind
	return s
}

// Database creates an empty database and returns its URL.
func (s *PostgresServer) Database() (dsn string) {
	s.t.Helper()
	return createDatabase(s.t, s.bin, s.Addr)
}

var databases atomic.Int64

func createDatabase(t testing.TB, bin, addr string, options ...string) string {
	t.Helper()
	name := "test" + strconv.FormatInt(databases.Add(1), 10)
	host, port, _ := net.SplitHostPort(addr)
	args := append([]string{"-h", host, "-p", port, "-U", "postgres"}, options...)
	out, err := exec.Command(filepath.Join(bin, "createdb"), append(args, name)...).CombinedOutput()
	if err != nil {
		t.Fatalf("create database: %v: %s", err, out)
	}
	return "postgres://postgres@" + addr + "/" + name + "?sslmode=disable"
}

// shared is the server behind Postgres: one a process by purpose, because a
// start and a stop cost more than most tests that need a database.
var shared struct {
	once sync.Once
	addr string
	err  error
	hold io.Closer // kept reachable: closing it ends the server
}

// startShared runs the server under a shell that reads a pipe which only this
// process holds: however the test binary ends, the shell then stops the server
// and removes its data.
func startShared(t testing.TB, bin string) (addr string, err error) {
	dir, err := postgresData(bin)
	if err != nil {
		return "", err
	}
	for range 5 {
		port := FreePort(t)
		script := `cd /; dir=$1; shift; "$@" >"$dir/server.log" 2>&1 & pid=$!; read _; kill -INT $pid; wait $pid; rm -rf "$dir"`
		cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh", dir, filepath.Join(bin, "postgres")},
			postgresArgs(dir, port, nil)...)...)
		cmd.SysProcAttr = postgresUser()
		if cmd.SysProcAttr == nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{}
		}
		cmd.SysProcAttr.Setpgid = true // Ctrl-C reaches the test binary, not the shell
		var hold io.WriteCloser
		if hold, err = cmd.StdinPipe(); err != nil {
			return "", err
		}
		if err = cmd.Start(); err != nil {
			return "", err
		}
		ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
		for err = postgresAnswers(ctx, bin, port); err != nil && ctx.Err() == nil; err = postgresAnswers(ctx, bin, port) {
			time.Sleep(20 * time.Millisecond)
		}
		cancel()
		if err == nil {
			shared.hold = hold
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
		}
		hold.Close()
		cmd.Wait()
		if dir, err = postgresData(bin); err != nil {
			return "", err
		}
	}
	return "", err
}

func postgresArgs(dir string, port int, settings []string) []string {
	args := []string{"-D", dir, "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-k", "",
		"-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=32MB"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	return args
}

func postgresAnswers(ctx context.Context, bin string, port int) error {
	out, err := exec.CommandContext(ctx, filepath.Join(bin, "pg_isready"), "-h", "127.0.0.1",
		"-p", strconv.Itoa(port), "-U", "postgres", "-t", "1").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// postgresBin finds the folder of the server's programs. Debian keeps them out
// of PATH, in one folder per version; the newest is taken.
func postgresBin(t testing.TB) string {
	t.Helper()
	path := "initdb"
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
		version := func(p string) int {
			n, _ := strconv.Atoi(strings.Split(p, "/")[4])
			return n
		}
		path = slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	}
	initdb := Need(t, "postgresql (initdb)", path)
	if os.Getuid() == 0 && postgresUser() == nil {
		Missing(t, "postgresql does not run as root, and there is no user postgres")
	}
	return filepath.Dir(initdb)
}

// postgresUser is nil unless we are root, as whom the server refuses to run.
func postgresUser() *syscall.SysProcAttr {
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

var template struct {
	once sync.Once
	dir  string
	err  error
}

// postgresData returns a new data folder that the server's user owns, copied
// from one that initdb made: a copy takes a tenth of the time. The original is
// made once per user and version of the server.
func postgresData(bin string) (string, error) {
	template.once.Do(func() { template.dir, template.err = postgresTemplate(bin) })
	if template.err != nil {
		return "", template.err
	}
	dir, err := os.MkdirTemp("", "gatehouse-postgres-")
	if err != nil {
		return "", err
	}
	// -p keeps owner and mode; the server insists on 0700.
	if out, err := exec.Command("cp", "-Rp", template.dir+"/.", dir).CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("copy data folder: %w: %s", err, out)
	}
	return dir, nil
}

func postgresTemplate(bin string) (string, error) {
	version, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return "", fmt.Errorf("version of postgres: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "gatehouse")
	dir := filepath.Join(cache, strings.Map(fileRune, strings.TrimSpace(string(version))))
	if _, err := os.Stat(filepath.Join(dir, "PG_VERSION")); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// initdb runs as the server's user, who may not enter our cache folder.
	fresh, err := os.MkdirTemp("", "gatehouse-initdb-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	attr := postgresUser()
	if attr != nil {
		if err := os.Chown(fresh, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
			return "", err
		}
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", fresh, "-U", "postgres", "--auth=trust",
		"--no-sync", "-E", "UTF8", "--locale=C")
	initdb.SysProcAttr, initdb.Dir = attr, "/"
	if out, err := initdb.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w: %s", err, out)
	}
	half, err := os.MkdirTemp(cache, "half-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(half)
	if out, err := exec.Command("cp", "-Rp", fresh+"/.", half).CombinedOutput(); err != nil {
		return "", fmt.Errorf("copy initdb's folder: %w: %s", err, out)
	}
	// Another test binary may have been faster; both results are the same.
	if err := os.Rename(half, dir); err != nil {
		if _, raced := os.Stat(filepath.Join(dir, "PG_VERSION")); raced != nil {
			return "", err
		}
	}
	return dir, nil
}

// fileRune keeps a program's version line usable as a file name.
func fileRune(r rune) rune {
	if r == ' ' || r == '/' || r == '(' || r == ')' {
		return '-'
	}
	return r
}
