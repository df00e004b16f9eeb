package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// patience is how long a test waits for what must come about in the end on a
// busy machine. What must come about soon is asserted beside it.
const patience = 2 * time.Minute

var builds struct {
	dir         string
	race, plain build
}

type build struct {
	once sync.Once
	path string
	err  error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "gatehouse-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds.dir = dir
	if err := dependOnSources(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
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
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "bin"):
			return fs.SkipDir
		case d.IsDir() || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		_, err = os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // an editor's file that has gone
		}
		return err
	})
}

// program is the gatehouse that the tests run, built once and with the race
// detector where the tests have it.
func program(t testing.TB) string {
	t.Helper()
	if raceEnabled {
		return builds.race.get(t, "gatehouse-race", "-race")
	}
	return plainProgram(t)
}

// plainProgram is gatehouse without the race detector, whose own allocations
// nobody promised anything about.
func plainProgram(t testing.TB) string {
	t.Helper()
	return builds.plain.get(t, "gatehouse")
}

func (b *build) get(t testing.TB, name string, flags ...string) string {
	t.Helper()
	b.once.Do(func() {
		b.path = filepath.Join(builds.dir, name)
		args := append(append([]string{"build", "-buildvcs=false"}, flags...), "-o", b.path, "../../cmd/gatehouse")
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			b.err = fmt.Errorf("build gatehouse: %w\n%s", err, out)
		}
	})
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.path
}

// process is a running program of ours.
type process struct {
	t    testing.TB
	name string
	cmd  *exec.Cmd
	out  *output // standard output
	log  *output // standard error
	done chan struct{}
}

// output collects what a process writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a program until the test ends. It fails the test when the program
// met a data race or a panic, or logged a secret.
func start(t testing.TB, name, path string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(path, args...), out: &output{}, log: &output{}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.log
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.WaitDelay = 5 * time.Second
	tieToUs(p.cmd)
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() { defer close(p.done); _ = p.cmd.Wait() }()
	t.Cleanup(func() {
		p.stop()
		holdsNoSecret(t, "the log of "+name, p.log.String())
		if log := p.log.String(); strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic: ") {
			t.Errorf("%s failed:\n%s", name, end(log, 8000))
		} else if t.Failed() {
			servers.ShowLog(t, name, log)
		}
	})
	return p
}

// holdsNoSecret fails the test when a secret of the tests, or what may be a JWT,
// stands in something written.
func holdsNoSecret(t testing.TB, what, text string) {
	t.Helper()
	for _, secret := range []string{batchSecret, webSecret, adminToken, password, "eyJ"} {
		if _, rest, found := strings.Cut(text, secret); found {
			t.Errorf("%s holds %q, before %.100q", what, secret, rest)
		}
	}
}

func end(s string, n int) string { return s[max(0, len(s)-n):] }

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("%s: signal %v: %v", p.name, sig, err)
	}
}

// stop asks the process to end and waits for it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Errorf("%s does not end when it is asked to", p.name)
		p.kill()
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// freeAddress is a loopback address on which nobody listens.
func freeAddress(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(servers.FreePort(t)))
}

// eventually waits until ok, and fails the test when that takes too long.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not come about in %v: %s", patience, what)
		}
	}
}

var plainClient = &http.Client{
	Timeout:       callTimeout,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// fetch returns status and body of a GET; status 0: no answer.
func fetch(url string) (status int, body string) {
	resp, err := plainClient.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(content)
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	// As editors do: a reader never sees half of it.
	if err := os.WriteFile(path+"~", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
}
