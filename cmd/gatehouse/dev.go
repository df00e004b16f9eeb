package main

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse/gatehouse/cmd/gatehouse/dev"
	"github.com/gatehouse/gatehouse/routes"
)

func devCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "dev",
		Short: "Start everything for a try: gateway, authorization server, registry and demo backends",
		Args:  cobra.NoArgs,
	}
	once := c.Flags().Bool("once", false, "print the self-check table and exit 0 or 1")
	c.RunE = func(c *cobra.Command, _ []string) error {
		d, err := newDemo()
		if err != nil {
			return err
		}
		defer d.close()
		return d.run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), *once)
	}
	return c
}

type demoClient struct{ id, secret string }

// demo is a whole small world in one process, thrown away at its end.
type demo struct {
	folder             string
	origin, admin      string // URLs
	registry           string
	gatewayAt, adminAt string // addresses
	reader, writer     demoClient
	password           string
	adminToken         string
	registryListener   net.Listener
	mails              *dev.Mails

	mu       sync.Mutex
	backends []*backend
	running  sync.WaitGroup
}

// backend is a demo backend that can be lost and restored.
type backend struct {
	config dev.BackendConfig
	crash  func()
}

// secret is 256 random bits behind the prefix by which `run` refuses it.
func secret() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails
	return routes.DevSecretPrefix + base64.RawURLEncoding.EncodeToString(b)
}

