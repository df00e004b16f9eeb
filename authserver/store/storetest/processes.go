package storetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
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
	// The others go on until they are killed; each line is acknowledged.
	"consume-on": func(ctx context.Context, s store.Store) error {
		var grant string
		var n int
		if _, err := fmt.Scan(&grant, &n); err != nil {
			return err
		}
		for i := range n {
			f := family()
			f.Grant = fmt.Sprint(grant, "-", i)
			if err := s.ConsumeCode(ctx, token(grant, i), now, &f); err != nil {
				return err
			}
			fmt.Println(i)
		}
		return nil
	},
	"rotate-keys-on": func(ctx context.Context, s store.Store) error {
		for {
			if _, err := s.RotateKeys(ctx, succeed); err != nil {
				return err
			}
			fmt.Println("rotated")
		}
	},
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

// succeed retires the active key, keeps the last few, and adds an active one.
func succeed(have []store.Key) ([]store.Key, error) {
	have = slices.Clone(have[max(0, len(have)-5):])
	for i := range have {
		have[i].State = "retired"
	}
	return append(have, store.Key{ID: name("key-"), Use: "token", Public: []byte("p"), Sealed: []byte("s"), State: "active",
		Created: time.Now()}), nil
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

// killAfter kills the process after d, and returns the last line it wrote.
func (c *child) killAfter(d time.Duration) (last string) {
	c.t.Helper()
	timer := time.AfterFunc(d, func() { _ = c.cmd.Process.Kill() }) // Wait, in kill, is for one goroutine
	defer timer.Stop()
	for c.out.Scan() {
		last = c.out.Text()
		if strings.HasPrefix(last, "error") {
			c.t.Fatal(last)
		}
	}
	c.kill()
	return last
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
	t.Run("KillDuringRedemptionSpendsACodeWithItsFamily", func(t *testing.T) { killRedemptions(t, s, dsn) })
	t.Run("KillDuringKeyRotationLeavesOneActiveKey", func(t *testing.T) { killKeyRotations(t, s, dsn) })
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
		if last := child.killAfter(time.Duration(30+10*round) * time.Millisecond); last != "" {
			_, err := fmt.Sscan(last, &acknowledged)
			must(t, err)
		}
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

// killRedemptions kills a process that redeems codes: afterwards a code is
// spent if and only if its family was opened, and no redemption that was
// acknowledged is lost.
func killRedemptions(t *testing.T, s store.Store, dsn string) {
	const n = 200
	grant := name("grant-")
	for i := range n {
		c := code()
		c.Hash = token(grant, i)
		must(t, s.AddCode(t.Context(), c))
	}
	child := startChild(t, "consume-on", dsn)
	child.send(grant, n)
	acknowledged := -1
	if last := child.killAfter(40 * time.Millisecond); last != "" {
		_, err := fmt.Sscan(last, &acknowledged)
		must(t, err)
	}
	for i := range n {
		_, err := s.Family(t.Context(), fmt.Sprint(grant, "-", i))
		used := !got[store.Code](t)(s.Code(t.Context(), token(grant, i))).Used.IsZero()
		if used != (err == nil) || i <= acknowledged && !used || i > acknowledged+1 && used {
			t.Fatalf("code %d of %d acknowledged ones: used %v, family %v", i, acknowledged+1, used, err)
		}
	}
}

// killKeyRotations kills a process that replaces signing keys.
func killKeyRotations(t *testing.T, s store.Store, dsn string) {
	got[[]store.Key](t)(s.RotateKeys(t.Context(), succeed)) // a child may be killed before it does anything
	for round := range 5 {
		child := startChild(t, "rotate-keys-on", dsn)
		child.killAfter(time.Duration(20+5*round) * time.Millisecond)
		active := 0
		for _, k := range got[[]store.Key](t)(s.Keys(t.Context())) {
			if k.State == "active" {
				active++
			}
		}
		if active != 1 {
			t.Fatalf("round %d: %d active keys", round, active)
		}
		got[[]store.Key](t)(s.RotateKeys(t.Context(), succeed)) // nobody holds the lock
	}
}
