// Package bodylimit refuses requests whose content is larger than their route
// allows.
//
// It owns the setting body_limit and the counting. It does not own the bound of
// all routes (server.max_body_bytes) or the streaming of what passes.
//
//	routes:
//	  - path: /upload
//	    body_limit: 10MiB
package bodylimit

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "body_limit"

// Plugin makes the steps. It keeps no state but spare readers.
type Plugin struct {
	readers sync.Pool // of *reader
}

// New returns a Plugin.
func New() *Plugin {
	return &Plugin{readers: sync.Pool{New: func() any { return &reader{} }}}
}

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

// Build implements plugins.Plugin: nil for a route without body_limit.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	node := r.Plugin(Name)
	if node.IsZero() {
		return nil, nil
	}
	var limit routes.Size
	if err := node.Decode(&limit); err != nil {
		return nil, err
	}
	if limit == 0 {
		return nil, routes.Problems{{
			Pos:     node.Pos(),
			Message: fmt.Sprintf("route %q: %s: 0 would refuse all content; write a size, or nothing for no limit", r.Name, Name),
		}}
	}
	refusal := &plugins.Error{
		Status: http.StatusRequestEntityTooLarge,
		Code:   plugins.BodyTooLarge,
		Detail: fmt.Sprintf("At most %v are accepted here.", limit),
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			switch {
			case x.BodyLength > int64(limit):
				return refusal
			case x.BodyLength >= 0 || x.Body == nil:
				return next(x)
			}
			return p.count(x, int64(limit), refusal, next)
		}
	}, nil
}

// count lets content of unknown length pass up to limit bytes.
func (p *Plugin) count(x *plugins.Exchange, limit int64, refusal *plugins.Error, next plugins.Handler) error {
	inner := x.Body
	r := p.readers.Get().(*reader)
	*r = reader{inner: inner, left: limit, refusal: refusal}
	x.Body = r
	err := next(x)
	x.Body = inner
	cut := r.cut
	*r = reader{}
	p.readers.Put(r)
	if cut && err != nil && !errors.Is(err, refusal) {
		// Whatever the cut did to the attempt, it is the cause.
		return refusal
	}
	return err
}

// reader is the content of one request, cut off with an error beyond left.
type reader struct {
	inner   io.Reader
	left    int64
	cut     bool
	refusal *plugins.Error
}

// Read implements io.Reader. It reads one byte more than is left, to tell
// content of just the allowed size from a larger one.
func (r *reader) Read(p []byte) (int, error) {
	if r.cut {
		return 0, r.refusal
	}
	if int64(len(p)) > r.left+1 {
		p = p[:r.left+1]
	}
	n, err := r.inner.Read(p)
	if int64(n) > r.left {
		r.cut = true
		return int(r.left), r.refusal
	}
	r.left -= int64(n)
	return n, err
}
