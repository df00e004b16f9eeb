package routes

import (
	"slices"
	"strings"
	"time"
)

func (c *checker) service(s *Service) {
	c.validName(keyPos(c, &c.file.Services, s.Name), "service", s.Name)
	if c.broken(s) {
		return
	}
	switch {
	case c.broken(&s.Consul) || c.broken(&s.Targets):
	case s.Consul == nil && len(s.Targets) == 0:
		c.report(s.Pos, "the service %q needs consul: {service: NAME} or targets: [URL]", s.Name)
	case s.Consul != nil && len(s.Targets) > 0:
		c.report(c.at(&s.Targets, s.Pos), "the service %q has consul and targets; keep one", s.Name)
	}
	if s.Consul != nil {
		c.required(&s.Consul.Service, "consul: service", s.Consul.Pos)
		if c.file.Consul == nil && !c.broken(&c.file.Consul) {
			c.report(s.Consul.Pos, "the service %q is looked up in Consul, but the file has no consul: {address: URL}", s.Name)
		}
	}
	if c.oneOf(&s.Protocol, "protocol", s.Pos, "http", "https", "h2c", "grpc") {
		c.targets(s)
	}
	c.oneOf(&s.Balance, "balance", s.Pos, "p2c", "round_robin", "hash")
	atLeast(c, &s.Timeouts.Connect, "timeouts: connect", time.Millisecond)
	atLeast(c, &s.Timeouts.Request, "timeouts: request", time.Millisecond)
	atLeast(c, &s.Timeouts.Idle, "timeouts: idle", time.Millisecond)
	within(c, &s.Timeouts.Pending, "timeouts: pending", time.Millisecond, time.Minute)
	within(c, &s.MaxConnections, "max_connections", 1, 1<<16)
	within(c, &s.MaxPending, "max_pending", 0, 1<<16)
	within(c, &s.MinResponseRate, "min_response_rate", 0, maxRate)
	atLeast(c, &s.RateGrace, "rate_grace", time.Millisecond)
	within(c, &s.Retries.Attempts, "retries: attempts", 1, 10)
	if b := s.Breaker; b != nil {
		within(c, &b.Failures, "breaker: failures", 0.01, 1)
		atLeast(c, &b.MinRequests, "breaker: min_requests", 1)
		within(c, &b.Window, "breaker: window", time.Second, time.Hour)
		within(c, &b.Open, "breaker: open", 100*time.Millisecond, time.Hour)
	}
	c.serviceTLS(s)
	if s.Identity.JWT && c.file.AuthServer == nil && !c.broken(&c.file.AuthServer) {
		c.report(c.at(&s.Identity.JWT, s.Pos), "identity: jwt is signed with keys of the authorization server, and the file has no authserver:")
	}
}

// targets checks the static instances of a service. Messages do not repeat
// them: people put passwords into URLs.
func (c *checker) targets(s *Service) {
	seen := map[string]bool{}
	scheme := s.Protocol
	switch {
	case s.Protocol == "h2c":
		scheme = "http"
	case s.Protocol == "grpc" && s.Encrypted():
		scheme = "https"
	case s.Protocol == "grpc":
		scheme = "http"
	}
	for i := range s.Targets {
		target := &s.Targets[i]
		pos := c.at(target, s.Pos)
		u, ok := webURL(*target)
		switch {
		case c.broken(target):
		case !ok || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
			c.report(pos, "targets: write scheme, host and port only, such as http://10.0.0.7:8080")
		case u.Scheme != scheme && s.Protocol == "grpc":
			c.report(pos, "targets: of the service %q some are http and some are https", s.Name)
		case u.Scheme != scheme:
			c.report(pos, "targets: the protocol of the service %q is %s", s.Name, s.Protocol)
		case seen[u.Host]:
			c.report(pos, "targets: the same instance stands there twice")
		default:
			seen[u.Host] = true
		}
	}
}

// limitBy are the words of by: without claim:NAME.
var limitBy = []string{"client", "subject", "ip", "route"}

// limit checks a limit, a shared one or one that stands on a route.
func (c *checker) limit(l *RateLimit, public bool) {
	if c.broken(l) {
		return
	}
	if !c.written(&l.Limit) {
		c.report(l.Pos, "limit is missing: how many requests are allowed")
	} else {
		within(c, &l.Limit, "limit", 1, 1_000_000_000)
	}
	if !c.written(&l.Per) {
		c.report(l.Pos, "per is missing: the time for limit, such as 1m")
	} else {
		within(c, &l.Per, "per", time.Millisecond, 31*24*time.Hour)
	}
	if c.written(&l.Burst) {
		within(c, &l.Burst, "burst", 1, 1_000_000_000)
	}
	if c.written(&l.Cost) {
		within(c, &l.Cost, "cost", 1, max(1, l.Burst))
	}
	c.limitKey(l, public)
	if l.Mode == "strict" {
		c.report(c.at(&l.Mode, l.Pos), "mode: strict is not supported by this version")
	} else {
		c.oneOf(&l.Mode, "mode", l.Pos, "leased", "exact", "local")
	}
	c.oneOf(&l.OnStoreFailure, "on_store_failure", l.Pos, "local", "open", "closed")
}

func (c *checker) limitKey(l *RateLimit, public bool) {
	claim, isClaim := strings.CutPrefix(l.By, "claim:")
	switch {
	case c.broken(&l.By):
	case isClaim && claim == "":
		c.report(c.at(&l.By, l.Pos), "by: claim: names no claim")
	case !isClaim && !slices.Contains(limitBy, l.By):
		c.suggest(c.at(&l.By, l.Pos), nearest(l.By, limitBy), "by: %q is none of client, subject, ip, claim:NAME, route", l.By)
	case public && !keyWithoutToken(l.By):
		c.report(c.at(&l.By, l.Pos), "by: %s needs a token, and this route is public; write by: ip or by: route", l.By)
	}
}

func keyWithoutToken(by string) bool { return by == "ip" || by == "route" }
