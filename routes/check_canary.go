package routes

import (
	"maps"
	"slices"
	"strings"
)

// canary checks the other service of a route and makes the route to it.
func (c *checker) canary(r *Route) {
	k := r.Canary
	if c.broken(&r.Canary) || !c.required(&k.Service, "canary: service", k.Pos) {
		return
	}
	if c.oneOf(&k.By, "by", k.Pos, "subject", "client", "ip") && r.Public && k.By != "ip" && !c.broken(&k.By) {
		c.report(c.at(&k.By, k.Pos), "by: %s needs to know who calls, and the route %q is public; write ip", k.By, r.Name)
	}
	if !c.written(&k.Weight) && !c.written(&k.Header) && !c.written(&k.Cookie) {
		c.report(k.Pos, "canary: wants weight, header or cookie, or nobody gets there")
	}
	if c.written(&k.Header) && !c.broken(&k.Header) {
		c.fieldName(&k.Header, "header", k.Pos)
	}
	if c.written(&k.Cookie) && !c.broken(&k.Cookie) &&
		(k.Cookie == "" || strings.Trim(k.Cookie, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "") {
		c.report(c.at(&k.Cookie, k.Pos), "cookie: %q may have letters, digits, '-', '_' and '.' only", k.Cookie)
	}
	pos := c.at(&k.Service, k.Pos)
	if k.Service == r.Service {
		c.report(pos, "canary: service: %q is the route's own", k.Service)
	}
	k.Route = c.branch(r, k.Service, pos)
}

// branch is r with another service; nil after a problem.
func (c *checker) branch(r *Route, service string, pos Pos) *Route {
	other := c.file.Services[service]
	if other == nil {
		if !c.broken(&c.file.Services) {
			names := slices.Collect(maps.Keys(c.file.Services))
			c.suggest(pos, nearest(service, names), "unknown service %q; declared: %s", service, declared(names))
		}
		return nil
	}
	branch := *r
	branch.Service, branch.Upstream, branch.Canary, branch.Mirror = service, other, nil, nil
	if branch.Timeout > 0 {
		own := *other
		own.Timeouts.Request = branch.Timeout
		branch.Upstream = &own
	}
	return &branch
}
