package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// round measures one subject once.
func (r *rig) round(ctx context.Context, o options, s subject) (measure, error) {
	var m measure
	drive, err := r.driven(o, s)
	if err != nil {
		return m, err
	}
	pids, err := tree(r.children[s.server].cmd.Process.Pid)
	if err != nil {
		return m, err
	}
	core := -1
	if r.cores.pinned {
		core = r.cores.proxy
	}
	var proxy, own, withheld [2]time.Duration
	marks := 0
	clock := threadTime
	if s.version > 0 {
		clock = ownTime
	}
	t, err := drive(ctx, load{
		warm: o.warm(), measure: o.duration,
		mark: func() (err error) {
			if own[marks], err = clock(); err != nil {
				return err
			}
			if withheld[marks], err = stolen(core); err != nil {
				return err
			}
			proxy[marks], err = processorTime(pids)
			marks++
			return err
		},
	})
	if err != nil {
		return m, err
	}
	if t.errors == 0 && t.atOrigin != t.answered {
		t.errors, t.sample = 1, fmt.Errorf("the origin saw %d requests for %d answers", t.atOrigin, t.answered)
	}
	m.errors, m.sample = t.errors, t.sample
	if t.requests == 0 {
		return m, fmt.Errorf("measuring %s: no good answer, %d errors, the first: %w", s.title, t.errors, t.sample)
	}
	m.cost = float64(proxy[1]-proxy[0]) / float64(t.requests)
	m.rate = float64(t.requests) / t.elapsed.Seconds()
	m.busy = float64(proxy[1]-proxy[0]) / float64(t.elapsed)
	m.stolen = float64(withheld[1]-withheld[0]) / float64(t.elapsed)
	m.loadBusy = float64(own[1]-own[0]) / float64(t.elapsed)
	m.p50, m.p99 = t.latency.percentile(50), t.latency.percentile(99)
	r.fastest = max(r.fastest, m.rate)
	m.memory, err = memory(pids)
	return m, err
}

// driven returns how a subject is driven; what a run needs is made before.
func (r *rig) driven(o options, s subject) (func(context.Context, load) (tally, error), error) {
	if s.version > 0 {
		c, err := r.callers(o, s)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context, l load) (tally, error) {
			defer c.close()
			l.connections = o.connections
			return r.driveTLS(ctx, c, s, l)
		}, nil
	}
	requests, err := r.supply(o, s)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, l load) (tally, error) {
		l.port, l.connections, l.requests = s.port(r.place), o.connections, requests
		return r.wire.drive(ctx, l)
	}, nil
}

// supply gives the requests of a run: the standing ones, one token for each
// client, and with room to spare as many fresh ones as the fastest run so far
// would need.
func (r *rig) supply(o options, s subject) (*supply, error) {
	now := time.Now()
	if r.standing[s.path] == nil {
		standing, err := r.issuer.requests(s.path, o.clients, o.clients, now)
		if err != nil {
			return nil, err
		}
		r.standing[s.path] = standing
	}
	su := &supply{standing: r.standing[s.path], freshEvery: s.freshEvery}
	if s.freshEvery == 0 {
		return su, nil
	}
	seconds := (o.warm() + o.duration).Seconds()
	n := int(r.fastest*seconds*1.2)/s.freshEvery + 1000
	var err error
	su.fresh, err = r.issuer.requests(s.path, n, o.clients, now)
	return su, err
}

// profile records one more round of a subject with perf.
func (r *rig) profile(ctx context.Context, o options, s subject, file string) error {
	pids, err := tree(r.children[s.server].cmd.Process.Pid)
	if err != nil {
		return err
	}
	cmd := exec.Command("perf", "record", "-q", "-g", "-F", "999", "-o", file, "-p", commas(pids))
	cmd.Stderr = os.Stderr
	return beside(cmd, func() error {
		_, err := r.round(ctx, o, s)
		return err
	})
}

// beside runs an observer, which SIGINT makes finish its work, while do runs.
func beside(cmd *exec.Cmd, do func() error) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Args[0], err)
	}
	failure := do()
	if err := cmd.Process.Signal(os.Interrupt); err != nil && failure == nil {
		failure = fmt.Errorf("%s ended early: %w", cmd.Args[0], err)
	}
	late := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	// Both observers end by the signal's status, having written their file.
	_ = cmd.Wait()
	return failure
}
