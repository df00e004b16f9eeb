package server

import (
	"sync"
	"sync/atomic"
	"time"

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

	// Used by the sweep only.
	of, next int64
	look     func(fd uintptr)
	left     bool
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

// lookAfter ends an exchange whose client has left (EDGE: client disconnect),
// or which must not go on.
func (c *conn) lookAfter(now time.Time) {
	w := &c.watch
	since := w.since.Load()
	at := now.UnixNano()
	if since <= heading || at-since < int64(sweepEvery) {
		return
	}
	if w.of != since {
		w.of, w.next = since, 0
	}
	gone := false
	if at >= w.next {
		w.next = at + min(max((at-since)/2, int64(sweepEvery)), int64(lookAtMost))
		gone = c.hasLeft()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched == nil || w.since.Load() != since {
		return
	}
	if gone {
		c.gone.Store(true)
	}
	if gone || w.watched.Due(now, c.server.stopping.Load()) {
		w.watched.Abort()
		w.watched = nil
	}
}

// hasLeft asks the kernel whether the client closed its side.
func (c *conn) hasLeft() bool {
	if c.tcp == nil {
		return false
	}
	w := &c.watch
	if w.look == nil {
		w.look = func(fd uintptr) { w.left = sock.Left(fd) }
	}
	w.left = false
	raw, err := c.tcp.SyscallConn()
	return err == nil && raw.Control(w.look) == nil && w.left
}

// wakeIdle ends the wait of a connection without a request.
func (c *conn) wakeIdle() {
	if c.watch.since.Load() == none {
		_ = c.Conn.SetReadDeadline(past)
	}
}
