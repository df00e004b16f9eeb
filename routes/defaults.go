package routes

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Keys that defaults: may give to every service and route. Those that could
// open a route (public, mode) have no defaults.
var (
	serviceDefaults = []string{"protocol", "balance", "timeouts", "retries", "breaker", "identity", "max_connections", "max_pending", "min_response_rate", "rate_grace"}
	routeDefaults   = []string{"hosts", "auth", "rate_limit", "streams"}
)

// spreadDefaults takes defaults: {services: …, routes: …} out of the file and
// adds what is there to every service and route that does not have it. Mappings
// are joined key by key; anything else on the service or route replaces the
// default. Defaults of auth: do not reach routes that name public:.
func spreadDefaults(root *node, plugins []string) (problems Problems) {
	defaults := root.take("defaults")
	if defaults == nil {
		return nil
	}
	report := func(pos Pos, suggestion, format string, args ...any) {
		problems = append(problems, Problem{Pos: pos, Message: fmt.Sprintf(format, args...), Suggestion: suggestion})
	}
	allowed := map[string][]string{
		"services": serviceDefaults,
		"routes":   append(slices.Clone(routeDefaults), plugins...),
	}
	if defaults.value.kind != mapping {
		report(defaults.value.pos, "", "defaults: wants a mapping with the keys services and routes")
		return problems
	}
	for _, section := range defaults.value.entries {
		keys, known := allowed[section.key]
		if !known {
			report(section.pos, nearest(section.key, []string{"services", "routes"}), "unknown key %q; defaults: knows services and routes", section.key)
			continue
		}
		if section.value.kind != mapping {
			report(section.value.pos, "", "%s: wants a mapping", section.key)
			continue
		}
		for _, e := range section.value.entries {
			if !slices.Contains(keys, e.key) {
				report(e.pos, nearest(e.key, keys), "%q has no default for all %s; those that have one: %s", e.key, section.key, strings.Join(keys, ", "))
			}
		}
		for _, target := range targets(root, section.key) {
			fill(target, section.value)
		}
	}
	return problems
}

// targets are the mappings of a section: the values of services, the items of
// routes.
func targets(root *node, section string) (found []*node) {
	e := root.find(section)
	if e == nil {
		return nil
	}
	for _, item := range e.value.items {
		if item.kind == mapping {
			found = append(found, item)
		}
	}
	for _, service := range e.value.entries {
		if service.value.kind == mapping {
			found = append(found, service.value)
		}
	}
	return found
}

// fill adds the entries of from that n does not have. Nodes of from are shared
// from then on and not changed.
func fill(n, from *node) {
	for _, e := range from.entries {
		own := n.find(e.key)
		switch {
		case own == nil && e.key == "auth" && n.find("public") != nil:
		case own == nil:
			n.entries = append(n.entries, e)
		case own.value.kind == mapping && e.value.kind == mapping:
			fill(own.value, e.value)
		}
	}
}

// orDefault sets what was not written. A written zero stays, for the checks.
func orDefault[T any](c *checker, v *T, otherwise T) {
	if !c.written(v) {
		*v = otherwise
	}
}

// Slower than a modem of 1980, so that it is nobody's honest connection.
const minRate, rateGrace = 240, 5 * time.Second

// fillDefaults puts in the values that the documentation promises for absent
// keys.
func (c *checker) fillDefaults() {
	f := c.file
	orDefault(c, &f.Replicas, "one")
	for i := range f.Listeners {
		orDefault(c, &f.Listeners[i].Protocol, "http")
	}
	s := &f.Server
	orDefault(c, &s.MaxConnections, 65536)
	orDefault(c, &s.MaxTunnels, 16384)
	orDefault(c, &s.MaxHeaderBytes, 16<<10)
	orDefault(c, &s.MaxURLBytes, 8<<10)
	orDefault(c, &s.MaxHeaders, 100)
	orDefault(c, &s.MaxStreams, 100)
	orDefault(c, &s.HeaderTimeout, 10*time.Second)
	orDefault(c, &s.IdleTimeout, time.Minute)
	orDefault(c, &s.BodyIdleTimeout, 30*time.Second)
	orDefault(c, &s.WriteIdleTimeout, 30*time.Second)
	orDefault(c, &s.UnderscoreHeaders, "drop")
	orDefault(c, &s.MinRequestRate, minRate)
	orDefault(c, &s.MinResponseRate, minRate)
	orDefault(c, &s.RateGrace, rateGrace)
	orDefault(c, &s.DrainDelay, 5*time.Second)
	orDefault(c, &s.DrainTimeout, 30*time.Second)
	for i := range f.Listeners {
		c.listenerDefaults(&f.Listeners[i])
	}
	if a := f.AuthServer; a != nil {
		c.authServerDefaults(a)
	}
	for i := range f.Issuers {
		issuer := &f.Issuers[i]
		if len(issuer.Algorithms) == 0 {
			issuer.Algorithms = []string{"RS256", "ES256"}
		}
		if len(issuer.TokenTypes) == 0 {
			issuer.TokenTypes = []string{"at+jwt", "JWT"}
		}
	}
	for name, service := range f.Services {
		service.Name = name
		c.serviceDefaults(service)
	}
	for name, limit := range f.Limits {
		limit.Name = name
		c.limitDefaults(limit, "client")
	}
	for i, r := range f.Routes {
		r.Index = i
		orDefault(c, &r.Streams.IdleTimeout, 5*time.Minute)
		orDefault(c, &r.Streams.MaxLifetime, 24*time.Hour)
		orDefault(c, &r.Mode, "enforce")
		if k := r.APIKey; k != nil && !c.written(&k.Query) {
			orDefault(c, &k.Header, "X-API-Key")
		}
		if r.Canary != nil {
			by := "subject"
			if r.Public {
				by = "ip"
			}
			orDefault(c, &r.Canary.By, by)
		}
		by := "client"
		if r.Public {
			by = "ip"
		}
		for _, limit := range r.RateLimits {
			if limit.ref == "" {
				c.limitDefaults(limit, by)
			}
		}
	}
}

