package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// rig is everything that runs: the origin and the issuer in this process, the
// proxies and redis-server beside it.
type rig struct {
	place    place
	cores    cores
	wire     *wire
	issuer   *issuer
	children map[string]*child
	order    []*child // as started

	jwks      *http.Server
	jwksEnded chan struct{}
	roots     *x509.CertPool
	standing  map[string][][]byte // the clients' requests by path, signed once
	fastest   float64             // requests/s, to sign enough fresh tokens
}

// newRig starts the named servers. The caller closes the rig, also when it got
// an error with one.
func newRig(ctx context.Context, o options, names []string) (r *rig, err error) {
	r = &rig{children: map[string]*child{}, standing: map[string][][]byte{}, fastest: 120_000}
	if r.place.Dir, err = os.MkdirTemp("", "gatehouse-bench-"); err != nil {
		return r, err
	}
	binary := o.binary
	if binary != "" { // servers run in a directory of their own
		if binary, err = filepath.Abs(binary); err != nil {
			return r, err
		}
	} else if slices.Contains(names, "gatehouse") {
		binary = filepath.Join(r.place.Dir, "gatehouse")
		if err := build(ctx, binary); err != nil {
			return r, err
		}
	}
	if r.cores, err = chooseCores(o.free); err != nil {
		return r, err
	}
	if err := r.cores.pin(); err != nil {
		return r, err
	}
	if err := r.prepare(); err != nil {
		return r, err
	}
	for _, name := range names {
		if err := r.start(ctx, name, binary); err != nil {
			return r, err
		}
	}
	return r, nil
}

// prepare starts what is in this process and writes the configurations.
func (r *rig) prepare() (err error) {
	if r.wire, err = newWire(); err != nil {
		return err
	}
	if r.issuer, err = newIssuer(); err != nil {
		return err
	}
	if err := r.serveKeys(); err != nil {
		return err
	}
	ports, err := freePorts(8)
	if err != nil {
		return err
	}
	p := &r.place
	p.Nginx, p.Haproxy, p.HaproxyPlain, p.Gatehouse, p.Control, p.Redis = ports[0], ports[1], ports[2], ports[3], ports[4], ports[5]
	p.NginxTLS, p.GatehouseTLS = ports[6], ports[7]
	p.Origin = r.wire.port
	p.Workers = 1
	if !r.cores.pinned {
		p.Workers = r.cores.allowed.Count()
	}
	if err := p.secrets(); err != nil {
		return err
	}
	key, err := r.issuer.publicPEM()
	if err != nil {
		return err
	}
	files := map[string]string{"nginx.conf": nginxConf, "haproxy.cfg": haproxyConf, "gatehouse.yaml": gatehouseConf}
	for name, text := range files {
		if text, err = p.render(text); err != nil {
			return err
		}
		if err := r.write(name, []byte(text)); err != nil {
			return err
		}
	}
	cert, private, roots, err := certificate()
	if err != nil {
		return err
	}
	r.roots = roots
	return errors.Join(r.write("issuer.pem", key), r.write("tls.crt", cert), r.write("tls.key", private))
}

func (r *rig) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.place.Dir, name), content, 0o600)
}

func (r *rig) serveKeys() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("starting the issuer: %w", err)
	}
	r.place.Issuer = l.Addr().(*net.TCPAddr).Port
	r.issuer.url = "http://" + local(r.place.Issuer)
	r.jwks = &http.Server{Handler: r.issuer, ReadHeaderTimeout: 5 * time.Second}
	r.jwksEnded = make(chan struct{})
	go func() {
		defer close(r.jwksEnded)
		_ = r.jwks.Serve(l) // ends by Close
	}()
	return nil
}

// start runs one of the servers and waits until it is ready; gatehouse brings
// its redis-server along.
func (r *rig) start(ctx context.Context, name, binary string) error {
	core := -1
	if r.cores.pinned {
		core = r.cores.proxy
	}
	p := r.place
	switch name {
	case "nginx":
		return r.run(ctx, name, core, p.Nginx, "nginx", "-p", p.Dir, "-c", filepath.Join(p.Dir, "nginx.conf"))
	case "haproxy":
		return r.run(ctx, name, core, p.Haproxy, "haproxy", "-db", "-f", filepath.Join(p.Dir, "haproxy.cfg"))
	case "gatehouse":
		err := r.run(ctx, "redis-server", -1, p.Redis, "redis-server", "--port", fmt.Sprint(p.Redis),
			"--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", p.Dir)
		if err != nil {
			return err
		}
		if err := r.run(ctx, name, core, p.Gatehouse, binary, "run", "-c", filepath.Join(p.Dir, "gatehouse.yaml")); err != nil {
			return err
		}
		return r.children[name].until(ctx, "get ready", func() error {
			_, err := fetch(ctx, "http://"+local(p.Control)+"/readyz")
			return err
		})
	}
	return fmt.Errorf("no server %q", name)
}

func (r *rig) run(ctx context.Context, name string, core, port int, command ...string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("starting %s: %w (a Debian package)", name, err)
	}
	command[0] = path
	c, err := start(r.place.Dir, name, core, nil, command...)
	if err != nil {
		return err
	}
	r.children[name] = c
	r.order = append(r.order, c)
	return c.listens(ctx, port)
}

// close ends everything that newRig started and removes its files.
func (r *rig) close() error {
	for _, c := range slices.Backward(r.order) {
		c.stop()
	}
	var failures []error
	if r.jwks != nil {
		failures = append(failures, r.jwks.Close())
		<-r.jwksEnded
	}
	if r.wire != nil {
		r.wire.close()
	}
	failures = append(failures, r.cores.unpin(), os.RemoveAll(r.place.Dir))
	return errors.Join(failures...)
}

// build compiles gatehouse as a release does; for a processor of level 3, if
// this is one.
func build(ctx context.Context, binary string) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", binary, "./cmd/gatehouse")
	cmd.Dir = root
	if level3() {
		cmd.Env = append(os.Environ(), "GOAMD64=v3")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building gatehouse: %w: %s", err, out)
	}
	return nil
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == os.DevNull {
		return "", errors.New("not inside gatehouse's module")
	}
	return filepath.Dir(file), nil
}

// level3 reports whether the processor has what GOAMD64=v3 demands.
func level3() bool {
	flags := strings.Fields(cpuinfo("flags"))
	for _, want := range []string{"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"} {
		if !slices.Contains(flags, want) {
			return false
		}
	}
	return true
}

// cpuinfo returns a property of the first processor, empty if it is unknown.
func cpuinfo(name string) string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
