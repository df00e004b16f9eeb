// Package rig puts a real gatehouse process between raw sockets: a client that
// sends bytes and an origin that answers with bytes.
//
// It owns building and running the program, the scripted origin and the raw
// client. It does not own what is asserted, nor servers that others wrote
// (loadtest/servers). It imports nothing of the gateway: what it knows about it
// is what goes over sockets.
//
//	func TestMain(m *testing.M) { rig.Main(m) }
//
//	origin := rig.NewOrigin()
//	g, err := rig.Start(rig.Options{Config: "services: …\nroutes: …\n"})
//	a := rig.Dial(t, g.Addr).Ask("GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// Patience is how long a test waits for what must come about in the end on a
// busy machine.
const Patience = 20 * time.Second

var program struct {
	dir  string
	once sync.Once
	path string
	err  error

	mu      sync.Mutex
	running []*Gateway
}

// Main is the TestMain of a package that uses Start: it removes what was built
// and ends the gateways that outlived their tests. An error of last fails too.
func Main(m *testing.M, last ...func() error) {
	dir, err := os.MkdirTemp("", "gatehouse-rig-")
	if err == nil {
		err = dependOnSources()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	program.dir = dir
	status := m.Run()
	for _, g := range program.running {
		last = append(last, g.Stop)
	}
	for _, f := range last {
		if err := f(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.RemoveAll(dir)
	os.Exit(status)
}

// dependOnSources looks at every file that the program is made of, which has go
// test forget a kept result when one changes: that the program is built by a
// command is nothing that it could see.
func dependOnSources() error {
	const root = "../.."
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // an editor's file that has gone
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "bin"):
			return fs.SkipDir
		case d.IsDir() || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		if _, err = os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// build makes the program once, with the race detector where the tests have it.
func build() (string, error) {
	program.once.Do(func() {
		program.path = filepath.Join(program.dir, "gatehouse")
		args := []string{"build", "-buildvcs=false", "-o", program.path}
		if RaceEnabled {
			args = append(args, "-race")
		}
		if out, err := exec.Command("go", append(args, "../../cmd/gatehouse")...).CombinedOutput(); err != nil {
			program.err = fmt.Errorf("build gatehouse: %w\n%s", err, out)
		}
	})
	return program.path, program.err
}

// Options say what a Gateway is started with.
type Options struct {
	// Config is the configuration without listeners and admin. In it @PORT@
	// stands for the port of the plain listener.
	Config string
	// Listeners are further entries of the list of listeners, in flow style;
	// @PORT1@, @PORT2@… in them are free ports, see Gateway.Extra.
	Listeners []string
	// Env is added to the environment.
	Env []string
}

// Gateway is one running gatehouse.
type Gateway struct {
	// Addr is the plain listener's address, Admin the operators' one, and
	// Extra the addresses of further listeners.
	Addr, Admin string
	Extra       []string
	// Dir is the folder of its configuration file.
	Dir string

	cmd  *exec.Cmd
	log  buffer
	done chan struct{}
}

// buffer collects what a process writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *buffer) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *buffer) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Start runs a gateway and returns when it is ready. Somebody must Stop it;
// Main does for those that are left.
func Start(o Options) (*Gateway, error) {
	path, err := build()
	if err != nil {
		return nil, err
	}
	for range 5 { // others may take a port between the look and the bind
		var g *Gateway
		if g, err = start(path, o); err == nil {
			program.mu.Lock()
			program.running = append(program.running, g)
			program.mu.Unlock()
			return g, nil
		}
		if g == nil || !strings.Contains(g.log.String(), "address already in use") {
			break
		}
	}
	return nil, err
}

// Run is Start for the time of one test.
func Run(t testing.TB, o Options) *Gateway {
	t.Helper()
	g, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		} else if t.Failed() {
			servers.ShowLog(t, "the gateway", g.log.String())
		}
	})
	return g
}

func start(path string, o Options) (*Gateway, error) {
	g := &Gateway{done: make(chan struct{})}
	var err error
	if g.Dir, err = os.MkdirTemp(program.dir, "run-"); err != nil {
		return nil, err
	}
	port := freePort()
	g.Addr, g.Admin = loopback(port), loopback(freePort())
	var list strings.Builder
	fmt.Fprintf(&list, "listeners:\n  - {address: %s}\n", g.Addr)
	for i, l := range o.Listeners {
		extra := freePort()
		g.Extra = append(g.Extra, loopback(extra))
		fmt.Fprintf(&list, "  - %s\n", strings.ReplaceAll(l, fmt.Sprintf("@PORT%d@", i+1), strconv.Itoa(extra)))
	}
	fmt.Fprintf(&list, "admin: {address: %s}\n", g.Admin)
	list.WriteString(strings.ReplaceAll(o.Config, "@PORT@", strconv.Itoa(port)))
	file := filepath.Join(g.Dir, "gatehouse.yaml")
	if err := os.WriteFile(file, []byte(list.String()), 0o600); err != nil {
		return nil, err
	}
	g.cmd = exec.Command(path, "run", "-c", file)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	g.cmd.Env = append(os.Environ(), o.Env...)
	g.cmd.WaitDelay = 5 * time.Second
	tieToUs(g.cmd)
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { defer close(g.done); _ = g.cmd.Wait() }()
	if err := g.awaitReady(); err != nil {
		_ = g.cmd.Process.Kill()
		<-g.done
		return g, fmt.Errorf("%w\n%s", err, tail(g.log.String(), 3000))
	}
	return g, nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort is below the range from which the kernel takes ports of outgoing
// connections.
func freePort() int {
	for {
		port := 12000 + rand.IntN(20000)
		if ln, err := net.Listen("tcp4", loopback(port)); err == nil {
			ln.Close()
			return port
		}
	}
}

func (g *Gateway) awaitReady() error {
	for deadline := time.Now().Add(Patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + g.Admin + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-g.done:
			return errors.New("the gateway ended")
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the gateway is not ready: %v", err)
		}
	}
}

// Stop ends the gateway. The error tells of a data race, a panic, or that it
// did not end when it was asked to. A second call does nothing.
func (g *Gateway) Stop() error {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-g.done:
	case <-time.After(Patience):
		_ = g.cmd.Process.Kill()
		<-g.done
		return errors.New("the gateway does not end when it is asked to")
	}
	if log := g.log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic: ") || strings.Contains(log, "panic while serving") {
		return fmt.Errorf("the gateway failed:\n%s", tail(log, 8000))
	}
	return nil
}

// Log is what the gateway wrote so far.
func (g *Gateway) Log() string { return g.log.String() }

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// Metric adds up the series of a metric whose line holds every one of labels
// (`reason="bad_request"`).
func (g *Gateway) Metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	resp, err := http.Get("http://" + g.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
lines:
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(rest, l) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(strings.TrimSpace(rest), ' ')+1:]), 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += v
	}
	return sum
}

// PeakMemory is the most resident memory that the process ever had, in bytes;
// 0 where the system does not tell.
func (g *Gateway) PeakMemory() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}

// Eventually waits until ok, and fails the test when that takes too long.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come about in %v: %s", Patience, what)
		}
	}
}
