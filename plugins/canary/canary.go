// Package canary sends some of a route's requests to another service: a share
// of the callers, and who asks for it.
//
// It owns who goes where. It does not own either service: both have their own
// instances, breaker, retries and timeouts, and all steps in front of this one
// have judged the request already.
//
//	routes:
//	  - path: /orders/**
//	    service: orders
//	    canary: {service: orders-v2, weight: 5%, header: X-Canary}
package canary

import (
	"bytes"
	"strings"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Plugin makes the steps.
type Plugin struct{}

// New returns a Plugin.
func New() *Plugin { return &Plugin{} }

var _ plugins.Brancher = (*Plugin)(nil)

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return "canary" }

// Build implements plugins.Plugin: there is nothing to do without a branch.
func (p *Plugin) Build(*routes.Route) (plugins.Step, error) { return nil, nil }

// Branches implements plugins.Brancher.
func (p *Plugin) Branches(r *routes.Route) []*routes.Route {
	if r.Canary == nil || r.Canary.Route == nil {
		return nil
	}
	return []*routes.Route{r.Canary.Route}
}

// BuildBranches implements plugins.Brancher.
func (p *Plugin) BuildBranches(r *routes.Route, others []plugins.Handler) (plugins.Step, error) {
	k := r.Canary
	u := &rule{
		header: strings.ToLower(k.Header), cookie: k.Cookie, by: k.By,
		share: uint64(float64(k.Weight)*shares + 0.5), salt: salt(r.Name),
	}
	service, other := k.Service, others[0]
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if u.chosen(x) {
				x.Record.Service = service
				return other(x)
			}
			return next(x)
		}
	}, nil
}

// shares is how fine a weight is.
const shares = 1 << 20

// rule says who goes to the other service.
type rule struct {
	header, cookie string
	by             string
	share          uint64 // of shares
	salt           uint64 // the route's, so that not always the same callers go first
}

func (u *rule) chosen(x *plugins.Exchange) bool {
	if u.header != "" {
		if v, n := x.Field(u.header); n == 1 {
			if yes, known := choice(v); known {
				return yes
			}
		}
	}
	if u.cookie != "" {
		if yes, known := choice(cookie(x, u.cookie)); known {
			return yes
		}
	}
	return u.share > 0 && u.caller(x)%shares < u.share
}

// choice reads what a caller asks for; known is false where it is neither.
func choice(v []byte) (yes, known bool) {
	switch string(v) {
	case "true", "1", "always":
		return true, true
	case "false", "0", "never":
		return false, true
	}
	return false, false
}

// cookie returns the value of the first cookie called name (RFC 6265, 5.4);
// nil if there is none.
func cookie(x *plugins.Exchange, name string) []byte {
	for i := range x.Fields {
		f := &x.Fields[i]
		if len(f.Name) != len("cookie") || !bytes.EqualFold(f.Name, []byte("cookie")) {
			continue
		}
		for pair := range bytes.SplitSeq(f.Value, []byte(";")) {
			if key, value, ok := bytes.Cut(bytes.TrimSpace(pair), []byte("=")); ok && string(key) == name {
				return value
			}
		}
	}
	return nil
}

// caller is a number that stays the same for a caller, on every replica and
// over restarts.
func (u *rule) caller(x *plugins.Exchange) uint64 {
	h := u.salt
	if p := x.Principal; p != nil && u.by != "ip" {
		id := p.Subject
		if u.by == "client" {
			id = p.ClientID
		}
		h = add(add(h, p.Issuer), id)
	} else {
		for _, b := range x.ClientIP.As16() {
			h = (h ^ uint64(b)) * prime
		}
	}
	// FNV's low bits alone would follow the last bytes too closely.
	h ^= h >> 32
	h *= 0x9E3779B97F4A7C15
	return h >> 32
}

const prime = 1099511628211 // of FNV-1a

func salt(route string) uint64 { return add(14695981039346656037, route) }

func add(h uint64, s string) uint64 {
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * prime
	}
	return (h ^ 0xFF) * prime // the end of one text is not the start of the next
}
