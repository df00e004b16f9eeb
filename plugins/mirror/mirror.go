// Package mirror sends a copy of a share of a route's requests to another
// service and forgets the answers.
//
// It owns the copies and how many are under way. It does not delay the client:
// what is above the bound, or has content that is not small, is not copied.
//
//	routes:
//	  - path: /orders/**
//	    service: orders
//	    mirror: {service: orders-v2, share: 10%}
package mirror

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// mostContent is the length up to which content is copied; the forwarder reads
// that much before it asks an instance, too.
const mostContent = 16 << 10

// Plugin makes the steps and waits for the copies.
type Plugin struct {
	now     func() time.Time
	running sync.WaitGroup

	sent, failed, dropped atomic.Uint64
}

// Stats counts copies: sent and answered, failed, and those that were not made
// because too many were under way or the content was not small.
func (p *Plugin) Stats() (sent, failed, dropped uint64) {
	return p.sent.Load(), p.failed.Load(), p.dropped.Load()
}

// New returns a Plugin; now nil is time.Now. Close it when no request is under
// way any more.
func New(now func() time.Time) *Plugin {
	if now == nil {
		now = time.Now
	}
	return &Plugin{now: now}
}

var _ plugins.Brancher = (*Plugin)(nil)

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return "mirror" }

// Close implements plugins.Closer: it waits for the copies under way, which the
// timeouts of their service bound.
func (p *Plugin) Close() { p.running.Wait() }

// Build implements plugins.Plugin: there is nothing to do without a branch.
func (p *Plugin) Build(*routes.Route) (plugins.Step, error) { return nil, nil }

// Branches implements plugins.Brancher.
func (p *Plugin) Branches(r *routes.Route) []*routes.Route {
	if r.Mirror == nil || r.Mirror.Route == nil {
		return nil
	}
	return []*routes.Route{r.Mirror.Route}
}

// BuildBranches implements plugins.Brancher.
func (p *Plugin) BuildBranches(r *routes.Route, others []plugins.Handler) (plugins.Step, error) {
	u := &rule{
		plugin: p, route: r.Mirror.Route, share: float64(r.Mirror.Share), most: int64(r.Mirror.MaxInFlight), other: others[0],
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			u.mirror(x)
			return next(x)
		}
	}, nil
}

// rule is what a route mirrors.
type rule struct {
	plugin   *Plugin
	route    *routes.Route
	share    float64
	most     int64
	inFlight atomic.Int64
	other    plugins.Handler
}

// mirror starts a copy of x, or does nothing.
func (u *rule) mirror(x *plugins.Exchange) {
	if u.share < 1 && rand.Float64() >= u.share || x.WebSocket {
		return
	}
	if !small(x) {
		u.plugin.dropped.Add(1)
		return
	}
	if u.inFlight.Add(1) > u.most {
		u.inFlight.Add(-1)
		u.plugin.dropped.Add(1)
		return
	}
	copied := u.duplicate(x)
	u.plugin.running.Go(func() { u.send(copied) })
}

// send asks the other service. A defect on the way costs the copy, never the
// process.
func (u *rule) send(x *plugins.Exchange) {
	defer u.inFlight.Add(-1)
	result := &u.plugin.failed
	defer func() {
		_ = recover()
		result.Add(1)
	}()
	if u.other(x) == nil {
		result = &u.plugin.sent
	}
}

// small reads small content whole, as the forwarder would, and reports whether
// all content of x is known. Where reading fails, the forwarder finds the same.
func small(x *plugins.Exchange) bool {
	switch {
	case x.Body == nil || len(x.Content) > 0:
		return true
	case x.BodyLength < 0 || x.BodyLength > mostContent:
		return false
	}
	content := slices.Grow(x.Content[:0], int(x.BodyLength))[:x.BodyLength]
	if _, err := io.ReadFull(x.Body, content); err != nil {
		return false
	}
	x.Content = content
	return true
}

// duplicate copies what x lends. The identity JWT is not copied: it was made
// for another service.
func (u *rule) duplicate(x *plugins.Exchange) *plugins.Exchange {
	c := &plugins.Exchange{
		Method: bytes.Clone(x.Method), Host: bytes.Clone(x.Host), Authority: bytes.Clone(x.Authority),
		Path: bytes.Clone(x.Path), Query: bytes.Clone(x.Query), HasQuery: x.HasQuery,
		Fields: make([]plugins.Field, 0, len(x.Fields)), BodyLength: x.BodyLength, TLS: x.TLS, ClientCert: x.ClientCert,
		Peer: x.Peer, ClientIP: x.ClientIP, Time: u.plugin.now(), RequestID: bytes.Clone(x.RequestID),
		Forwarding: bytes.Clone(x.Forwarding), Route: u.route, Principal: x.Principal, Client: discard{},
	}
	c.SetTarget(x.Target())
	for i := range x.Fields {
		f := x.Fields[i]
		if f.Drop {
			continue
		}
		f.Name, f.Value, f.Line = bytes.Clone(f.Name), bytes.Clone(f.Value), bytes.Clone(f.Line)
		c.Fields = append(c.Fields, f)
	}
	if x.Body != nil {
		c.Content = bytes.Clone(x.Content)
		c.Body = bytes.NewReader(nil)
	}
	return c
}

// discard is the client of a copy: nobody.
type discard struct{}

var errNobody = errors.New("a copy has no client")

var _ plugins.Stream = discard{}

// WriteHead and all others implement plugins.Stream.
func (discard) WriteHead(plugins.ResponseHead) error                 { return nil }
func (discard) Write(p []byte) (int, error)                          { return len(p), nil }
func (discard) Flush() error                                         { return nil }
func (discard) Finish() error                                        { return nil }
func (discard) Interim(int, []byte) error                            { return nil }
func (discard) Continue() error                                      { return nil }
func (discard) StopReading()                                         {}
func (discard) Trailer([]byte)                                       {}
func (discard) Upgrade(plugins.ResponseHead) (plugins.Tunnel, error) { return nil, errNobody }
func (discard) Watch(plugins.Watched)                                {}
func (discard) Gone() bool                                           { return false }
