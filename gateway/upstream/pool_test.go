package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestConnectionsAreLimited(t *testing.T) {
	s := startScript(t, echo)
	svc := newTestService(t, Config{MaxConnsPerInstance: 2, MaxPending: 1, PendingWait: 5 * time.Second}, s.addr)
	inst := svc.Pick(0, 0)
	a, b := lend(t, svc), lend(t, svc)

	t.Run("a waiter gets what is released", func(t *testing.T) {
		got := make(chan *Conn, 1)
		go func() {
			c, err := inst.Conn(soon())
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		eventually(t, "one waits", func() bool { return inst.pool.queue.length.Load() == 1 })
		_, err := inst.Conn(soon())
		wantKind(t, err, ErrBusy, PhaseQueue)
		if Judge(0, err) != Neutral {
			t.Error("a full pool counts against the instance")
		}
		a.Out = append(a.Out, request("/")...)
		if _, err := a.RoundTrip(soon()); err != nil {
			t.Fatal(err)
		}
		a.BodyLength(1)
		readAll(a)
		a.Release(true)
		if a = <-got; !a.Reused() {
			t.Error("a new connection was made")
		}
	})
	t.Run("a waiter may replace what is closed", func(t *testing.T) {
		got := make(chan *Conn, 1)
		go func() {
			c, err := inst.Conn(soon())
			if err != nil {
				t.Error(err)
			}
			got <- c
		}()
		eventually(t, "one waits", func() bool { return inst.pool.queue.length.Load() == 1 })
		b.Release(false)
		if b = <-got; b.Reused() {
			t.Error("a closed connection was lent")
		}
	})
	t.Run("a waiter gives up at its deadline", func(t *testing.T) {
		_, err := inst.Conn(time.Now().Add(10 * time.Millisecond))
		wantKind(t, err, ErrTimeout, PhaseQueue)
	})
	a.Release(false)
	b.Release(false)
	if n, _ := inst.pool.count(); n != 0 {
		t.Errorf("%d connections left", n)
	}
	inst.Done(Neutral)
}

func TestWaitingIsBounded(t *testing.T) {
	s := startScript(t, echo)
	for _, cfg := range []Config{{}, {PendingWait: time.Millisecond}, {MaxPending: -1}, {PendingWait: -1}} {
		cfg.MaxConnsPerInstance = 1
		svc := newTestService(t, cfg, s.addr)
		c := lend(t, svc)
		_, err := c.Instance().Conn(soon())
		wantKind(t, err, ErrBusy, PhaseQueue)
		c.Release(false)
	}
}

func TestFailedDialFreesItsPlace(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort(ln.Addr().String())
	_ = ln.Close()
	svc := newTestService(t, Config{MaxConnsPerInstance: 1}, addr)
	for range 3 {
		_, err := svc.Pick(0, 0).Conn(soon())
		wantKind(t, err, ErrConnect, PhaseConnect)
	}
}

// Many exchanges at once, over few connections, some of which the instance or
// the client ends: every answer belongs to its request, nothing leaks.
func TestManyExchangesNeverMixUp(t *testing.T) {
	var served atomic.Int64
	play := func(_ int, c net.Conn) {
		br := bufio.NewReader(c)
		for {
			target, err := readRequest(br)
			if err != nil {
				return
			}
			n := served.Add(1)
			var out string
			if n%3 == 0 {
				out = answer(target)
			} else {
				out = fmt.Sprintf("HTTP/1.1 200 OK\r\n\r\n1\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", target[:1], len(target)-1, target[1:])
			}
			if n%50 == 23 {
				// In one piece: what comes after the next request was sent
				// nobody can tell from its answer.
				out += answer("POISON")
			}
			io.WriteString(c, out)
			if n%50 == 7 {
				return
			}
		}
	}
	a, b := startScript(t, play), startScript(t, play)
	svc := newTestService(t, Config{MaxConnsPerInstance: 20, PendingWait: 10 * time.Second}, a.addr, b.addr)
	var wg sync.WaitGroup
	var good, reset atomic.Int64
	for g := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				target := fmt.Sprintf("/%d/%d", g, i)
				inst := svc.Pick(uint64(g), 0)
				c, err := inst.Conn(soon())
				if err != nil {
					t.Errorf("%s: %v", target, err)
					inst.Done(Judge(0, err))
					return
				}
				body, err := exchange(c, target, i%2 == 0)
				switch {
				case err == nil && body == target:
					good.Add(1)
				case err == nil:
					t.Errorf("the answer to %s is %q", target, body)
				case c.Reused():
					reset.Add(1) // the instance closed it just then
				default:
					t.Errorf("%s: %v", target, err)
				}
				c.Release(i%17 != 0)
				inst.Done(Success)
			}
		}()
	}
	wg.Wait()
	if good.Load() < 64*45 {
		t.Errorf("%d good, %d reset", good.Load(), reset.Load())
	}
	for _, st := range svc.Status().Instances {
		if st.InFlight != 0 || st.Open != st.Idle || st.Open > 20 {
			t.Errorf("in flight %d, open %d, idle %d", st.InFlight, st.Open, st.Idle)
		}
	}
}

