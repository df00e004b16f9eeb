// Command cluster runs the topology of docker-compose.yml as processes on
// loopback: Redis, Consul, PostgreSQL, two gateways on configs/compose, two
// demo backends that register themselves, and Prometheus with the rules of
// configs/prometheus. No container engine is needed.
//
// It owns the processes and the check; the servers' own start-up is
// loadtest/servers, and what a gateway does is for loadtest/e2e to prove.
//
//	go run ./loadtest/cluster          # until Ctrl-C
//	go run ./loadtest/cluster -check   # traffic, then every query of the board; exit 0 or 1
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"testing"
)

// options are the flags.
type options struct {
	root  string // of the repository
	check bool
}

func main() {
	var o options
	flag.StringVar(&o.root, "root", ".", "folder of the repository")
	flag.BoolVar(&o.check, "check", false, "send traffic, ask every query of the board, and end")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m := &machine{}
	err := m.run(func() error { return cluster(ctx, m, o, os.Stdout) })
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// cluster runs until ctx ends, or until the check is done. What it starts ends
// with t.
func cluster(ctx context.Context, t testing.TB, o options, out io.Writer) error {
	topo, err := start(ctx, t, o.root)
	if err != nil {
		return err
	}
	topo.print(out)
	if o.check {
		return check(ctx, topo, o.root, out)
	}
	fmt.Fprintln(out, "Ctrl-C ends it.")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-topo.failed:
		return err
	}
}
