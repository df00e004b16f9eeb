// Package servers starts the real servers that tests talk to: Redis, Consul,
// PostgreSQL, LDAP, and the proxies of others, each as a process on a free
// loopback port that ends with the test.
//
// It owns finding, starting, stopping and restarting them, and the rule for a
// machine that lacks one. It imports nothing of gatehouse and knows nothing
// about what is tested; fault injection beyond signals is loadtest/chaos.
//
//	redis := servers.Redis(t)
//	client := dial(redis.Addr)
//	redis.Pause() // accepts connections, answers nothing
package servers

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// RequireEnv is the environment variable that turns the skip of a test whose
// server is missing into a failure when its value is "all".
const RequireEnv = "GATEHOUSE_TEST_REQUIRE"

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// Need returns the absolute path of an executable: path itself, or what PATH
// holds under that name. Where there is none the test is skipped with name in
// its reason, or fails when GATEHOUSE_TEST_REQUIRE=all.
func Need(t testing.TB, name, path string) string {
	t.Helper()
	found, err := exec.LookPath(path)
	if err == nil {
		found, err = filepath.Abs(found)
	}
	if err != nil {
		Missing(t, "%s is not installed: %v", name, err)
	}
	return found
}

// Missing ends the test because something that it needs is absent: as a skip,
// or as a failure when GATEHOUSE_TEST_REQUIRE=all.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv(RequireEnv) == "all" {
		t.Fatalf(format+" ("+RequireEnv+"=all)", args...)
	}
	t.Skipf(format, args...)
}

// Server is one running process. Its methods are for one goroutine at a time
// and fail the test when the process does not do what they say.
type Server struct {
	// Addr is the loopback host:port; it stays the same over Restart.
	Addr string

	t     testing.TB
	name  string
	spec  spec
	cmd   *exec.Cmd
	alive *os.File // read end of a pipe that only the process holds open
	log   string   // file with the output of all runs
}

// spec tells how to run a kind of server.
type spec struct {
	binary string
	args   []string
	attr   *syscall.SysProcAttr
	dir    string
	stop   syscall.Signal                  // asks for an orderly end
	ready  func(ctx context.Context) error // nil once the server answers
}

// start tries free ports until the server that newSpec describes answers on
// one. Others may take a port between our look and the server's bind.
func start(t testing.TB, name string, newSpec func(port int) spec) *Server {
	t.Helper()
	s := &Server{t: t, name: name, log: filepath.Join(t.TempDir(), name+".log")}
	t.Cleanup(func() {
		s.end(syscall.SIGKILL)
		if t.Failed() {
			ShowLog(t, s.name, s.written())
		}
	})
	var err error
	for range 5 {
		port := FreePort(t)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		s.spec = newSpec(port)
		if err = s.run(); err == nil {
			return s
		}
	}
	t.Fatalf("start %s: %v\n%s", name, err, lastLines(s.written()))
	return nil
}

// FreePort returns a loopback TCP port that was free a moment ago. It is below
// the range from which the kernel takes ports of outgoing connections, so it
// can be bound again after a server on it has ended.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 200 {
		port := 12000 + rand.IntN(20000)
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free loopback port between 12000 and 32000")
	return 0
}

// run starts the process and waits until it answers.
func (s *Server) run() error {
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	alive, held, err := os.Pipe()
	if err != nil {
		return err
	}
	defer held.Close()
	cmd := exec.Command(s.spec.binary, s.spec.args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, s.spec.dir
	cmd.ExtraFiles = []*os.File{held}
	cmd.SysProcAttr = dieWithParent(s.spec.attr)
	if err := cmd.Start(); err != nil {
		alive.Close()
		return err
	}
	s.cmd, s.alive = cmd, alive

	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for {
		err := s.spec.ready(ctx)
		if s.exited(5 * time.Millisecond) {
			return fmt.Errorf("%s ended: %w", s.name, s.end(syscall.SIGKILL))
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			s.end(syscall.SIGKILL)
			return fmt.Errorf("%s does not answer on %s: %w", s.name, s.Addr, err)
		}
	}
}

// exited waits up to d for the end of the process. A pipe tells it without a
// goroutine that tests for leaks would report.
func (s *Server) exited(d time.Duration) bool {
	s.alive.SetReadDeadline(time.Now().Add(d))
	_, err := s.alive.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// end signals the process, waits for it and returns how it ended; nil when
// none runs.
func (s *Server) end(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	s.cmd.Process.Signal(syscall.SIGCONT) // a stopped process takes no other signal but KILL
	s.cmd.Process.Signal(sig)
	if sig != syscall.SIGKILL && !s.exited(stopTimeout) {
		s.t.Errorf("%s did not end within %v of signal %v", s.name, stopTimeout, sig)
		s.cmd.Process.Kill()
	}
	err := s.cmd.Wait()
	s.exited(stopTimeout) // its children hold the pipe and, in PostgreSQL, the data folder
	s.alive.Close()
	s.cmd = nil
	return err
}

// Stop ends the server in its orderly way. What it keeps on disk stays.
func (s *Server) Stop() { s.t.Helper(); s.end(s.spec.stop) }

// Kill ends the server with SIGKILL.
func (s *Server) Kill() { s.t.Helper(); s.end(syscall.SIGKILL) }

// Restart starts the server again on the same port and disk state; a server
// that still runs is stopped first. It returns when the server answers.
func (s *Server) Restart() {
	s.t.Helper()
	s.end(s.spec.stop)
	if err := s.run(); err != nil {
		s.t.Fatalf("restart %s: %v\n%s", s.name, err, lastLines(s.written()))
	}
}

// Pause stops the process with SIGSTOP: the kernel still accepts connections
// for it, and nobody answers.
func (s *Server) Pause() { s.t.Helper(); s.signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (s *Server) Resume() { s.t.Helper(); s.signal(syscall.SIGCONT) }

// PID is the process id, or 0 while none runs.
func (s *Server) PID() int {
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		s.t.Fatalf("signal %v: %s does not run", sig, s.name)
	}
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal %v to %s: %v", sig, s.name, err)
	}
}

// written is what the server wrote so far.
func (s *Server) written() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
