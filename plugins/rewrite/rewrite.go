// Package rewrite changes the path that a service receives: leading segments
// taken away, a regular expression, a prefix put in front.
//
// It owns what becomes of the path. It does not own the rules of the setting
// (routes) and changes nothing but what is forwarded: a request is routed,
// authorised and limited by the path that the client asked for.
//
//	routes:
//	  - path: /v1/**
//	    rewrite: {strip_prefix: /v1, add_prefix: /api}
package rewrite

import (
	"net/http"
	"sync"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Plugin makes the steps.
type Plugin struct{}

// New returns a Plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return "rewrite" }

// Build implements plugins.Plugin: nil for a route without rewrite.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	w := r.Rewrite
	if w == nil {
		return nil, nil
	}
	c := &change{strip: w.StripPrefix, add: w.AddPrefix}
	if w.Regex != "" {
		var err error
		if c.regex, err = w.Compile(r.AllowEncodedSlash); err != nil {
			return nil, routes.Problem{Pos: w.Pos, Message: "route \"" + r.Name + "\": rewrite: " + err.Error()}
		}
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if !c.apply(x) {
				return refusal
			}
			return next(x)
		}
	}, nil
}

var refusal = &plugins.Error{
	Status: http.StatusBadRequest, Code: plugins.BadRequest, Detail: "The path cannot be rewritten for the service.",
}

// change is what a route does to paths.
type change struct {
	strip, add string
	regex      *routes.PathRegex
	buffers    sync.Pool // of *[]byte
}

// apply sets the target; false where it would not be canonical.
func (c *change) apply(x *plugins.Exchange) bool {
	path := c.stripped(x.Path)
	if c.regex == nil && c.add == "" {
		x.SetTarget(path)
		return true
	}
	buffer, _ := c.buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	ok := true
	b := append((*buffer)[:0], c.add...)
	if c.regex == nil {
		b = append(b, path...)
	} else {
		b, ok = c.regex.Append(b, path)
	}
	x.SetTarget(b)
	*buffer = b
	c.buffers.Put(buffer)
	return ok
}

// stripped is what is left of a canonical path after whole leading segments;
// that is canonical again (EDGE: S33).
func (c *change) stripped(path []byte) []byte {
	n := len(c.strip)
	switch {
	case n == 0 || len(path) < n || string(path[:n]) != c.strip:
		return path
	case len(path) == n:
		return slash
	case path[n] != '/':
		return path // another segment that begins alike
	}
	return path[n:]
}

var slash = []byte("/")
