package server

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/gateway/pace"
	"github.com/gatehouse/gatehouse/gateway/sock"
	"github.com/gatehouse/gatehouse/plugins"
)

// sweepEvery is how often exchanges are looked at that last longer than this.
// Shorter ones pay for nothing but two stores.
const sweepEvery, lookAtMost = 100 * time.Millisecond, time.Second

// watch is what the sweep knows of a connection's exchange. The handler of a
// request cannot see that its client has left: nobody reads from the
// connection while the upstream is awaited.
type watch struct {
	// since is when the exchange began, in nanoseconds since 1970; none or
	// heading while there is no exchange.
	since atomic.Int64

	mu      sync.Mutex
	watched plugins.Watched
	// live is since of an exchange whose client may take what is sent as slowly
	// as it likes.
	live int64

	// Used by the sweep only.
	of, next int64
	look     func(fd uintptr)
	seen     view
	outward  outward
}

// view is what the kernel says about a connection.
type view struct {
	left bool // the client has closed its side
	// acked counts the bytes that the client has taken; waiting: there are
	// more that it does not take. Not known: the system does not tell.
	acked          uint64
	waiting, known bool
}

// outward follows how fast the client takes what is sent to it.
type outward struct {
	meter   pace.Meter
	at      time.Time // of the last look, zero before the first
	acked   uint64
	waiting bool
}

const (
	none    int64 = iota
	heading       // a head is being read
)

func (w *watch) begin(now time.Time) { w.since.Store(now.UnixNano()) }

func (w *watch) end() { w.since.Store(none) }

// set makes w the one that is told; nil ends that, and when set has returned,
// the one before is not used any more.
func (w *watch) set(to plugins.Watched) {
	w.mu.Lock()
	w.watched = to
	w.mu.Unlock()
}

// loosen ends the watch over how fast the client takes what is sent: it is made
// while it is sent, or the connection leaves HTTP.
func (w *watch) loosen() {
	w.mu.Lock()
	w.live = w.since.Load()
	w.mu.Unlock()
}

// run looks after the exchanges of s until stop is closed.
func (s *Server) sweep(stop <-chan struct{}) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			now := s.now()
			s.connections.each(func(c *conn) { c.lookAfter(now) })
		}
	}
}

// lookAfter ends an exchange whose client has left (EDGE: client disconnect) or
// takes the answer too slowly, or which must not go on.
func (c *conn) lookAfter(now time.Time) {
	w := &c.watch
	since := w.since.Load()
	at := now.UnixNano()
	if since <= heading || at-since < int64(sweepEvery) {
		return
	}
	if w.of != since {
		w.of, w.next = since, 0
		w.outward = outward{meter: c.server.outward.Begin()}
	}
	w.seen = view{}
	if at >= w.next {
		w.next = at + min(max((at-since)/2, int64(sweepEvery)), int64(lookAtMost), int64(c.server.limits.WriteIdleTimeout/4))
		c.inspect()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.Load() != since {
		return
	}
	gone, slow := w.seen.left, w.seen.known && w.live != since && c.takesSlowly(now)
	if slow {
		c.cutOff()
	}
	if w.watched == nil {
		return
	}
	if gone {
		c.gone.Store(true)
	}
	if gone || slow || w.watched.Due(now, c.server.stopping.Load()) {
		w.watched.Abort()
		w.watched = nil
	}
}

// inspect asks the kernel about the connection.
func (c *conn) inspect() {
	if c.tcp == nil {
		return
	}
	w := &c.watch
	if w.look == nil {
		w.look = func(fd uintptr) {
			w.seen.left = sock.Left(fd)
			w.seen.acked, w.seen.waiting, w.seen.known = sock.Sent(fd)
		}
	}
	if raw, err := c.tcp.SyscallConn(); err != nil || raw.Control(w.look) != nil {
		w.seen = view{}
	}
}

// takesSlowly reports whether the client takes the response more slowly than
// it may. As long as bytes wait for it and it takes some, the write under way
// gets further time: its deadline would be for the whole piece, however long.
func (c *conn) takesSlowly(now time.Time) bool {
	w, rule := &c.watch, &c.server.outward
	o, seen := &w.outward, &w.seen
	if o.waiting && seen.waiting {
		taken := seen.acked - o.acked
		o.meter.Waited(rule, int64(taken), now.Sub(o.at))
		if taken > 0 && !o.meter.Spent() {
			_ = c.Conn.SetWriteDeadline(now.Add(rule.Idle))
		}
	}
	o.at, o.acked, o.waiting = now, seen.acked, seen.waiting
	return o.meter.Spent()
}

// cutOff ends a connection whose client is too slow. What it did not take is
// forgotten rather than kept by the kernel.
func (c *conn) cutOff() {
	c.slow.Store(true)
	c.gone.Store(true)
	_ = c.tcp.SetLinger(0)
	_ = c.Conn.SetWriteDeadline(past)
}

// wakeIdle ends the wait of a connection without a request.
func (c *conn) wakeIdle() {
	if c.watch.since.Load() == none {
		_ = c.Conn.SetReadDeadline(past)
	}
}
