package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a server that the bench started. It gets a process group of its own,
// so that an interrupt from the terminal reaches the bench alone.
type child struct {
	name  string
	cmd   *exec.Cmd
	log   string // file of its output
	ended chan struct{}
}

// start runs a server on a core (-1: where the bench may run itself); its
// output goes to a file in dir.
func start(dir, name string, core int, env []string, command ...string) (*child, error) {
	c := &child{name: name, log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	out, err := os.Create(c.log)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer out.Close()
	c.cmd = exec.Command(command[0], command[1:]...)
	c.cmd.Dir, c.cmd.Stdout, c.cmd.Stderr = dir, out, out
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM} // if the bench is killed
	if err := startOn(core, c.cmd); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go c.reap()
	return c, nil
}

// startOn lends the core to the thread that forks: a child inherits it before
// its first instruction, so a Go program counts one processor.
func startOn(core int, cmd *exec.Cmd) error {
	if core < 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(core)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	started := cmd.Start()
	if err := unix.SchedSetaffinity(0, &before); err != nil && started == nil {
		started = err
	}
	return started
}

// reap ends when the process has.
func (c *child) reap() {
	_ = c.cmd.Wait() // how it ended is in its log
	close(c.ended)
}

// alive tells of a process that ended by itself, with the end of its output.
func (c *child) alive() error {
	select {
	case <-c.ended:
	default:
		return nil
	}
	log, err := os.ReadFile(c.log)
	if err != nil {
		return fmt.Errorf("%s ended: %w", c.name, err)
	}
	return fmt.Errorf("%s ended (%v): %s", c.name, c.cmd.ProcessState, bytes.TrimSpace(log[max(0, len(log)-2000):]))
}

// stop asks the process to end, kills its whole group if it does not within two
// seconds, and returns when it is gone.
func (c *child) stop() {
	// A group that is gone already is what is wanted.
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(2 * time.Second):
	}
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
	<-c.ended
}

// listens waits until the child accepts connections on a port.
func (c *child) listens(ctx context.Context, port int) error {
	return c.until(ctx, fmt.Sprintf("listen on port %d", port), func() error {
		conn, err := net.DialTimeout("tcp4", local(port), time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// until repeats a check for 15 seconds at most, while the child lives.
func (c *child) until(ctx context.Context, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		failure := check()
		if failure == nil {
			return nil
		}
		if err := c.alive(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not %s: %w", c.name, what, failure)
		case <-tick.C:
		}
	}
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts returns n ports of loopback that nobody listened on just now. They
// are below the range from which the kernel takes those of outgoing connections.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 100 * n {
		port := 12000 + rand.IntN(20000)
		l, err := net.Listen("tcp4", local(port))
		if err != nil {
			continue
		}
		defer l.Close() // all at the end, so that no port comes twice
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("no free ports of loopback between 12000 and 32000")
}
