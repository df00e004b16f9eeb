// Package upstream is the gateway's way to the instances of a service: which
// instance to ask, and an HTTP/1.1 connection or an HTTP/2 stream to it.
//
// It owns the balancing, the ejection of failing instances, the connection
// pools, the socket deadlines and the framing of messages (where a head ends,
// how content is delimited). It does not own discovery (discovery), the
// meaning of a head (gateway/wire), header policy (gateway/forward), nor
// retries and circuit breaking (plugins).
//
//	svc := upstream.NewService(upstream.Config{Name: "orders"}, time.Now)
//	svc.Update(endpoints)
//	inst := svc.Pick(0, 0)                   // nil: no instance
//	conn, err := inst.Conn(deadline)
//	conn.Out = append(conn.Out, head...)
//	answer, err := conn.RoundTrip(deadline)  // parse it, then tell the framing
//	conn.BodyLength(n)
//	for p, err := conn.Next(deadline); err == nil; p, err = conn.Next(deadline) { … }
//	conn.Release(keepAlive)
//	inst.Done(upstream.Judge(status, err))
package upstream

import (
	"context"
	"crypto/tls"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
)

// Balance says how a Service chooses among its instances.
type Balance uint8

const (
	// P2C takes the less loaded of two instances drawn by weight.
	P2C Balance = iota
	// RoundRobin takes one after the other; with unequal weights each gets its
	// share in an even order.
	RoundRobin
	// Hash keeps a key on its instance as long as that instance is usable
	// (rendezvous hashing: others keep their keys when one comes or goes).
	Hash
)

// Config describes a service's transport. Zero values take the default.
type Config struct {
	Name string
	// TLS is used towards every instance; nil means plaintext. An empty
	// ServerName stands for the instance's address. It is not modified.
	TLS *tls.Config
	// HTTP2 is spoken to every instance, by ALPN or with prior knowledge:
	// requests go through Instance.RoundTrip, and there are no Conns.
	HTTP2 bool
	// Connect bounds dialling and the TLS handshake together (1 s).
	Connect time.Duration
	// Idle is how long an unused connection is kept (55 s); each connection
	// draws up to 4 s less, so that they do not end together. It should be
	// less than the instances' own limit.
	Idle time.Duration
	// MaxAge is the age at which a connection is no longer reused (30 min).
	MaxAge time.Duration
	// MaxConnsPerInstance limits connections, hence requests in flight (512).
	MaxConnsPerInstance int
	// MaxPending limits how many callers of Conn wait for a connection, of all
	// instances together (256), and PendingWait for how long (10 ms). Negative:
	// none.
	MaxPending  int
	PendingWait time.Duration
	// MaxHead limits a response's head in bytes (64 KiB, which is the most).
	MaxHead int
	Balance Balance
}

func (c Config) withDefaults() Config {
	setDefault(&c.Connect, time.Second)
	setDefault(&c.Idle, 55*time.Second)
	setDefault(&c.MaxAge, 30*time.Minute)
	setDefault(&c.MaxConnsPerInstance, 512)
	setDefault(&c.MaxPending, 256)
	setDefault(&c.PendingWait, 10*time.Millisecond)
	setDefault(&c.MaxHead, largeBuffer)
	c.MaxHead = min(c.MaxHead, largeBuffer)
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
		if len(c.TLS.NextProtos) == 0 {
			c.TLS.NextProtos = []string{"http/1.1"}
			if c.HTTP2 {
				c.TLS.NextProtos = []string{protoHTTP2}
			}
		}
		if c.TLS.ClientSessionCache == nil {
			c.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(0)
		}
	}
	return c
}

