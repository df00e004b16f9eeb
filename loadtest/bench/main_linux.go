package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds, connections, clients int
	duration                     time.Duration
	only, binary, perf           string
	free, smoke, write           bool
}

// warm is how long each run goes before its measured part.
func (o options) warm() time.Duration { return o.duration / 4 }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		os.Exit(2) // flag has said why
	}
	err = bench(ctx, o, os.Stdout, os.Stderr)
	if errors.Is(err, context.Canceled) {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.IntVar(&o.rounds, "rounds", 7, "interleaved rounds")
	f.DurationVar(&o.duration, "duration", 2500*time.Millisecond, "of the measured part of each proxy in a round")
	f.IntVar(&o.connections, "connections", 64, "keep-alive connections of the clients")
	f.IntVar(&o.clients, "clients", 1000, "clients, each with a token")
	f.StringVar(&o.only, "only", "", "comma list of proxies: nginx, plain, enforced, fresh, haproxy, nginx-tls, tls, nginx-h2, h2, haproxy-plain")
	f.StringVar(&o.binary, "gatehouse", "", "binary to measure instead of building it")
	f.StringVar(&o.perf, "perf", "", "record one more round of each proxy with perf into `file`.<proxy>")
	f.BoolVar(&o.free, "free", false, "pin nothing: all cores for everybody")
	f.BoolVar(&o.smoke, "smoke", false, "one short round, only to see that everything works")
	f.BoolVar(&o.write, "write", false, "put the table into loadtest/README.md")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if o.smoke {
		o.rounds, o.duration = 1, 300*time.Millisecond
	}
	_, err := selected(o.only)
	switch {
	case err != nil:
	case f.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.rounds < 1 || o.rounds > 1000 || o.connections < 1 || o.connections > 500 || o.clients < 1 || o.clients > 100_000:
		err = errors.New("-rounds goes from 1 to 1000, -connections to 500, -clients to 100000")
	case o.duration < 50*time.Millisecond || o.duration > 5*time.Minute:
		err = errors.New("-duration goes from 50ms to 5m")
	case o.write && (o.smoke || o.only != ""):
		err = errors.New("-write wants the whole table: neither -smoke nor -only")
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
	}
	return o, err
}

// bench runs the experiment and prints its table; progress goes to stderr. Any
// failed request makes it fail, after the table.
func bench(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	chosen, err := selected(o.only)
	if err != nil {
		return err
	}
	about, err := setting(ctx, o, processes(chosen))
	if err != nil {
		return err
	}
	r, err := newRig(ctx, o, processes(chosen))
	defer func() { err = errors.Join(err, r.close()) }()
	if err != nil {
		return err
	}
	rows, err := r.measure(ctx, o, chosen, stderr)
	if err != nil {
		return err
	}
	var failures []error
	if err := r.extras(ctx, o, rows); err != nil {
		failures = append(failures, err) // the rounds are worth printing all the same
	}
	text := about + "\n" + table(rows)
	fmt.Fprint(stdout, text)
	for _, row := range rows {
		if n, sample := row.errors(); n > 0 {
			failures = append(failures, fmt.Errorf("%s: %d errors, the first: %w", row.title, n, sample))
		}
	}
	if failures == nil && o.write {
		return publish(ctx, o, text)
	}
	return errors.Join(failures...)
}

// measure probes every subject and does the rounds. Every second round goes
// through them backwards, so that a drift of the machine favours nobody.
func (r *rig) measure(ctx context.Context, o options, chosen []subject, stderr io.Writer) ([]row, error) {
	rows := make([]row, len(chosen))
	order := make([]int, len(chosen))
	for i, s := range chosen {
		fields, err := r.probe(ctx, o, s)
		if err != nil {
			return nil, err
		}
		rows[i], order[i] = row{subject: s, fields: fields}, i
	}
	for n := range o.rounds {
		for _, i := range order {
			m, err := r.round(ctx, o, rows[i].subject)
			if err != nil {
				return nil, err
			}
			rows[i].rounds = append(rows[i].rounds, m)
			fmt.Fprintf(stderr, "round %d of %d: %-36s %6.2f µs/request %7.0f requests/s  proxy %3.0f %% busy, load %3.0f %%, stolen %2.0f %%  %d errors\n",
				n+1, o.rounds, rows[i].title, m.cost/1e3, m.rate, m.busy*100, m.loadBusy*100, m.stolen*100, m.errors)
		}
		slices.Reverse(order)
	}
	return rows, nil
}

