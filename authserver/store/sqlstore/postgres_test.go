package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/loadtest/servers"
)

func open(t *testing.T, dsn string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dsn, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func revoke(t *testing.T, s *Store) {
	t.Helper()
	now := time.Now()
	r := oauth.Revocation{Level: oauth.LevelToken, ID: fmt.Sprint(now.UnixNano()), Expires: now.Add(time.Hour)}
	if _, err := s.Revoke(t.Context(), r, now); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestListenHearsOtherReplicasAndSurvivesARestart(t *testing.T) {
	server := servers.StartPostgres(t)
	dsn := server.Database()
	a, b := open(t, dsn, Options{}), open(t, dsn, Options{})
	var woken atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.Listen(ctx, func() { woken.Add(1) }) }()
	eventually(t, "listening", func() bool { return woken.Load() > 0 })
	for range 2 {
		before := woken.Load()
		revoke(t, a)
		eventually(t, "the other replica is woken", func() bool { return woken.Load() > before })
		before = woken.Load()
		server.Restart()
		eventually(t, "listening again", func() bool { return woken.Load() > before })
		eventually(t, "the pool works again", func() bool { return a.Ping(t.Context()) == nil })
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Listen returned %v", err)
	}
}

func TestListenOverSQLiteOnlyWaits(t *testing.T) {
	s := open(t, "sqlite::memory:", Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.Listen(ctx, func() { t.Error("woken") }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Listen returned %v", err)
	}
}

func TestOnRevokeIsCalledAfterCommit(t *testing.T) {
	s := open(t, "sqlite::memory:", Options{})
	var heads []uint64
	s.OnRevoke(func() {
		_, head, err := s.RevokedSince(t.Context(), 0, 1)
		if err != nil {
			t.Error(err)
		}
		heads = append(heads, head)
	})
	revoke(t, s)
	now := time.Now()
	f := store.Family{Grant: "g", ClientID: "c", Generation: 3, Created: now, Expires: now.Add(time.Hour), IdleUntil: now.Add(time.Hour)}
	if err := s.AddFamily(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.RotateRefresh(t.Context(), store.Rotation{Grant: "g", ClientID: "c", Generation: 1, Now: now, TokenLife: time.Minute})
	if !errors.Is(err, store.ErrReuse) {
		t.Fatal(err)
	}
	s.OnRevoke(nil)
	revoke(t, s)
	if fmt.Sprint(heads) != "[1 2]" {
		t.Errorf("heads seen %v, want 1 and 2", heads)
	}
}

func TestOAuth60_HangingDatabaseIsGivenUpAndRecovers(t *testing.T) {
	server := servers.StartPostgres(t)
	s := open(t, server.Database(), Options{Timeout: 500 * time.Millisecond})
	server.Pause()
	began := time.Now()
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a hanging database committed")
	}
	if _, err := s.Once(t.Context(), "jti", began.Add(time.Hour)); err == nil {
		t.Error("a hanging database recorded a key")
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("gave up after %v", d)
	}
	server.Resume()
	eventually(t, "the pool works again", func() bool { return s.Ping(t.Context()) == nil })
}

// TestOAuth61_… kills the server in the middle of rotations: what was
// acknowledged is there afterwards, and the client can go on.
func TestOAuth61_CrashOfTheDatabaseLosesNoAcknowledgedRotation(t *testing.T) {
	server := servers.StartPostgres(t)
	s := open(t, server.Database(), Options{Timeout: 2 * time.Second})
	ctx, now := t.Context(), time.Now()
	f := store.Family{Grant: "g", ClientID: "c", Created: now, Expires: now.Add(time.Hour), IdleUntil: now.Add(time.Hour),
		Generation: 1, Hash: digest(1)}
	if err := s.AddFamily(ctx, f); err != nil {
		t.Fatal(err)
	}
	acknowledged := 1
	rotate := func() error {
		f, _, err := s.RotateRefresh(ctx, store.Rotation{Grant: "g", ClientID: "c", Presented: digest(acknowledged),
			Next: digest(acknowledged + 1), Generation: acknowledged, Now: now, IdleUntil: f.IdleUntil, Grace: time.Minute, TokenLife: time.Minute})
		if err != nil {
			return err
		}
		if f.Generation != acknowledged+1 {
			t.Fatalf("generation %d after %d", f.Generation, acknowledged)
		}
		acknowledged++
		return nil
	}
	for range 3 {
		first := acknowledged
		killed := make(chan struct{})
		go func() {
			time.Sleep(50 * time.Millisecond)
			close(killed)
		}()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for rotate() == nil {
			}
		}()
		<-killed
		server.Kill()
		<-done
		server.Restart()
		eventually(t, "the client goes on", func() bool {
			err := rotate()
			if errors.Is(err, store.ErrReuse) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUsed) {
				t.Fatalf("after the crash: %v", err)
			}
			return err == nil
		})
		if acknowledged == first+1 {
			t.Error("nothing was rotated before the crash")
		}
	}
	if _, head, err := s.RevokedSince(ctx, 0, 1); head != 0 || err != nil {
		t.Errorf("%d families were revoked, %v", head, err)
	}
}

