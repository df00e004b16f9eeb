// Package ipallow admits requests by the client's address.
//
// It owns the lists. It does not own which address is the client's: behind
// proxies that is for trusted_proxies to say (gateway/server).
//
//	routes:
//	  - path: /internal/**
//	    ip_allow: {allow: [10.0.0.0/8], deny: [10.9.0.0/16]}
package ipallow

import (
	"fmt"
	"net/http"
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "ip_allow"

// Settings are what stands under the key.
type Settings struct {
	Pos routes.Pos
	// Allow admits only these; empty: everybody who is not denied.
	Allow []netip.Prefix `yaml:"allow"`
	// Deny wins over Allow.
	Deny []netip.Prefix `yaml:"deny"`
}

// Plugin makes the steps.
type Plugin struct{}

// New returns a Plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

var refusal = &plugins.Error{Status: http.StatusForbidden, Code: plugins.AddressDenied}

// Build implements plugins.Plugin: nil for a route without ip_allow.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	node := r.Plugin(Name)
	if node.IsZero() {
		return nil, nil
	}
	var s Settings
	if err := node.Decode(&s); err != nil {
		return nil, err
	}
	if len(s.Allow) == 0 && len(s.Deny) == 0 {
		return nil, routes.Problem{Pos: s.Pos, Message: fmt.Sprintf("route %q: %s: wants allow or deny with networks", r.Name, Name)}
	}
	allow, deny := table(s.Allow), table(s.Deny)
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			client := x.ClientIP.Unmap().WithZone("")
			if !client.IsValid() || deny.Contains(client) || len(s.Allow) > 0 && !allow.Contains(client) {
				return refusal
			}
			return next(x)
		}
	}, nil
}

// table finds an address in time that does not depend on the number of
// networks.
func table(networks []netip.Prefix) *bart.Lite {
	t := &bart.Lite{}
	for _, n := range networks {
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
		t.Insert(n)
	}
	return t
}
