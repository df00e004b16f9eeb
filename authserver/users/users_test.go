package users

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/store/sqlstore"
)

func cheapHash(password string) string {
	salt := []byte("salt for testing")
	key := argon2.IDKey([]byte(password), salt, 1, 64, 1, 32)
	return "$argon2id$v=19$m=64,t=1,p=1$" + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(key)
}

func newRegistry(t *testing.T) (*Registry, store.Store) {
	t.Helper()
	s, err := sqlstore.Open(t.Context(), "sqlite::memory:", sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return New(s, NewThrottle(s, []byte("key"), time.Now), time.Now), s
}

var ip = netip.MustParseAddr("192.0.2.1")

func TestHashIsRaisedAtLogin(t *testing.T) {
	r, s := newRegistry(t)
	u := store.User{Subject: newSubject(), Name: "carol", PasswordHash: cheapHash("correct horse"), Created: time.Now()}
	if err := s.AddUser(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Login(t.Context(), "carol", "wrong horse", "", ip); !errors.Is(err, ErrCredentials) {
		t.Fatalf("wrong password: %v", err)
	}
	if _, err := r.Login(t.Context(), "carol", "correct horse", "", ip); err != nil {
		t.Fatal(err)
	}
	raised, err := s.UserByName(t.Context(), "carol")
	if err != nil || !strings.HasPrefix(raised.PasswordHash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("hash %.40s %v", raised.PasswordHash, err)
	}
	if _, err := r.Login(t.Context(), "carol", "correct horse", "", ip); err != nil {
		t.Fatalf("with the raised hash: %v", err)
	}
}

func TestDeclaredUserKeepsItsSubject(t *testing.T) {
	r, _ := newRegistry(t)
	declare := func(list ...Declared) {
		t.Helper()
		p, err := r.Prepare(t.Context(), list)
		if err != nil {
			t.Fatal(err)
		}
		r.Declare(p)
	}
	declare(Declared{Name: "alice", PasswordHash: cheapHash("correct horse"), Email: "a@example.com"})
	first, err := r.Login(t.Context(), "alice", "correct horse", "", ip)
	if err != nil || !strings.HasPrefix(first.Subject, "usr_") || first.Email != "a@example.com" {
		t.Fatalf("%+v %v", first, err)
	}
	declare()
	if _, err := r.Login(t.Context(), "alice", "correct horse", "", ip); !errors.Is(err, ErrCredentials) {
		t.Errorf("gone from the configuration: %v", err)
	}
	if _, err := r.User(t.Context(), first.Subject); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("gone from the configuration: %v", err)
	}
	declare(Declared{Name: "alice", PasswordHash: cheapHash("another horse")})
	again, err := r.Login(t.Context(), "alice", "another horse", "", ip)
	if err != nil || again.Subject != first.Subject {
		t.Errorf("subject %q, was %q: %v", again.Subject, first.Subject, err)
	}
}

func TestLongPasswordsAreRefusedNotCut(t *testing.T) {
	r, s := newRegistry(t)
	long := strings.Repeat("x", maxPassword)
	if _, err := r.New(t.Context(), store.User{Name: "carol"}, long+"y"); !errors.Is(err, ErrPassword) {
		t.Errorf("longer than allowed: %v", err)
	}
	hash := cheapHash("")
	if err := s.AddUser(t.Context(), store.User{Subject: newSubject(), Name: "empty", PasswordHash: hash, Created: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Login(t.Context(), "empty", long+"y", "", ip); !errors.Is(err, ErrCredentials) {
		t.Errorf("a password that is too long matched: %v", err)
	}
	if _, err := r.Login(t.Context(), strings.Repeat("n", 1000), "x", "", ip); !errors.Is(err, ErrCredentials) {
		t.Errorf("a name that is too long: %v", err)
	}
}

func TestHashingIsBounded(t *testing.T) {
	h := &hasher{slots: make(chan struct{}, 1), queue: make(chan struct{}, 2)}
	running, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- h.do(context.Background(), func() { close(running); <-release }) }()
	<-running
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error, 1)
	go func() { waiting <- h.do(ctx, func() { t.Error("ran in a slot that was taken") }) }()
	for len(h.queue) < 2 {
		time.Sleep(time.Millisecond)
	}
	if err := h.do(context.Background(), func() {}); !errors.Is(err, ErrBusy) {
		t.Errorf("a full queue: %v", err)
	}
	cancel()
	if err := <-waiting; !errors.Is(err, ErrBusy) {
		t.Errorf("a wait that was given up: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFiveHundredSignInsHashInTheirSlotsOnly(t *testing.T) {
	h := newHasher()
	var running, most, hashed, busy atomic.Int64
	var group sync.WaitGroup
	for range 500 {
		group.Go(func() {
			err := h.do(t.Context(), func() {
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				runtime.Gosched()
				running.Add(-1)
			})
			switch {
			case err == nil:
				hashed.Add(1)
			case errors.Is(err, ErrBusy):
				busy.Add(1)
			}
		})
	}
	group.Wait()
	if slots := int64(max(1, runtime.NumCPU()-1)); most.Load() > slots || hashed.Load() == 0 || hashed.Load()+busy.Load() != 500 {
		t.Errorf("%d hashed at once in %d slots, %d in all, %d were told to come later", most.Load(), slots, hashed.Load(), busy.Load())
	}
}

// BenchmarkSignaturesBesideSignIns measures what signatures, as the token
// endpoint makes them, cost in time: alone, while 500 sign-ins wait for
// hashing, and beside as many goroutines that only compute as there are slots.
// The last two are to be alike.
func BenchmarkSignaturesBesideSignIns(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	beside := func(name string, n int, work func(ctx context.Context)) {
		b.Run(name, func(b *testing.B) {
			ctx, stop := context.WithCancel(b.Context())
			var group sync.WaitGroup
			for range n {
				group.Go(func() {
					for ctx.Err() == nil {
						work(ctx)
					}
				})
			}
			digest := sha256.Sum256([]byte("a token"))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
						b.Error(err)
					}
				}
			})
			b.StopTimer()
			stop()
			group.Wait()
		})
	}
	h := newHasher()
	h.queue = make(chan struct{}, 500) // all of them wait
	beside("alone", 0, nil)
	beside("beside500SignIns", 500, func(ctx context.Context) { _, _ = h.hash(ctx, "a long password") })
	beside("besideEqualLoad", cap(h.slots), func(context.Context) { sha256.Sum256(make([]byte, 1<<20)) })
}