func newDemo() (*demo, error) {
	folder, err := os.MkdirTemp("", "gatehouse-dev-")
	if err != nil {
		return nil, err
	}
	d := &demo{
		folder: folder, password: secret(), adminToken: secret(),
		reader: demoClient{"demo-reader", secret()}, writer: demoClient{"demo-writer", secret()},
	}
	err = errors.Join(
		freeAddress(8080, &d.gatewayAt),
		freeAddress(9901, &d.adminAt),
	)
	if err == nil {
		d.registryListener, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err == nil {
		d.mails, err = openMails()
	}
	if err == nil {
		d.origin, d.admin = "http://"+d.gatewayAt, "http://"+d.adminAt
		d.registry = "http://" + d.registryListener.Addr().String()
		err = d.writeConfig()
	}
	if err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// freeAddress finds a loopback port, from first on.
func freeAddress(first int, address *string) error {
	for port := first; port < first+100; port++ {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			*address = ln.Addr().String()
			return ln.Close()
		}
	}
	return fmt.Errorf("no free port from %d to %d on 127.0.0.1", first, first+99)
}

// openMails takes mail and shows it on a free port.
func openMails() (*dev.Mails, error) {
	var page string
	if err := freeAddress(8025, &page); err != nil {
		return nil, err
	}
	return dev.OpenMails(page)
}

//go:embed dev.yaml.tmpl
var demoConfig string

func (d *demo) configPath() string { return filepath.Join(d.folder, "gatehouse.yaml") }

func (d *demo) writeConfig() error {
	var b bytes.Buffer
	kek := make([]byte, 32)
	_, _ = rand.Read(kek[copy(kek, routes.DevSecretPrefix):])
	err := template.Must(template.New("").Parse(demoConfig)).Execute(&b, map[string]string{
		"Gateway": d.gatewayAt, "Admin": d.adminAt, "Origin": d.origin, "Registry": d.registry,
		"Store": filepath.Join(d.folder, "gatehouse.db"), "KEK": base64.StdEncoding.EncodeToString(kek),
		"Reader": d.reader.secret, "Writer": d.writer.secret, "Password": d.password, "AdminToken": d.adminToken,
		"SMTP": d.mails.SMTP(), "Mails": d.mails.URL(),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(d.configPath(), b.Bytes(), 0o600)
}

func (d *demo) close() {
	if d.registryListener != nil {
		d.registryListener.Close()
	}
	if d.mails != nil {
		_ = d.mails.Close()
	}
	_ = os.RemoveAll(d.folder)
}

func (d *demo) run(ctx context.Context, stdout, stderr io.Writer, once bool) error {
	ctx, stop := context.WithCancel(ctx)
	defer d.running.Wait()
	defer stop()
	d.startRegistry(ctx)
	d.running.Go(func() { _ = d.mails.Run(ctx) })
	for i, b := range []dev.BackendConfig{
		{Service: "orders", Instance: "orders-1"}, {Service: "orders", Instance: "orders-2"}, {Service: "flaky", Instance: "flaky-1"},
		{Service: "shop", Instance: "shop-1", Handler: dev.NewShop(d.origin, "demo-shop")},
	} {
		b.Registry = d.registry
		d.backends = append(d.backends, &backend{config: b})
		d.startBackend(ctx, i)
	}
	file, err := load(d.configPath(), true)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
	p, err := newProcess(ctx, file, true, logger)
	if err != nil {
		return err
	}
	serving, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() { done <- p.Run(serving) }()
	if err := d.awaitReady(ctx, done); err != nil {
		return err
	}
	if err := d.remember(); err != nil {
		fmt.Fprintln(stderr, "gatehouse: the admin token was not saved:", err)
	}
	d.print(stdout)
	ok := runSelfCheck(ctx, d, stdout)
	if once {
		end()
		if err := <-done; err != nil {
			return err
		}
		if !ok {
			return errFindings
		}
		return nil
	}
	fmt.Fprintln(stdout, "Ctrl-C ends it.")
	return <-done
}

func (d *demo) startRegistry(ctx context.Context) {
	r := dev.NewRegistry(time.Now)
	s := &http.Server{Handler: r, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	d.running.Go(func() { _ = r.Run(ctx) })
	d.running.Go(func() { _ = s.Serve(d.registryListener) })
	context.AfterFunc(ctx, func() { _ = s.Close() })
}

// startBackend starts backend i; it registers itself.
func (d *demo) startBackend(ctx context.Context, i int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.backends[i]
	crash := make(chan struct{})
	b.crash = sync.OnceFunc(func() { close(crash) })
	config := b.config
	config.Crash = crash
	d.running.Go(func() { _ = dev.RunBackend(ctx, config) })
}

// awaitReady waits until a call through the gateway is answered by a backend.
func (d *demo) awaitReady(ctx context.Context, done <-chan error) error {
	client := &http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	deadline := time.Now().Add(20 * time.Second)
	for _, path := range []string{d.admin + "/readyz", d.origin + "/status", d.origin + "/shop/"} {
		for {
			resp, err := client.Get(path)
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s does not answer", path)
			}
			select {
			case err := <-done:
				return errors.Join(errors.New("ended at once"), err)
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// remember leaves what other commands and the README's calls need in the
// user's configuration folder, for nobody else to read.
func (d *demo) remember() error {
	config, err := os.UserConfigDir()
	if err != nil {
		return err
	}
	folder := filepath.Join(config, "gatehouse")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	content := fmt.Sprintf("GATEHOUSE=%s\nGATEHOUSE_ADMIN=%s\nGATEHOUSE_ADMIN_TOKEN=%s\nGATEHOUSE_REGISTRY=%s\nREADER=%s:%s\nWRITER=%s:%s\n",
		d.origin, d.admin, d.adminToken, d.registry, d.reader.id, d.reader.secret, d.writer.id, d.writer.secret)
	path := filepath.Join(folder, "dev.env")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Chmod(path, 0o600)
}

func (d *demo) print(w io.Writer) {
	token := func(c demoClient) string {
		return fmt.Sprintf(`curl -s -u %s:%s -d grant_type=client_credentials %s/oauth/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/'`, c.id, c.secret, d.origin)
	}
	fmt.Fprintf(w, `gatehouse: DEVELOPMENT MODE. Secrets are random and die with this process; nothing of it is for production.
  gateway and issuer  %s
  admin               %s
  registry            %s  (Consul-compatible; register services here)
  mail                %s  (nothing is sent: it is shown there)
  configuration       %s  (edit it: it reloads on save)

# a token
TOKEN=$(%s)
# allowed: the backend sees who calls
curl -s -H "Authorization: Bearer $TOKEN" %s/orders/1
# refused: the scope is missing
curl -s -X POST -H "Authorization: Bearer $TOKEN" %s/orders
# refused: no token
curl -s %s/orders/1

`, d.origin, d.admin, d.registry, d.mails.URL(), d.configPath(), token(d.reader), d.origin, d.origin, d.origin)
	fmt.Fprintf(w, "Log in with a browser: %s/shop/login  (user demo, password %s), or create an account there\n\n", d.origin, d.password)
}

// loseInstance ends one instance of orders as a crash would: it does not
// deregister.
func (d *demo) loseInstance() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.backends[0].crash()
}

// restoreInstance starts it again, on another port.
func (d *demo) restoreInstance(ctx context.Context) { d.startBackend(ctx, 0) }
