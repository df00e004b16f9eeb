package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// send sends exactly n requests to a subject, each of which must succeed.
func (r *rig) send(ctx context.Context, o options, s subject, n int) error {
	requests, err := r.supply(o, s)
	if err != nil {
		return err
	}
	t, err := r.wire.drive(ctx, load{
		port: s.port(r.place), connections: o.connections, total: n,
		requests: requests, mark: func() error { return nil },
	})
	if err == nil && t.errors > 0 {
		err = fmt.Errorf("%d errors, the first: %w", t.errors, t.sample)
	}
	if err != nil {
		return fmt.Errorf("counting at %s: %w", s.title, err)
	}
	return nil
}

// allocations counts the heap objects that the gatehouse process makes per
// request, and the scripts that redis-server runs meanwhile. The whole process
// is counted, but for the reading of the metrics itself.
func (r *rig) allocations(ctx context.Context, o options, s subject, n int) (objects, scripts float64, err error) {
	if err := r.send(ctx, o, s, 3*o.clients); err != nil { // warms tokens and leases
		return 0, 0, err
	}
	var read [4]float64
	for i := range read {
		if i == 3 {
			if scripts, err = r.redisScripts(); err != nil {
				return 0, 0, err
			}
			if err := r.send(ctx, o, s, n); err != nil {
				return 0, 0, err
			}
		}
		if read[i], err = r.mallocs(ctx); err != nil {
			return 0, 0, err
		}
	}
	// The first reading opens a connection; the next two tell what a reading costs.
	reading := read[2] - read[1]
	objects = (read[3] - read[2] - reading) / float64(n)
	after, err := r.redisScripts()
	if err == nil && after == scripts {
		err = errors.New("the enforced route never asked Redis for its limit")
	}
	return objects, (after - scripts) / float64(n), err
}

func (r *rig) mallocs(ctx context.Context) (float64, error) {
	page, err := fetch(ctx, "http://"+local(r.place.Control)+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page)) {
		if value, found := strings.CutPrefix(line, "go_memstats_mallocs_total "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, errors.New("gatehouse's metrics have no go_memstats_mallocs_total")
}

// redisScripts returns how many scripts redis-server ran since it started.
func (r *rig) redisScripts() (float64, error) {
	conn, err := net.DialTimeout("tcp4", local(r.place.Redis), time.Second)
	if err != nil {
		return 0, fmt.Errorf("asking redis-server: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(conn, "INFO commandstats\r\n"); err != nil {
		return 0, fmt.Errorf("asking redis-server: %w", err)
	}
	answer := bufio.NewReader(conn)
	head, err := answer.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("asking redis-server: %w", err)
	}
	size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "$")))
	if err != nil || size < 0 || size > 1<<20 {
		return 0, fmt.Errorf("redis-server answers %q", head)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(answer, text); err != nil {
		return 0, fmt.Errorf("asking redis-server: %w", err)
	}
	return scriptCalls(string(text))
}

// syscalls counts the system calls that a subject's processes make per request
// (strace -c), by name and in sum.
func (r *rig) syscalls(ctx context.Context, o options, s subject, n int) (string, error) {
	pids, err := tree(r.children[s.server].cmd.Process.Pid)
	if err != nil {
		return "", err
	}
	file := filepath.Join(r.place.Dir, "strace.txt")
	args := []string{"-c", "-f", "-q", "-o", file}
	for _, pid := range pids {
		args = append(args, "-p", strconv.Itoa(pid))
	}
	if err := r.send(ctx, o, s, 3*o.clients); err != nil { // warms tokens and leases
		return "", err
	}
	err = beside(exec.Command("strace", args...), func() error {
		if err := traced(ctx, pids); err != nil {
			return err
		}
		return r.send(ctx, o, s, n)
	})
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	return callsPerRequest(string(text), n)
}

// traced waits until strace holds every thread of the processes.
func traced(ctx context.Context, pids []int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		free := 0
		for _, pid := range pids {
			files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
			if err != nil {
				return err
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					continue // the thread ended
				}
				if tracer, err := field(string(text), "TracerPid:"); err != nil || tracer == 0 {
					free++
				}
			}
		}
		if free == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("strace cannot attach here")
		case <-tick.C:
		}
	}
}
