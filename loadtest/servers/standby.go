package servers

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Standby starts a server that follows s, which from then on acknowledges a
// commit only when the standby has it (synchronous replication), so that
// nothing acknowledged is lost when the standby takes over.
func (s *PostgresServer) Standby() *PostgresServer {
	s.t.Helper()
	dir, err := os.MkdirTemp("", "gatehouse-standby-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { os.RemoveAll(dir) })
	attr := postgresUser()
	if attr != nil {
		if err := os.Chown(dir, int(attr.Credential.Uid), int(attr.Credential.Gid)); err != nil {
			s.t.Fatal(err)
		}
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	copying := exec.Command(filepath.Join(s.bin, "pg_basebackup"), "-h", host, "-p", port, "-U", "postgres",
		"-D", dir, "-R", "-X", "stream", "-c", "fast", "--no-sync")
	copying.SysProcAttr, copying.Dir = attr, "/"
	if out, err := copying.CombinedOutput(); err != nil {
		s.t.Fatalf("copy the primary: %v: %s", err, out)
	}
	standby := &PostgresServer{bin: s.bin, Server: start(s.t, "postgres standby", func(port int) spec {
		return spec{
			binary: filepath.Join(s.bin, "postgres"),
			args:   postgresArgs(dir, port, nil),
			attr:   postgresUser(),
			dir:    dir,
			stop:   syscall.SIGINT,
			ready:  func(ctx context.Context) error { return postgresAnswers(ctx, s.bin, port) },
		}
	})}
	s.t.Cleanup(standby.Stop)
	s.query(s.t, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	s.query(s.t, "SELECT pg_reload_conf()")
	return standby
}

// Promote makes a standby the primary.
func (s *PostgresServer) Promote() {
	s.t.Helper()
	s.query(s.t, "SELECT pg_promote()")
}

func (s *PostgresServer) query(t testing.TB, statement string) {
	t.Helper()
	host, port, _ := net.SplitHostPort(s.Addr)
	out, err := exec.Command(filepath.Join(s.bin, "psql"), "-h", host, "-p", port, "-U", "postgres", "-qAt", "-c", statement).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", statement, err, out)
	}
}
