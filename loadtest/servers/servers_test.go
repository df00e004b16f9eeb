package servers_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func TestRedisKeepsItsPortAndFilesOverRestart(t *testing.T) {
	s := servers.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	addr := s.Addr
	wantReply(t, addr, "SET k v\r\n", "+OK")
	s.Kill()
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Fatal("a killed server accepts connections")
	}
	s.Restart()
	if s.Addr != addr {
		t.Fatalf("address %s after restart, was %s", s.Addr, addr)
	}
	wantReply(t, addr, "GET k\r\n", "$1\r\nv")
	s.Stop()
	if s.PID() != 0 {
		t.Fatal("a stopped server has a process")
	}
}

func TestPausedRedisAcceptsAndDoesNotAnswer(t *testing.T) {
	s := servers.Redis(t)
	s.Pause()
	if _, err := ask(s.Addr, "PING\r\n", 100*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a paused server: %v, want a deadline exceeded while reading", err)
	}
	s.Resume()
	wantReply(t, s.Addr, "PING\r\n", "+PONG")
}

func TestConsulAnswersAndForgetsOverRestart(t *testing.T) {
	s := servers.StartConsul(t)
	wantReply(t, s.Addr, "GET /v1/catalog/services HTTP/1.0\r\n\r\n", "200 OK")
	s.Restart()
	wantReply(t, s.Addr, "GET /v1/status/leader HTTP/1.0\r\n\r\n", "200 OK")
}

func TestPostgresGivesEachCallAnEmptyDatabase(t *testing.T) {
	a, b := servers.Postgres(t), servers.Postgres(t)
	if a == b {
		t.Fatalf("the same database twice: %s", a)
	}
	sql(t, a, "create table x (n int); insert into x values (1)")
	if _, err := query(t, b, "select n from x"); err == nil {
		t.Fatal("a table of one database is visible in another")
	}
}

func TestPostgresKeepsCommittedRowsOverKill(t *testing.T) {
	s := servers.StartPostgres(t, "synchronous_commit=on")
	dsn := s.Database()
	sql(t, dsn, "create table x (n int); insert into x values (42)")
	s.Kill()
	s.Restart()
	if got := sql(t, dsn, "select n from x"); got != "42" {
		t.Fatalf("after SIGKILL: %q, want 42", got)
	}
}

func wantReply(t *testing.T, addr, request, want string) {
	t.Helper()
	got, err := ask(addr, request, 5*time.Second)
	if err != nil || !strings.Contains(got, want) {
		t.Fatalf("%q to %s: %q, %v; want %q", request, addr, got, err, want)
	}
}

// ask sends one request and returns the first bytes of the answer.
func ask(addr, request string, wait time.Duration) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(conn, request); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}

func sql(t *testing.T, dsn, statement string) string {
	t.Helper()
	out, err := query(t, dsn, statement)
	if err != nil {
		t.Fatalf("%s: %v: %s", statement, err, out)
	}
	return out
}

func query(t *testing.T, dsn, statement string) (string, error) {
	t.Helper()
	psql := servers.Need(t, "psql", "psql")
	out, err := exec.Command(psql, "-At", "-d", dsn, "-c", statement).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestProxiesForwardToTheirOrigin(t *testing.T) {
	origin := servers.Node(t)
	for name, start := range map[string]func(testing.TB, string) *servers.Server{
		"nginx": servers.Nginx, "haproxy": servers.HAProxy, "apache2": servers.Apache, "varnish": servers.Varnish, "caddy": servers.Caddy,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := http.Get("http://" + start(t, origin.Addr).Addr + "/" + name)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "/"+name || resp.Header.Get("Origin-Id") == "" {
				t.Errorf("got %v %q, %v", resp.Header, body, err)
			}
		})
	}
}