func setDefault[T int | time.Duration](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

// Service is the set of instances of one upstream service. All methods may be
// called concurrently.
type Service struct {
	cfg   Config
	now   func() time.Time
	start time.Time
	large sync.Pool // of *[largeBuffer]byte
	wake  chan struct{}

	view atomic.Pointer[view]
	// pending counts the callers of Instance.Conn that wait.
	pending atomic.Int64
	// coarse is the time of the last tick, in nanoseconds since start.
	coarse atomic.Int64
	_      [64]byte
	turns  atomic.Uint64 // of RoundRobin
	_      [64]byte

	mu         sync.Mutex // guards what follows and every instance's health
	instances  []*Instance
	lastNumber uint64
	lastSample time.Time
	closed     bool
}

// moment is t in nanoseconds since the Service was made.
func (s *Service) moment(t time.Time) int64 { return max(int64(t.Sub(s.start)), 1) }

// NewService returns a Service without instances. now must be the real clock
// where connections are used, because sockets keep that one.
func NewService(cfg Config, now func() time.Time) *Service {
	s := &Service{cfg: cfg.withDefaults(), now: now, start: now(), wake: make(chan struct{}, 1)}
	s.large.New = func() any { return new([largeBuffer]byte) }
	s.view.Store(&view{})
	return s
}

// Update makes eps the service's instances. An instance that stays (same ID
// and address) keeps its connections and statistics. One that is missing gets
// no new requests: its idle connections are closed now, the others after
// their exchange. Endpoints without a usable address are skipped.
func (s *Service) Update(eps []discovery.Endpoint) {
	for _, gone := range s.replace(eps) {
		gone.retire()
	}
}

// replace makes eps the instances and returns those that are no longer.
func (s *Service) replace(eps []discovery.Endpoint) []*Instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	type key struct {
		id   string
		addr netip.AddrPort
	}
	old := make(map[key]*Instance, len(s.instances))
	for _, inst := range s.instances {
		old[key{inst.id, inst.addr}] = inst
	}
	next := make([]*Instance, 0, len(eps))
	seen := make(map[key]bool, len(eps))
	for _, ep := range eps {
		k := key{ep.ID, ep.Addr}
		if !ep.Addr.IsValid() || ep.Addr.Port() == 0 || seen[k] {
			continue
		}
		seen[k] = true
		inst := old[k]
		if inst == nil {
			s.lastNumber++
			inst = newInstance(s, ep, s.lastNumber)
		}
		delete(old, k)
		inst.weight = max(ep.Weight, 1)
		next = append(next, inst)
	}
	s.instances = next
	s.publishLocked(s.now())
	return slices.Collect(maps.Values(old))
}

// Close gives up all instances, as Update(nil) does, for good.
func (s *Service) Close() {
	s.Update(nil)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

// Run does the periodic work until ctx ends, and returns ctx.Err(): it lets
// ejected instances return, closes idle connections and samples error rates.
// Without it ejected instances stay ejected.
func (s *Service) Run(ctx context.Context) error {
	timer := time.NewTimer(tickEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case <-s.wake:
		}
		timer.Reset(s.tick(s.now()))
	}
}

// tick does what is due at now and tells how long nothing else will be.
func (s *Service) tick(now time.Time) time.Duration {
	s.coarse.Store(int64(now.Sub(s.start)))
	s.mu.Lock()
	wait := s.judgeLocked(now)
	instances := s.instances
	s.mu.Unlock()
	for _, inst := range instances {
		inst.pool.sweep(now.Sub(s.start))
	}
	return wait
}

// Status is a snapshot of a service for people and metrics.
type Status struct {
	Name string
	// Panic tells that so few instances are usable that all are used.
	Panic bool
	// Pending counts requests that wait for a connection.
	Pending   int
	Instances []InstanceStatus
}

// InstanceStatus is a snapshot of one instance.
type InstanceStatus struct {
	Number uint64
	ID     string
	Addr   netip.AddrPort
	Weight int
	// Share is the part of Weight in use: 0 while ejected, less than 1 in the
	// slow start afterwards.
	Share    float64
	InFlight int
	// Open counts connections, Idle those of them that wait in the pool.
	Open, Idle int
	// Failures counts gateway failures since the instance is known.
	Failures uint64
	// Ejections counts how often it was ejected of late; good conduct lowers
	// it. EjectedUntil is zero while it is not ejected.
	Ejections    int
	EjectedUntil time.Time
}

// Status reports all instances in the order of the last Update.
func (s *Service) Status() Status {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Name: s.cfg.Name, Panic: s.view.Load().panic, Pending: int(s.pending.Load())}
	for _, inst := range s.instances {
		i := InstanceStatus{
			Number: inst.number, ID: inst.id, Addr: inst.addr, Weight: inst.weight,
			Share:    float64(inst.health.shareLocked(now)) / fullShare,
			InFlight: inst.inFlight(), Failures: inst.failures.Load(),
			Ejections: inst.health.ejections,
		}
		i.Open, i.Idle = inst.connections()
		if inst.health.phase.Load() == ejected {
			i.EjectedUntil = inst.health.until
		}
		st.Instances = append(st.Instances, i)
	}
	return st
}
