package consul

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/hashicorp/consul/api"

	"github.com/gatehouse/gatehouse/discovery"
)

const (
	weightMeta    = "gw_weight" // multiplies Consul's own weight
	maxMetaBytes  = 64 << 10
	maxMetaWeight = 100
	maxWeight     = 65535 // Consul's own bound
)

// endpoints makes the sorted set of an answer. What is wrong with one instance
// drops only that one; dropped says which and why.
func endpoints(entries []*api.ServiceEntry) (eps []discovery.Endpoint, dropped []error) {
	eps = make([]discovery.Endpoint, 0, len(entries))
	for _, entry := range entries {
		ep, err := endpoint(entry)
		if err != nil {
			dropped = append(dropped, err)
			continue
		}
		eps = append(eps, ep)
	}
	slices.SortStableFunc(eps, func(a, b discovery.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	unique := eps[:0]
	for _, ep := range eps {
		if n := len(unique); n > 0 && unique[n-1].ID == ep.ID {
			dropped = append(dropped, fmt.Errorf("instance %q: there are two", ep.ID))
			continue
		}
		unique = append(unique, ep)
	}
	return unique, dropped
}

func endpoint(entry *api.ServiceEntry) (discovery.Endpoint, error) {
	if entry == nil || entry.Service == nil || entry.Node == nil {
		return discovery.Endpoint{}, fmt.Errorf("instance without service or node")
	}
	svc, node := entry.Service, entry.Node
	// Service ids are unique on their node only.
	id := node.Node + "/" + svc.ID
	addr := svc.Address
	if addr == "" {
		addr = node.Address
	}
	ip, err := netip.ParseAddr(addr)
	switch {
	case err != nil || ip.IsUnspecified() || ip.IsMulticast():
		return discovery.Endpoint{}, fmt.Errorf("instance %q: address %.64q is no IP address of an instance", id, addr)
	case svc.Port < 1 || svc.Port > 65535:
		return discovery.Endpoint{}, fmt.Errorf("instance %q: port %d", id, svc.Port)
	}
	size := 0
	for k, v := range svc.Meta {
		size += len(k) + len(v)
	}
	if size > maxMetaBytes {
		return discovery.Endpoint{}, fmt.Errorf("instance %q: %d bytes of meta, at most %d are taken", id, size, maxMetaBytes)
	}
	return discovery.Endpoint{
		ID:     id,
		Addr:   netip.AddrPortFrom(ip.Unmap(), uint16(svc.Port)),
		Weight: weight(svc),
		Tags:   svc.Tags,
		Meta:   svc.Meta,
	}, nil
}

// weight is Consul's weight of passing instances times the meta gw_weight. A
// value that makes no sense counts as 1: bad meta never drops traffic.
func weight(svc *api.AgentService) int {
	w := min(max(1, svc.Weights.Passing), maxWeight)
	if m, err := strconv.Atoi(svc.Meta[weightMeta]); err == nil && m >= 1 && m <= maxMetaWeight {
		w *= m
	}
	return w
}
