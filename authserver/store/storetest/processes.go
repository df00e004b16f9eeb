package storetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// Environment of a child process: its role and the database.
const (
	roleEnv = "GATEHOUSE_STORETEST_ROLE"
	dsnEnv  = "GATEHOUSE_STORETEST_DSN"
)

// Open opens the store under test.
type Open func(ctx context.Context, dsn string) (store.Store, error)

// Child takes over when this process was started by RunProcesses, and does not
// return then. TestMain calls it first.
func Child(open Open) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	ctx := context.Background()
	s, err := open(ctx, os.Getenv(dsnEnv))
	if err == nil {
		fmt.Println("ready")
		err = roles[role](ctx, s)
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// roles read commands from standard input and answer each with one line.
var roles = map[string]func(ctx context.Context, s store.Store) error{
	"consume": func(ctx context.Context, s store.Store) error {
		return answer(func(grant string, i int) string {
			return fmt.Sprint(s.ConsumeCode(ctx, token(grant, i), now, nil) == nil)
		})
	},
	"rotate": func(ctx context.Context, s store.Store) error {
		return answer(func(grant string, i int) string {
			f, replayed, err := s.RotateRefresh(ctx, rotation(store.Family{Grant: grant, ClientID: "c"}, i))
			return fmt.Sprint(f.Generation, replayed, err)
		})
	},
	// rotate-on rotates until it is killed; each line is acknowledged.
	"rotate-on": func(ctx context.Context, s store.Store) error {
		var grant string
		var generation int
		if _, err := fmt.Scan(&grant, &generation); err != nil {
			return err
		}
		for ; ; generation++ {
			f, _, err := s.RotateRefresh(ctx, rotation(store.Family{Grant: grant, ClientID: "c"}, generation))
			if err != nil {
				return err
			}
			fmt.Println(f.Generation)
		}
	},
}

func answer(f func(grant string, i int) string) error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var grant string
		var i int
		if _, err := fmt.Sscan(in.Text(), &grant, &i); err != nil {
			return err
		}
		fmt.Println(f(grant, i))
	}
	return in.Err()
}

// child is a running process.
type child struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t *testing.T, role, dsn string) *child {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), roleEnv+"="+role, dsnEnv+"="+dsn)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	c := &child{t, cmd, in, bufio.NewScanner(out)}
	t.Cleanup(c.kill)
	if line := c.read(); line != "ready" {
		t.Fatalf("child %s: %s", role, line)
	}
	return c
}

func (c *child) send(grant string, i int) {
	c.t.Helper()
	_, err := fmt.Fprintln(c.in, grant, i)
	must(c.t, err)
}

func (c *child) read() string {
	c.out.Scan()
	return c.out.Text()
}

// kill ends the process as kill -9 does; more than once is fine.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended already
	_ = c.cmd.Wait()         // "killed" is no news
}

// RunProcesses races processes over the database that dsn names, and kills
// them. TestMain of the calling test must begin with Child.
func RunProcesses(t *testing.T, dsn string, open Open) {
	s, err := open(t.Context(), dsn)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	t.Run("CodeIsConsumedOnceOverProcesses", func(t *testing.T) { processesConsume(t, s, dsn) })
	t.Run("RefreshTokenIsRotatedOnceOverProcesses", func(t *testing.T) { processesRotate(t, s, dsn) })
	t.Run("KillDuringRotationLeavesOneLiveSuccessor", func(t *testing.T) { killRotations(t, s, dsn) })
}

func processesConsume(t *testing.T, s store.Store, dsn string) {
	grant := name("grant-")
	children := []*child{startChild(t, "consume", dsn), startChild(t, "consume", dsn)}
	for i := range 50 {
		c := code()
		c.Hash = token(grant, i)
		must(t, s.AddCode(t.Context(), c))
		won := 0
		for _, child := range children {
			child.send(grant, i)
		}
		for _, child := range children {
			if child.read() == "true" {
				won++
			}
		}
		if won != 1 {
			t.Fatalf("code %d was redeemed %d times", i, won)
		}
	}
}

func processesRotate(t *testing.T, s store.Store, dsn string) {
	f := processFamily(t, s)
	children := []*child{startChild(t, "rotate", dsn), startChild(t, "rotate", dsn)}
	for g := 1; g <= 50; g++ {
		outcomes := map[string]int{}
		for _, child := range children {
			child.send(f.Grant, g)
		}
		for _, child := range children {
			outcomes[child.read()]++
		}
		wantEqual(t, fmt.Sprint("generation ", g), outcomes, map[string]int{
			fmt.Sprint(g+1, false, error(nil)): 1, fmt.Sprint(g+1, true, error(nil)): 1})
		if t.Failed() {
			return
		}
	}
}

func processFamily(t *testing.T, s store.Store) store.Family {
	f := family()
	f.ClientID = "c"
	must(t, s.AddFamily(t.Context(), f))
	return f
}

// killRotations kills a process that rotates, again and again; its client goes
// on with the last token it was given.
func killRotations(t *testing.T, s store.Store, dsn string) {
	f := processFamily(t, s)
	acknowledged := 1
	for round := range 5 {
		child := startChild(t, "rotate-on", dsn)
		child.send(f.Grant, acknowledged)
		killed := time.AfterFunc(time.Duration(30+10*round)*time.Millisecond, func() { _ = child.cmd.Process.Kill() })
		for child.out.Scan() {
			line := child.out.Text()
			if strings.HasPrefix(line, "error") {
				t.Fatal(line)
			}
			if _, err := fmt.Sscan(line, &acknowledged); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		killed.Stop()
		child.kill()
		stored := got[store.Family](t)(s.Family(t.Context(), f.Grant))
		if g := stored.Generation; g != acknowledged && g != acknowledged+1 || !stored.Revoked.IsZero() {
			t.Fatalf("round %d: generation %d was acknowledged, stored is %+v", round, acknowledged, stored)
		}
	}
	if acknowledged < 2 {
		t.Fatal("no rotation before the kills")
	}
	next, _, err := s.RotateRefresh(t.Context(), rotation(f, acknowledged))
	must(t, err)
	wantEqual(t, "successor", next.Generation, acknowledged+1)
}
