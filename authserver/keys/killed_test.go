package keys

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

// Environment of the process that is killed.
const (
	killedDSN = "GATEHOUSE_KEYS_TEST_DSN"
	killedKek = "GATEHOUSE_KEYS_TEST_KEK"
)

// TestMain turns this process into the one that is killed where it was asked
// to be.
func TestMain(m *testing.M) {
	if dsn := os.Getenv(killedDSN); dsn != "" {
		fmt.Println("error:", rotateUntilKilled(context.Background(), dsn))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// rotateUntilKilled lives through one rotation after the other, as fast as the
// store takes them.
func rotateUntilKilled(ctx context.Context, dsn string) error {
	s, err := sqlstore.Open(ctx, dsn, sqlstore.Options{Timeout: 20 * time.Second})
	if err != nil {
		return err
	}
	kek, err := ParseKek(os.Getenv(killedKek))
	if err != nil {
		return err
	}
	at := time.Now()
	ring, err := Open(ctx, s, Config{Keks: []Kek{kek}, Rotation: 2 * time.Hour, Now: func() time.Time { return at }})
	if err != nil {
		return err
	}
	for {
		fmt.Println("rotating")
		if err := ring.RotateNow(ctx); err != nil && !errors.Is(err, store.ErrExists) {
			return err // ErrExists: one is under way that another process began
		}
		at = at.Add(11 * time.Minute)
		ring.Refresh(ctx, "another") // the successor takes over
	}
}

// OAUTH 47: a replica that dies in the middle of a rotation leaves one active
// key for each use, and no lock that the others would wait for.
func TestOAuth47_KillDuringRotationLeavesOneActiveKey(t *testing.T) {
	f := func(t *testing.T, dsn string) {
		t.Helper()
		text := NewKekText()
		s, err := sqlstore.Open(t.Context(), dsn, sqlstore.Options{Timeout: 20 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		kek, err := ParseKek(text)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 5 {
			killedAfter(t, dsn, text, time.Duration(20+15*round)*time.Millisecond)
			states := map[string]int{}
			stored, err := s.Keys(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range stored {
				states[k.Use+" "+k.State]++
			}
			for _, use := range uses {
				if states[use+" active"] != 1 || states[use+" next"] > 1 {
					t.Fatalf("round %d: %v", round, states)
				}
			}
			ring := open(t, s, Config{Keks: []Kek{kek}, Rotation: 2 * time.Hour})
			if _, err := verify(ring, sign(t, ring)); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) { f(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db")) })
	t.Run("postgres", func(t *testing.T) { f(t, servers.Postgres(t)) })
}

// killedAfter starts the other process and kills it d after it began to rotate.
func killedAfter(t *testing.T, dsn, kek string, d time.Duration) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), killedDSN+"="+dsn, killedKek+"="+kek)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "rotating" {
		t.Fatalf("the other process: %q", lines.Text())
	}
	kill := time.AfterFunc(d, func() { _ = cmd.Process.Kill() }) // it may have ended already
	defer kill.Stop()
	for lines.Scan() {
		if line := lines.Text(); line != "rotating" {
			t.Errorf("the other process: %s", line)
		}
	}
	_ = cmd.Wait() // "killed" is no news
}
