package static

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/gatehouse/gatehouse/discovery"
)

const (
	// every is the time between two look-ups of a name that can be found, and
	// between two confirmations of addresses.
	every         = 30 * time.Second
	lookupTimeout = 5 * time.Second
	retryMin      = time.Second
)

// Config is what a Source needs from outside; the zero value is usable.
type Config struct {
	// Resolver replaces net.DefaultResolver.
	Resolver Resolver
	// Report, when not nil, is told of failed look-ups. It must not block.
	Report func(q discovery.Query, err error)
}

// Source is a discovery.Source over the queries of Parse. It is safe for
// concurrent use.
type Source struct {
	resolver Resolver
	report   func(discovery.Query, error)
}

// New returns a Source.
func New(c Config) *Source {
	s := &Source{resolver: c.Resolver, report: c.Report}
	if s.resolver == nil {
		s.resolver = net.DefaultResolver
	}
	if s.report == nil {
		s.report = func(discovery.Query, error) {}
	}
	return s
}

// Watch implements discovery.Source. A query that is not of Parse is an error
// at once.
func (s *Source) Watch(ctx context.Context, q discovery.Query, found func([]discovery.Endpoint)) error {
	targets, err := targetsOf(q)
	if err != nil {
		return err
	}
	last := map[string][]netip.Addr{} // by host, the last good answer
	failures := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		changed, err := s.resolve(ctx, targets, last)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		next := every
		if err != nil {
			s.report(q, err)
			next = min(every, retryMin<<min(failures, 10))
			failures++
		} else {
			failures = 0
		}
		// An old set is confirmed only by look-ups that all went well.
		if eps := endpoints(targets, last); len(eps) > 0 && (changed || err == nil) {
			found(eps)
		}
		timer.Reset(next)
	}
}

// resolve looks up each name and updates last with the answers.
func (s *Source) resolve(ctx context.Context, targets []target, last map[string][]netip.Addr) (changed bool, err error) {
	var errs []error
	done := map[string]bool{}
	for _, t := range targets {
		if t.isIP() || done[t.host] {
			continue
		}
		done[t.host] = true
		addrs, err := s.lookup(ctx, t.host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !slices.Equal(last[t.host], addrs) {
			last[t.host], changed = addrs, true
		}
	}
	return changed, errors.Join(errs...)
}

func (s *Source) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := s.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", host, err)
	}
	addrs := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		if a = a.Unmap(); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("look up %s: no usable address", host)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), nil
}

// endpoints is the sorted set. Two names may share an address: one instance.
func endpoints(targets []target, known map[string][]netip.Addr) []discovery.Endpoint {
	byAddr := map[netip.AddrPort]discovery.Endpoint{}
	for _, t := range targets {
		if ip, err := netip.ParseAddr(t.host); err == nil {
			add(byAddr, netip.AddrPortFrom(ip, t.port))
			continue
		}
		for _, ip := range known[t.host] {
			add(byAddr, netip.AddrPortFrom(ip, t.port))
		}
	}
	return slices.SortedFunc(maps.Values(byAddr), func(a, b discovery.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
}

func add(byAddr map[netip.AddrPort]discovery.Endpoint, ap netip.AddrPort) {
	byAddr[ap] = discovery.Endpoint{ID: ap.String(), Addr: ap, Weight: 1}
}