func TestThrottleIsSharedDelaysAndForgets(t *testing.T) {
	dsn := "sqlite:" + filepath.Join(t.TempDir(), "state.db")
	now := time.Unix(1e9, 0)
	var replicas []*Throttle
	for range 2 {
		s, err := sqlstore.Open(t.Context(), dsn, sqlstore.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		replicas = append(replicas, NewThrottle(s, []byte("key"), func() time.Time { return now }))
	}
	n := 0
	begin := func(account string, ip netip.Addr) (*Attempt, time.Duration) {
		t.Helper()
		n++
		a, err := replicas[n%2].Begin(t.Context(), account, ip)
		var throttled *ThrottledError
		if errors.As(err, &throttled) {
			return nil, throttled.Wait
		}
		if err != nil {
			t.Fatal(err)
		}
		return a, 0
	}
	end := func(f func(context.Context) error) {
		t.Helper()
		if err := f(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	fail := func(account string, ip netip.Addr) {
		t.Helper()
		a, wait := begin(account, ip)
		if a == nil {
			t.Fatalf("%s from %v waits %v", account, ip, wait)
		}
		end(a.Failed)
	}
	wait := func(account string, ip netip.Addr) time.Duration {
		t.Helper()
		a, wait := begin(account, ip)
		if a != nil {
			end(a.Abandon)
		}
		return wait
	}
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

	for i := range freeFailures {
		fail("alice", address(i))
	}
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		if w := wait("alice", address(100)); w != want*time.Second {
			t.Errorf("after %d further failures: %v, want %v", i, w, want*time.Second)
		}
		now = now.Add(want * time.Second)
		a, _ := begin("alice", address(i))
		if w := wait("alice", address(100)); w == 0 {
			t.Error("two guesses at once after a delay")
		}
		end(a.Failed)
	}
	if wait("bob", address(100)) != 0 {
		t.Error("another account waits")
	}
	now = now.Add(maxAccountWait)
	a, _ := begin("alice", address(0))
	end(a.Succeeded)
	if wait("alice", address(100)) != 0 {
		t.Error("a success did not reset")
	}
	var open []*Attempt
	for range maxOpen {
		a, _ := begin("carol", address(101))
		open = append(open, a)
	}
	if wait("carol", address(102)) == 0 {
		t.Error("any number of guesses at once")
	}
	end(open[0].Abandon)
	if wait("carol", address(102)) != 0 {
		t.Error("an abandoned attempt counts")
	}
	now = now.Add(2 * openLife)
	if wait("carol", address(102)) != 0 {
		t.Error("attempts that never ended count for ever")
	}
	other := netip.MustParseAddr("198.51.100.1")
	for i := range ipBurst {
		fail(fmt.Sprint("one", i), other)
	}
	if wait("fresh", other) == 0 {
		t.Error("an address over many accounts does not wait")
	}
	six := netip.MustParseAddr("2001:db8::1")
	for i := range ipBurst {
		fail(fmt.Sprint("six", i), six)
	}
	if wait("fresh", netip.MustParseAddr("2001:db8::ffff")) == 0 || wait("fresh", netip.MustParseAddr("2001:db8:0:1::1")) != 0 {
		t.Error("IPv6 is not counted by /64")
	}
	for i := 0; wait("fresh", address(5000)) == 0; i++ {
		if i > 2*globalBurst {
			t.Fatal("all addresses together are not bounded")
		}
		fail(fmt.Sprint("all", i), address(1000+i))
	}
	now = now.Add(time.Hour)
	if wait("fresh", other) != 0 {
		t.Error("still waiting an hour later")
	}
}

func FuzzParsePHC(f *testing.F) {
	f.Add(cheapHash("x"))
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5")
	f.Add("$argon2id$v=19$m=64,t=1,p=1,x=2$$")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parsePHC(s)
		if err != nil {
			return
		}
		if h.memory > 256<<10 || h.time > 32 || h.threads > 16 {
			t.Fatalf("%q costs too much", s)
		}
		again, err := parsePHC(h.String())
		if err != nil || again.String() != h.String() {
			t.Fatalf("%q became %q: %v", s, h, err)
		}
	})
}