// extras counts what is the same in every round: forwarded fields,
// allocations, system calls; and records profiles.
func (r *rig) extras(ctx context.Context, o options, rows []row) error {
	requests, traced := 100_000, 20_000
	if o.smoke {
		requests = 5_000
	}
	_, missing := exec.LookPath("strace")
	for i := range rows {
		row := &rows[i]
		remark := func(format string, args ...any) { row.remarks = append(row.remarks, fmt.Sprintf(format, args...)) }
		remark("%d header fields reach the origin", row.fields)
		if row.name == "enforced" {
			objects, scripts, err := r.allocations(ctx, o, row.subject, requests)
			if err != nil {
				return err
			}
			remark("%.2f allocations per request of the whole process and %.4f Redis scripts, over %d requests", objects, scripts, requests)
		}
		switch {
		case o.smoke || row.freshEvery > 0 || row.version > 0:
		case missing != nil:
			remark("system calls per request not measured (no strace)")
		default:
			calls, err := r.syscalls(ctx, o, row.subject, traced)
			if err != nil {
				return err
			}
			remark("system calls per request: %s", calls)
		}
		if o.perf != "" {
			if err := r.profile(ctx, o, row.subject, o.perf+"."+row.name); err != nil {
				return err
			}
		}
	}
	return nil
}

// setting describes the machine and the programs.
func setting(ctx context.Context, o options, names []string) (string, error) {
	c, err := chooseCores(o.free)
	if err != nil {
		return "", err
	}
	place := "nothing pinned"
	if c.pinned {
		place = "proxy pinned to one core; load, origin and Redis to another"
	}
	var versions []string
	for _, name := range append(names, "redis-server", "go") {
		if name == "redis-server" && !slices.Contains(names, "gatehouse") {
			continue
		}
		v, err := version(ctx, o, name)
		if err != nil {
			return "", err
		}
		versions = append(versions, v)
	}
	model := cpuinfo("model name")
	if model == "" {
		model = "unknown processor"
	}
	congestion, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return "", fmt.Errorf("reading TCP's congestion control: %w", err)
	}
	return fmt.Sprintf("%s · %s, %d cores, TCP %s · %s\n\n%s · %d rounds of %v, %d connections, %d clients, answers of %d bytes\n",
		time.Now().UTC().Format("2006-01-02"), model, c.allowed.Count(), bytes.TrimSpace(congestion), place,
		strings.Join(versions, " · "), o.rounds, o.duration, o.connections, o.clients, len(originContent)), nil
}

func version(ctx context.Context, o options, name string) (string, error) {
	command := []string{name, "-v"}
	switch {
	case name == "go":
		command = []string{"go", "env", "GOVERSION"}
	case name == "gatehouse" && o.binary != "":
		return "gatehouse (given binary)", nil
	case name == "gatehouse":
		command = []string{"git", "describe", "--always", "--dirty", "--tags"}
	}
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("asking for the version of %s: %w", name, err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	switch name {
	case "gatehouse":
		return "gatehouse " + first, nil
	case "nginx":
		first = strings.TrimPrefix(first, "nginx version: ")
	case "haproxy":
		first, _, _ = strings.Cut(first, " 20") // its date
	case "redis-server":
		if _, v, found := strings.Cut(first, "v="); found {
			first, _, _ = strings.Cut(v, " ")
			first = "redis " + first
		}
	}
	return first, nil
}

// publish puts the text into its section of loadtest/README.md.
func publish(ctx context.Context, o options, text string) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	section := "pinned"
	if o.free {
		section = "free"
	}
	file := filepath.Join(root, "loadtest", "README.md")
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed, err := replaceSection(string(old), section, text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(changed), 0o644)
}
