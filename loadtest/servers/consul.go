package servers

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Consul starts a Consul agent as StartConsul does and returns its address as
// host:port of the HTTP API.
func Consul(t testing.TB) string {
	t.Helper()
	return StartConsul(t).Addr
}

// StartConsul starts a Consul server in development mode: alone, in memory, so
// that Restart brings back an empty one whose index counts from the start
// again. args are further options of `consul agent`.
//
// The binary is the one that GATEHOUSE_TEST_CONSUL names, else the one that
// tools/consul/build.sh left in the user's cache, else `consul` in PATH.
func StartConsul(t testing.TB, args ...string) *Server {
	t.Helper()
	binary := consulBinary(t)
	dir := t.TempDir()
	return start(t, "consul", func(port int) spec {
		p := func() string { return strconv.Itoa(FreePort(t)) }
		return spec{
			binary: binary,
			args: append([]string{"agent", "-dev", "-node", "test",
				"-bind", "127.0.0.1", "-client", "127.0.0.1", "-log-level", "warn",
				"-http-port", strconv.Itoa(port), "-dns-port", "-1", "-grpc-port", "-1",
				"-server-port", p(), "-serf-lan-port", p(), "-serf-wan-port", p(),
				"-hcl", "disable_update_check = true connect { enabled = false }"}, args...),
			dir:   dir,
			stop:  syscall.SIGTERM,
			ready: func(ctx context.Context) error { return consulAnswers(ctx, port) },
		}
	})
}

func consulBinary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("GATEHOUSE_TEST_CONSUL"); path != "" {
		return Need(t, "consul (GATEHOUSE_TEST_CONSUL)", path)
	}
	if cache, err := os.UserCacheDir(); err == nil {
		if path, err := exec.LookPath(filepath.Join(cache, "gatehouse", "consul")); err == nil {
			return path
		}
	}
	return Need(t, "consul (build it with tools/consul/build.sh)", "consul")
}

// consulAnswers waits for a leader, without which registrations are refused.
func consulAnswers(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	url := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) + "/v1/status/leader"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var leader string
	if err := json.NewDecoder(resp.Body).Decode(&leader); err != nil {
		return fmt.Errorf("consul's leader: %s: %w", resp.Status, err)
	}
	if leader == "" {
		return fmt.Errorf("consul has no leader yet")
	}
	return nil
}
