package upstream

import (
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pool holds an instance's connections: the idle ones in stacks, each with a
// lock of its own, so that no lock is shared by all requests; and the number
// of all, which is limited.
type pool struct {
	inst   *Instance
	shards []shard // a power of two
	open   atomic.Int64
	queue  queue
}

// shard is a stack: the connection used last is the one whose memory is still
// in the processor's cache, and the others can grow old.
type shard struct {
	mu      sync.Mutex
	idle    []*Conn
	retired bool
	n       atomic.Int32 // len(idle), to be read without the lock
	_       [88]byte
}

func (p *pool) init(inst *Instance) {
	p.inst = inst
	n := min(1<<bits.Len(uint(runtime.GOMAXPROCS(0)-1)), 64)
	p.shards = make([]shard, n)
}

// pop takes an idle connection, nil if there is none.
func (p *pool) pop() *Conn {
	home := uint32(rand.Uint64())
	for i := range p.shards {
		s := &p.shards[(home+uint32(i))&uint32(len(p.shards)-1)]
		if s.n.Load() == 0 {
			continue
		}
		s.mu.Lock()
		if last := len(s.idle) - 1; last >= 0 {
			c := s.idle[last]
			s.idle[last] = nil
			s.idle = s.idle[:last]
			s.n.Store(int32(last))
			s.mu.Unlock()
			return c
		}
		s.mu.Unlock()
	}
	return nil
}

// push makes c idle; false when the pool is retired.
func (p *pool) push(c *Conn) bool {
	s := &p.shards[c.home&uint32(len(p.shards)-1)]
	s.mu.Lock()
	if s.retired {
		s.mu.Unlock()
		return false
	}
	s.idle = append(s.idle, c)
	s.n.Store(int32(len(s.idle)))
	s.mu.Unlock()
	// The order matters: a waiter first joins the queue and then looks into
	// the stacks, so one of us sees the other.
	if p.queue.length.Load() > 0 {
		p.serve()
	}
	return true
}

// reserve counts one more connection if the limit allows it.
func (p *pool) reserve() bool {
	for {
		n := p.open.Load()
		if n >= int64(p.inst.svc.cfg.MaxConnsPerInstance) {
			return false
		}
		if p.open.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// free gives a reservation back.
func (p *pool) free() {
	p.open.Add(-1)
	if p.queue.length.Load() > 0 {
		p.serve()
	}
}

// retire closes the idle connections and lets no others become idle.
func (p *pool) retire() { p.cut(func(*Conn) bool { return true }, true) }

// sweep closes what was idle for too long.
func (p *pool) sweep(now time.Duration) {
	p.cut(func(c *Conn) bool { return now-c.idleSince >= c.sock.maxIdle }, false)
}

func (p *pool) cut(old func(*Conn) bool, retire bool) {
	var out []*Conn
	for i := range p.shards {
		s := &p.shards[i]
		if !retire && s.n.Load() == 0 {
			continue
		}
		s.mu.Lock()
		s.retired = s.retired || retire
		s.idle = slices.DeleteFunc(s.idle, func(c *Conn) bool {
			if old(c) {
				out = append(out, c)
				return true
			}
			return false
		})
		s.n.Store(int32(len(s.idle)))
		s.mu.Unlock()
	}
	for _, c := range out {
		c.sock.close(true)
		p.free()
	}
}

func (p *pool) count() (open, idle int) {
	for i := range p.shards {
		idle += int(p.shards[i].n.Load())
	}
	return int(p.open.Load()), idle
}

// queue has those who wait because the limit is reached.
type queue struct {
	mu      sync.Mutex
	waiters []*waiter
	length  atomic.Int32
}

// waiter gets a connection, or nil for the right to make one.
type waiter struct{ ready chan *Conn }

// serve gives what is free to those who wait, first come, first served.
func (p *pool) serve() {
	q := &p.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiters) > 0 {
		c := p.pop()
		if c == nil && !p.reserve() {
			return
		}
		q.waiters[0].ready <- c // has room for one and gets only one
		q.waiters = slices.Delete(q.waiters, 0, 1)
		q.length.Store(int32(len(q.waiters)))
	}
}

// wait blocks until a connection (nil: the right to make one) is free.
func (p *pool) wait(deadline time.Time) (*Conn, error) {
	svc := p.inst.svc
	cfg := &svc.cfg
	defer svc.pending.Add(-1)
	if svc.pending.Add(1) > int64(cfg.MaxPending) || cfg.PendingWait < 0 {
		return nil, &Error{Kind: ErrBusy, Phase: PhaseQueue}
	}
	q, w := &p.queue, &waiter{make(chan *Conn, 1)}
	q.mu.Lock()
	q.waiters = append(q.waiters, w)
	q.length.Store(int32(len(q.waiters)))
	q.mu.Unlock()
	p.serve()

	left := deadline.Sub(svc.now())
	timer := time.NewTimer(min(cfg.PendingWait, left))
	defer timer.Stop()
	select {
	case c := <-w.ready:
		return c, nil
	case <-timer.C:
	}
	q.mu.Lock()
	at := slices.Index(q.waiters, w)
	if at >= 0 {
		q.waiters = slices.Delete(q.waiters, at, at+1)
		q.length.Store(int32(len(q.waiters)))
	}
	q.mu.Unlock()
	switch {
	case at < 0:
		return <-w.ready, nil // came at the last moment
	case left < cfg.PendingWait:
		return nil, &Error{Kind: ErrTimeout, Phase: PhaseQueue}
	}
	return nil, &Error{Kind: ErrBusy, Phase: PhaseQueue}
}
