package upstream

import (
	"hash/fnv"
	"net/netip"
	"sync/atomic"

	"github.com/gatehouse/gatehouse/discovery"
)

// Instance is one instance of a service. It comes from Service.Pick, and Done
// must follow exactly once for every Pick.
type Instance struct {
	svc    *Service
	number uint64
	id     string
	addr   netip.AddrPort
	seed   uint64 // of Hash: equal in every gateway
	weight int    // guarded by Service.mu
	health health
	pool   pool
	// streams is the pool where HTTP/2 is spoken, else nil.
	streams *streams

	_ [64]byte
	// load has the requests in flight in its lower and all requests in its
	// upper half, so that a request costs two atomic operations.
	load     atomic.Uint64
	failures atomic.Uint64
	_        [48]byte
}

const onePick = 1<<32 | 1

func newInstance(s *Service, ep discovery.Endpoint, number uint64) *Instance {
	h := fnv.New64a()
	_, _ = h.Write([]byte(ep.ID))
	_, _ = h.Write([]byte(ep.Addr.String()))
	inst := &Instance{svc: s, number: number, id: ep.ID, addr: ep.Addr, seed: h.Sum64()}
	inst.pool.init(inst)
	if s.cfg.HTTP2 {
		inst.streams = newStreams(inst)
	}
	return inst
}

// HTTP2 reports whether requests go through RoundTrip.
func (i *Instance) HTTP2() bool { return i.streams != nil }

func (i *Instance) retire() {
	i.pool.retire()
	if i.streams != nil {
		i.streams.retire()
	}
}

func (i *Instance) connections() (open, idle int) {
	if i.streams != nil {
		return i.streams.count()
	}
	return i.pool.count()
}

// Number identifies the instance within its Service; it is never 0 and never
// reused.
func (i *Instance) Number() uint64 { return i.number }

// Addr is the instance's address.
func (i *Instance) Addr() netip.AddrPort { return i.addr }

// Done ends what Pick began and tells how it went.
func (i *Instance) Done(o Outcome) {
	i.load.Add(^uint64(0))
	if i.streams != nil {
		i.streams.ended()
	}
	switch o {
	case Success:
		if i.health.streak.Load() != 0 {
			i.health.streak.Store(0)
		}
		if i.health.phase.Load() == probation {
			i.svc.probed(i)
		}
	case Failure:
		i.failures.Add(1)
		// A full streak that could not eject asks again only after another.
		if n := i.health.streak.Add(1); n%ejectStreak == 0 || i.health.phase.Load() == probation {
			i.svc.eject(i)
		}
	}
}

func (i *Instance) inFlight() int    { return int(uint32(i.load.Load())) }
func (i *Instance) requests() uint32 { return uint32(i.load.Load() >> 32) }
