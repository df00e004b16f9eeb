package ratelimit_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse/gatehouse/loadtest/servers"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
)

// startSentinel watches the master at addr, alone, so that its word decides.
func startSentinel(t *testing.T, addr string) (sentinel string) {
	t.Helper()
	binary := servers.Need(t, "redis-server", "redis-server")
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	own := servers.FreePort(t)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf(`port %d
bind 127.0.0.1
dir %s
sentinel monitor limits %s %s 1
sentinel down-after-milliseconds limits 500
sentinel failover-timeout limits 2000
`, own, t.TempDir(), host, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, config, "--sentinel")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return fmt.Sprintf("127.0.0.1:%d", own)
}

func TestRedisFailsOverWithSentinel(t *testing.T) {
	ctx := context.Background()
	master, replica := servers.Redis(t), servers.Redis(t)
	host, port, _ := net.SplitHostPort(master.Addr)
	admin := redis.NewClient(&redis.Options{Addr: replica.Addr})
	defer admin.Close()
	if err := admin.Do(ctx, "REPLICAOF", host, port).Err(); err != nil {
		t.Fatal(err)
	}
	sentinel := startSentinel(t, master.Addr)
	watch := redis.NewSentinelClient(&redis.Options{Addr: sentinel})
	defer watch.Close()
	until(t, "the sentinel knows the replica", func() bool {
		replicas, err := watch.Replicas(ctx, "limits").Result()
		return err == nil && len(replicas) == 1 && replicas[0]["master-link-status"] == "ok"
	})

	store, err := ratelimit.NewRedis("redis+sentinel://" + sentinel + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	p := running(t, ratelimit.New(ratelimit.Config{Store: store}))
	tr := startTraffic(t, p)
	until(t, "tokens from the master", grantedSince(p))
	master.Kill()
	start := time.Now()
	until(t, "local mode", func() bool { return p.Stats().Down })
	until(t, "central mode", func() bool { return !p.Stats().Down })
	until(t, "tokens from the new master", grantedSince(p))
	t.Logf("central again %v after the master died", time.Since(start))
	tr.check(t, p)
}
