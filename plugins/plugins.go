// Package plugins is the contract between the gateway and what it does to a
// request: Handler, Step, Plugin, the Exchange they share, and the Error they
// return.
//
// It owns the types; it does not own any policy (plugins/<name>), the order of
// policies (plugins/all), the wire (gateway/wire) or the rendering of errors
// (gateway/server).
//
//	func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
//		return func(next plugins.Handler) plugins.Handler {
//			return func(x *plugins.Exchange) error { … return next(x) }
//		}, nil
//	}
package plugins

import "github.com/gatehouse/gatehouse/routes"

// Handler answers one exchange. nil means that a response was written; an
// error means that nothing was written and the caller renders the error.
// Handlers are called concurrently; an Exchange belongs to one call.
type Handler func(x *Exchange) error

// Step wraps a Handler. Steps are built when a configuration is loaded, never
// while a request is served.
type Step func(next Handler) Handler

// Plugin makes the Steps of one policy. A Plugin lives as long as the process,
// so its state outlives reloads; a Step lives as long as a snapshot.
type Plugin interface {
	// Name is the key of the plugin's settings in YAML, lower case.
	Name() string
	// Build checks the route's settings and returns its Step, or nil where
	// the route does not use the plugin. It must not dial, block or start
	// goroutines: `gatehouse check` calls it too. Errors carry positions
	// (routes.Problems) and may be several, joined.
	Build(r *routes.Route) (Step, error)
}

// Retainer is implemented by plugins that keep state per route or service.
type Retainer interface {
	// Retain is called after a reload with the routes that are live now;
	// state of all others may be dropped.
	Retain(live []*routes.Route)
}

// Closer is implemented by plugins that hold what outlives requests.
type Closer interface {
	// Close is called once, when no request is under way any more.
	Close()
}

// Preflighter is implemented by the plugin that answers CORS preflights.
type Preflighter interface {
	// Preflight returns what answers OPTIONS requests by which a browser asks
	// whether it may send a request of r; nil where r has no such rules. The
	// exchange's Route is r, and no Step ran.
	Preflight(r *routes.Route) (Handler, error)
}

// Brancher is implemented by plugins that may send a request to another service
// than the one of its route.
type Brancher interface {
	Plugin
	// Branches are the route with other services; none where Build is to be
	// called as usual. The gateway finds their instances and keeps what Steps
	// need for them.
	Branches(r *routes.Route) []*routes.Route
	// BuildBranches takes Build's place for a route with Branches. others are
	// what a request of each branch goes through behind this step, to the
	// forwarder.
	BuildBranches(r *routes.Route, others []Handler) (Step, error)
}

// WithBranches returns the routes and, behind each, its branches and theirs: a
// branch goes through the plugins behind the one that made it.
func WithBranches(list []Plugin, all []*routes.Route) (whole []*routes.Route) {
	for _, r := range all {
		whole = append(whole, r)
		for i, p := range list {
			if b, ok := p.(Brancher); ok {
				whole = append(whole, WithBranches(list[i+1:], b.Branches(r))...)
			}
		}
	}
	return whole
}

// ClaimReader is implemented by plugins that read claims of a Principal.
type ClaimReader interface {
	// ClaimsRead names the claims that the route's steps ask for, so that
	// tokens are searched for them. Only routes that Build accepts are asked
	// about.
	ClaimsRead(r *routes.Route) []string
}

// ClaimsRead gathers what the plugins ask for on all routes.
func ClaimsRead(list []Plugin, all []*routes.Route) (names []string) {
	for _, p := range list {
		if reader, ok := p.(ClaimReader); ok {
			for _, r := range all {
				names = append(names, reader.ClaimsRead(r)...)
			}
		}
	}
	return names
}

// Chain wraps last in steps so that steps[0] runs first. nil steps are skipped.
func Chain(last Handler, steps ...Step) Handler {
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i] != nil {
			last = steps[i](last)
		}
	}
	return last
}