// exchange does one exchange in either of the two ways to send.
func exchange(c *Conn, target string, roundTrip bool) (string, error) {
	c.Out = append(c.Out, request(target)...)
	var head []byte
	var err error
	if roundTrip {
		head, err = c.RoundTrip(soon())
	} else if err = c.Send(soon()); err == nil {
		head, err = c.ReadHead(soon())
	}
	if err != nil {
		return "", err
	}
	var n int64
	if _, serr := fmt.Sscanf(string(head), "HTTP/1.1 200 OK\r\nContent-Length: %d", &n); serr == nil {
		c.BodyLength(n)
	} else {
		c.BodyChunked()
	}
	return readAll(c)
}

func TestUpdateDrainsRemovedInstances(t *testing.T) {
	old, kept := startScript(t, echo), startScript(t, echo)
	svc := newTestService(t, Config{Balance: RoundRobin}, old.addr, kept.addr)
	get(t, svc, "/")
	get(t, svc, "/")
	running := lend(t, svc) // on old
	other := lend(t, svc)
	if running.Instance().Addr() != old.addr || !other.Reused() {
		t.Fatal("not the connections that were expected")
	}
	other.Release(false)
	get(t, svc, "/") // needs a second connection to old
	before := other.Instance().Number()

	svc.Update(endpoints(old.addr, kept.addr)[1:])
	st := svc.Status()
	if len(st.Instances) != 1 || st.Instances[0].Number != before {
		t.Fatalf("instances after the update: %+v", st.Instances)
	}
	for range 4 {
		inst := svc.Pick(0, 0)
		if inst.Addr() != kept.addr {
			t.Error("a removed instance was picked")
		}
		inst.Done(Success)
	}
	gone := running.Instance()
	if open, idle := gone.pool.count(); open != 1 || idle != 0 {
		t.Errorf("removed instance: %d open, %d idle", open, idle)
	}
	if body, err := exchange(running, "/last", true); body != "/last" || err != nil {
		t.Errorf("exchange in flight: %q, %v", body, err)
	}
	running.Release(true)
	gone.Done(Success)
	if open, idle := gone.pool.count(); open != 0 || idle != 0 {
		t.Errorf("drained instance: %d open, %d idle", open, idle)
	}
}

func TestUpdateSkipsWhatCannotBeCalled(t *testing.T) {
	svc := newTestService(t, Config{})
	eps := endpoints(netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.1:80"))
	eps[2].Weight = 0
	svc.Update(append(eps, eps[2]))
	if st := svc.Status().Instances; len(st) != 1 || st[0].Weight != 1 {
		t.Errorf("%+v", st)
	}
	svc.Close()
	svc.Update(eps)
	if svc.Pick(0, 0) != nil {
		t.Error("a closed service has instances")
	}
}

func TestIdleAndOldConnectionsAreClosed(t *testing.T) {
	s := startScript(t, echo)
	clock := time.Now()
	svc := NewService(Config{Idle: time.Minute, MaxAge: time.Hour}, func() time.Time { return clock })
	defer svc.Close()
	svc.Update(endpoints(s.addr))
	step := func(d time.Duration) {
		clock = clock.Add(d)
		svc.tick(clock)
	}
	use := func() bool {
		t.Helper()
		c := lend(t, svc)
		c.Out = append(c.Out, request("/")...)
		if _, err := c.RoundTrip(clock.Add(24 * time.Hour)); err != nil {
			t.Fatal(err)
		}
		c.BodyLength(1)
		c.Next(clock.Add(24 * time.Hour))
		c.Release(true)
		return c.Reused()
	}
	use()
	step(55 * time.Second)
	if !use() {
		t.Error("closed too early")
	}
	step(55 * time.Second)
	if idle(svc) != 1 {
		t.Error("its use did not count")
	}
	step(6 * time.Second)
	if st := svc.Status().Instances[0]; st.Open != 0 {
		t.Error("idle connection is still open")
	}
	use()
	for range 61 {
		step(time.Minute - 10*time.Second)
		use()
	}
	if n := s.accepted(); n != 2 {
		t.Errorf("%d connections", n)
	}
	for range 13 {
		step(time.Minute - 10*time.Second)
		use()
	}
	if n := s.accepted(); n != 3 {
		t.Errorf("%d connections after the age limit", n)
	}
}