func TestErrorsHoldNoData(t *testing.T) {
	f := func(t *testing.T, dsn string) {
		t.Helper()
		s := open(t, dsn, Options{})
		c := store.Client{ID: "hunter2"}
		if err := s.AddClient(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		again := s.AddClient(t.Context(), c)
		_, unknown := s.Client(t.Context(), "hunter3")
		_, bad := s.Revoke(t.Context(), oauth.Revocation{Level: oauth.LevelToken, ID: "hunter2\x00", Expires: time.Now()}, time.Now())
		for _, err := range []error{again, unknown, bad} {
			if err != nil && strings.Contains(err.Error(), "hunter") {
				t.Errorf("an error quotes what was stored: %v", err)
			}
		}
		if !errors.Is(again, store.ErrExists) || !errors.Is(unknown, store.ErrNotFound) {
			t.Errorf("errors %v, %v", again, unknown)
		}
	}
	t.Run("SQLite", func(t *testing.T) { f(t, sqliteFile(t)) })
	t.Run("Postgres", func(t *testing.T) { f(t, servers.Postgres(t)) })
}

// TestOAuth61_… takes the primary away for good: a standby becomes the new one,
// and the store goes on there by itself, with everything that was acknowledged.
func TestOAuth61_FailoverToAStandbyNeedsNoRestart(t *testing.T) {
	primary := servers.StartPostgres(t)
	dsn := primary.Database()
	standby := primary.Standby()
	dsn = strings.Replace(dsn, "@"+primary.Addr+"/", "@"+primary.Addr+","+standby.Addr+"/", 1)
	s := open(t, dsn, Options{Timeout: 2 * time.Second})
	var woken atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	listening := make(chan error)
	go func() { listening <- s.Listen(ctx, func() { woken.Add(1) }) }()
	now := time.Now()
	f := store.Family{Grant: "g", ClientID: "c", Created: now, Expires: now.Add(time.Hour), IdleUntil: now.Add(time.Hour),
		Generation: 1, Hash: digest(1)}
	if err := s.AddFamily(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	acknowledged := 1
	rotate := func() error {
		_, _, err := s.RotateRefresh(t.Context(), store.Rotation{Grant: "g", ClientID: "c", Presented: digest(acknowledged),
			Next: digest(acknowledged + 1), Generation: acknowledged, Now: now, IdleUntil: f.IdleUntil, Grace: time.Minute, TokenLife: time.Minute})
		if err == nil {
			acknowledged++
		}
		return err
	}
	for range 20 {
		if err := rotate(); err != nil {
			t.Fatal(err)
		}
	}
	revoke(t, s)
	_, head, err := s.RevokedSince(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	primary.Kill()
	if err := rotate(); err == nil {
		t.Error("a rotation without a primary")
	}
	standby.Promote()
	eventually(t, "the client goes on at the new primary", func() bool {
		err := rotate()
		if errors.Is(err, store.ErrReuse) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrUsed) {
			t.Fatalf("after the failover: %v", err)
		}
		return err == nil
	})
	if _, now, err := s.RevokedSince(t.Context(), 0, 10); err != nil || now != head {
		t.Errorf("the log's head is %d, it was %d (%v)", now, head, err)
	}
	before := woken.Load()
	eventually(t, "revocations are heard again", func() bool { revoke(t, s); return woken.Load() > before })
	cancel()
	if err := <-listening; !errors.Is(err, context.Canceled) {
		t.Errorf("Listen returned %v", err)
	}
}
