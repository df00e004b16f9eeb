package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// topology is the running cluster. Addresses are URLs.
type topology struct {
	gateways, admins           [2]string
	redis, consul, postgres    string
	prometheus                 string
	reader, writer, adminToken string // secrets
	config                     string
	failed                     chan error // the first end of a process
}

func secret() string {
	var b [24]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func loopback(t testing.TB) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(servers.FreePort(t)))
}

// start brings everything up in the order of docker-compose.yml.
func start(ctx context.Context, t testing.TB, root string) (*topology, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	dir := t.TempDir()
	promServer := servers.Need(t, "prometheus", "prometheus")
	binary := filepath.Join(dir, "gatehouse")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/gatehouse")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build gatehouse: %w\n%s", err, out)
	}
	topo := &topology{
		redis: servers.Redis(t).Addr, consul: "http://" + servers.Consul(t), postgres: servers.StartPostgres(t).Database(),
		reader: secret(), writer: secret(), adminToken: secret(),
		config: filepath.Join(root, "configs", "compose", "gatehouse.yaml"), failed: make(chan error, 1),
	}
	if err := topo.startGateways(ctx, t, dir, binary); err != nil {
		return nil, err
	}
	for n := range 2 {
		listen := loopback(t)
		b, err := spawn(t, dir, fmt.Sprintf("backend-%d", n+1), nil, topo.failed, binary, "demo-backend",
			"--service", "orders", "--id", fmt.Sprintf("orders-%d", n+1), "--listen", listen, "--registry", topo.consul)
		if err != nil {
			return nil, err
		}
		if err := b.ready(ctx, "http://"+listen+"/healthz"); err != nil {
			return nil, err
		}
	}
	return topo, topo.startPrometheus(ctx, t, dir, root, promServer)
}

func (topo *topology) startGateways(ctx context.Context, t testing.TB, dir, binary string) error {
	var kek [32]byte
	rand.Read(kek[:])
	listen := [2]string{loopback(t), loopback(t)}
	_, port, err := net.SplitHostPort(listen[0])
	if err != nil {
		return err
	}
	for n := range 2 {
		admin := loopback(t)
		topo.gateways[n], topo.admins[n] = "http://"+strings.Replace(listen[n], "127.0.0.1", "localhost", 1), "http://"+admin
		g, err := spawn(t, dir, fmt.Sprintf("gateway-%d", n+1), []string{
			"LISTEN=" + listen[n], "ADMIN_LISTEN=" + admin, "ADMIN_TOKEN=" + topo.adminToken,
			"DATABASE_URL=" + topo.postgres, "REDIS_URL=redis://" + topo.redis + "/0", "CONSUL_URL=" + topo.consul,
			"ISSUER=http://localhost:" + port, "GATEHOUSE_KEK=" + base64.StdEncoding.EncodeToString(kek[:]),
			"READER_SECRET=" + topo.reader, "WRITER_SECRET=" + topo.writer,
		}, topo.failed, binary, "run", "-c", topo.config)
		if err != nil {
			return err
		}
		if err := g.ready(ctx, topo.admins[n]+"/readyz"); err != nil {
			return err
		}
	}
	return nil
}

// startPrometheus uses the configuration of the composition with other targets
// and a shorter interval.
func (topo *topology) startPrometheus(ctx context.Context, t testing.TB, dir, root, program string) error {
	from := filepath.Join(root, "configs", "prometheus")
	config, err := os.ReadFile(filepath.Join(from, "prometheus.yml"))
	if err != nil {
		return err
	}
	text := string(config)
	for _, change := range [][2]string{
		{"gateway-1:9901", strings.TrimPrefix(topo.admins[0], "http://")},
		{"gateway-2:9901", strings.TrimPrefix(topo.admins[1], "http://")},
		{"alerts.yml", filepath.Join(from, "alerts.yml")},
		{"scrape_interval: 5s", "scrape_interval: 1s"}, {"evaluation_interval: 5s", "evaluation_interval: 1s"},
	} {
		if !strings.Contains(text, change[0]) {
			return fmt.Errorf("prometheus.yml does not hold %q", change[0])
		}
		text = strings.Replace(text, change[0], change[1], 1)
	}
	path := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	listen := loopback(t)
	p, err := spawn(t, dir, "prometheus", nil, topo.failed, program, "--config.file="+path,
		"--storage.tsdb.path="+filepath.Join(dir, "prometheus"), "--web.listen-address="+listen)
	if err != nil {
		return err
	}
	topo.prometheus = "http://" + listen
	return p.ready(ctx, topo.prometheus+"/-/ready")
}

func (topo *topology) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"gateway 1", topo.gateways[0]}, {"gateway 2", topo.gateways[1]},
		{"admin 1", topo.admins[0]}, {"admin 2", topo.admins[1]}, {"admin token", topo.adminToken},
		{"reader", "demo-reader:" + topo.reader}, {"writer", "demo-writer:" + topo.writer},
		{"consul", topo.consul + "/ui"}, {"prometheus", topo.prometheus}, {"redis", topo.redis}, {"postgres", topo.postgres},
		{"configuration", topo.config + "  (edit it: both gateways reload on save)"},
	} {
		fmt.Fprintf(tw, "%s\t%s\n", line[0], line[1])
	}
	tw.Flush()
	fmt.Fprintf(w, "\nTOKEN=$(curl -s -u demo-reader:%s -d grant_type=client_credentials %s/oauth/token | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\n"+
		"curl -s -H \"Authorization: Bearer $TOKEN\" %s/orders/1\n\n", topo.reader, topo.gateways[0], topo.gateways[1])
}
