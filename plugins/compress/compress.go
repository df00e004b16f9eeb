// Package compress encodes responses for clients that accept it: with zstd,
// brotli or gzip (RFC 9110, 8.4 and 12.5.3).
//
// It owns which responses are encoded, in which coding, and the fields that
// follow from it. It holds no response: what the service sends is encoded and
// passed on piece by piece, and flushed when the service pauses.
//
//	routes:
//	  - path: /orders/**
//	    compress: {min_size: 2KiB}
package compress

import (
	"fmt"
	"sync/atomic"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "compress"

// Settings are what stands under the key; all may be absent.
type Settings struct {
	Pos routes.Pos
	// Encodings in the order of preference; default zstd, br, gzip.
	Encodings []Coding `yaml:"encodings"`
	// MinSize is the length from which a response of known length is worth it;
	// default 1KiB.
	MinSize routes.Size `yaml:"min_size"`
	// Types are the media types that are encoded; text/* for all of a kind.
	Types []MediaType `yaml:"types"`
}

var defaultTypes = []MediaType{
	"text/*", "application/json", "application/javascript", "application/xml", "application/problem+json",
	"application/ld+json", "application/wasm", "application/graphql-response+json", "application/x-ndjson",
	"application/rss+xml", "application/atom+xml", "image/svg+xml", "font/ttf", "font/otf",
}

const defaultMinSize = 1 << 10

// mostEncoders bounds the memory that encoders take, about 1 MiB each: what
// comes above is sent as it is.
const mostEncoders = 512

// Plugin makes the steps and keeps spare encoders.
type Plugin struct {
	coders [numCodings]coder
	active atomic.Int64
	totals [numCodings]totals
}

// totals count the responses in one coding.
type totals struct{ responses, in, out atomic.Int64 }

// Total is how many responses were encoded, and their content before and
// afterwards.
type Total struct{ Responses, In, Out int64 }

// Stats tells the totals of each coding, by its name in HTTP.
func (p *Plugin) Stats() map[string]Total {
	all := make(map[string]Total, numCodings)
	for c := range p.totals {
		t := &p.totals[c]
		all[names[c]] = Total{Responses: t.responses.Load(), In: t.in.Load(), Out: t.out.Load()}
	}
	return all
}

// New returns a Plugin.
func New() *Plugin {
	p := &Plugin{}
	for c := range p.coders {
		p.coders[c].make = makers[c]
	}
	return p
}

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

// Build implements plugins.Plugin: nil for a route without compress.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	node := r.Plugin(Name)
	if node.IsZero() {
		return nil, nil
	}
	s := Settings{MinSize: defaultMinSize}
	if err := node.Decode(&s); err != nil {
		return nil, err
	}
	for i, c := range s.Encodings {
		for _, before := range s.Encodings[:i] {
			if c == before {
				return nil, routes.Problem{Pos: s.Pos, Message: fmt.Sprintf("route %q: %s: encodings: %s is there twice", r.Name, Name, names[c])}
			}
		}
	}
	if len(s.Encodings) == 0 {
		s.Encodings = []Coding{zstandard, brotliCoding, gzipCoding}
	}
	if len(s.Types) == 0 {
		s.Types = defaultTypes
	}
	u := &rule{plugin: p, encodings: s.Encodings, minSize: int64(s.MinSize), types: s.Types}
	u.streams.New = func() any { return &stream{} }
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error { return u.serve(x, next) }
	}, nil
}
