// Package discovery tells which instances of a service exist and may be called.
//
// It owns the contract between the gateway and whoever knows the instances (a
// Consul catalogue, a static list), and the Cache that keeps the last good set
// when that source is away. It does not judge health from traffic: that is
// gateway/upstream.
//
//	cache := discovery.NewCache(source)
//	release := cache.Acquire(discovery.Query{Service: "orders"}, pool.Update)
//	defer release()
package discovery

import (
	"context"
	"net/netip"
)

// Endpoint is one instance of a service. Values are immutable once found.
type Endpoint struct {
	// ID is unique within the service and stable over re-registrations of the
	// same instance.
	ID   string
	Addr netip.AddrPort
	// Weight is the relative share of requests; at least 1.
	Weight int
	Tags   []string
	Meta   map[string]string
}

// Query names what is watched: a service and, when Tag is not empty, only its
// instances with that tag. It is comparable, so it can be a map key.
type Query struct {
	Service string
	Tag     string
}

// Source finds the instances of services.
type Source interface {
	// Watch calls found with the complete set of usable instances, first as
	// soon as it is known and then after every change or confirmation, sorted
	// by ID, until ctx ends; then it returns ctx.Err(). It retries failures of
	// the source by itself and never reports a failure as an empty set. found
	// is called from one goroutine and must not block; it must not modify the
	// slice.
	Watch(ctx context.Context, q Query, found func([]Endpoint)) error
}