func (c *checker) authServerDefaults(a *AuthServer) {
	orDefault(c, &a.Audience, a.Issuer)
	orDefault(c, &a.Algorithm, "ES256")
	orDefault(c, &a.Interaction.Mode, "pages")
	orDefault(c, &a.Unusual.Refresh, "notify")
	orDefault(c, &a.Unusual.NewCountry, "off")
	orDefault(c, &a.Unusual.Failures, "notify")
	orDefault(c, &a.AccessTokenTTL, 15*time.Minute)
	if r := a.ClientRegistration; r != nil && len(r.Grants) == 0 {
		r.Grants = []string{"authorization_code", "refresh_token"}
	}
	orDefault(c, &a.CodeTTL, time.Minute)
	orDefault(c, &a.SessionTTL, 12*time.Hour)
	orDefault(c, &a.KeyRotation, 720*time.Hour)
	c.mailDefaults(&a.Mailing)
	c.demandDefaults(&a.Demands)
	for i := range a.Upstream {
		u := &a.Upstream[i]
		orDefault(c, &u.Title, u.Name)
		orDefault(c, &u.Linking, "none")
		if !c.written(&u.Scopes) {
			u.Scopes = []string{"profile", "email"}
		}
	}
	if l := a.LDAP; l != nil {
		orDefault(c, &l.Filter, "(uid={name})")
		orDefault(c, &l.Attributes.ID, "entryUUID")
		orDefault(c, &l.Attributes.Name, "uid")
		orDefault(c, &l.Attributes.Email, "mail")
		orDefault(c, &l.Attributes.DisplayName, "cn")
		orDefault(c, &l.Groups.Filter, "(member={dn})")
		orDefault(c, &l.Groups.Name, "cn")
		orDefault(c, &l.Timeout, 3*time.Second)
		orDefault(c, &l.Connections, 8)
		if l.Recheck == nil {
			every := 5 * time.Minute
			l.Recheck = &every
		}
		orDefault(c, &l.OnFailure, "open")
	}
	orDefault(c, &a.RefreshToken.TTL, 720*time.Hour)
	orDefault(c, &a.RefreshToken.Idle, min(168*time.Hour, a.RefreshToken.TTL))
	if a.RefreshToken.Grace == nil {
		grace := 10 * time.Second
		a.RefreshToken.Grace = &grace
	}
}

func (c *checker) serviceDefaults(s *Service) {
	protocol := "http"
	if len(s.Targets) > 0 && strings.HasPrefix(s.Targets[0], "https:") {
		protocol = "https"
	}
	orDefault(c, &s.Protocol, protocol)
	orDefault(c, &s.Balance, "p2c")
	orDefault(c, &s.Timeouts.Connect, time.Second)
	orDefault(c, &s.Timeouts.Request, 30*time.Second)
	orDefault(c, &s.Timeouts.Idle, time.Minute)
	orDefault(c, &s.Timeouts.Pending, 10*time.Millisecond)
	orDefault(c, &s.MaxConnections, 1024)
	orDefault(c, &s.MaxPending, 256)
	orDefault(c, &s.MinResponseRate, minRate)
	orDefault(c, &s.RateGrace, rateGrace)
	if s.Retries == nil {
		s.Retries = &Retries{}
	}
	orDefault(c, &s.Retries.Attempts, 2)
	orDefault(c, &s.Retries.Budget, 0.2)
	if s.Breaker == nil {
		s.Breaker = &Breaker{}
	}
	if s.Breaker.off {
		s.Breaker = nil
		return
	}
	orDefault(c, &s.Breaker.Failures, 0.5)
	orDefault(c, &s.Breaker.MinRequests, 50)
	orDefault(c, &s.Breaker.Window, 10*time.Second)
	orDefault(c, &s.Breaker.Open, 2*time.Second)
}

func (c *checker) limitDefaults(l *RateLimit, by string) {
	orDefault(c, &l.Burst, l.Limit)
	orDefault(c, &l.By, by)
	orDefault(c, &l.Mode, "leased")
	orDefault(c, &l.Cost, 1)
	orDefault(c, &l.OnStoreFailure, "local")
}
