package servers

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Redis starts a redis-server that keeps nothing on disk. args are further
// options as on its command line ("--appendonly", "yes") and win over ours; its
// folder outlives Restart.
func Redis(t testing.TB, args ...string) *Server {
	t.Helper()
	binary := Need(t, "redis-server", "redis-server")
	dir := t.TempDir()
	return start(t, "redis", func(port int) spec {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		return spec{
			binary: binary,
			args: append([]string{"--port", strconv.Itoa(port), "--bind", "127.0.0.1",
				"--save", "", "--appendonly", "no", "--dir", dir}, args...),
			dir:   dir,
			stop:  syscall.SIGTERM,
			ready: func(ctx context.Context) error { return redisAnswers(ctx, addr) },
		}
	})
}

// redisAnswers is satisfied by any reply that is not an error but the demand
// for a password: a server that still loads its data answers "-LOADING".
func redisAnswers(ctx context.Context, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	reply := make([]byte, 7)
	if _, err := io.ReadFull(conn, reply); err != nil {
		return err
	}
	if s := string(reply); s != "+PONG\r\n" && s != "-NOAUTH" {
		return fmt.Errorf("redis answers %q", s)
	}
	return nil
}
