package server

import (
	"net/netip"
	"sync"
)

// addresses counts the connections of each address, where they are bounded.
type addresses struct {
	mu   sync.Mutex
	open map[netip.Addr]int
}

// admitAddress counts one more connection of peer and reports whether it may
// have it. A trusted proxy brings the connections of many.
func (s *Server) admitAddress(peer netip.Addr) bool {
	limit := s.limits.MaxConnectionsPerAddress
	if limit == 0 {
		return true
	}
	a := &s.addresses
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[peer] >= limit && !contains(*s.trusted.Load(), peer) {
		s.refusedOfAddress.Add(1)
		return false
	}
	if a.open == nil {
		a.open = make(map[netip.Addr]int)
	}
	a.open[peer]++
	return true
}

// leave takes one connection of peer away.
func (a *addresses) leave(peer netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.open[peer]; n > 1 {
		a.open[peer] = n - 1
	} else {
		delete(a.open, peer)
	}
}
