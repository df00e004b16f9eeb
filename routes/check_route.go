package routes

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

func (c *checker) routes() {
	c.routeNames()
	used := map[string]bool{}
	var sound []*Route
	for _, r := range c.file.Routes {
		if c.broken(r) {
			continue
		}
		before := len(c.problems)
		c.pattern(r)
		if len(c.problems) == before && c.decoded(r) {
			sound = append(sound, r)
		}
		c.routeService(r)
		used[r.Service] = true
		c.access(r)
		c.routeAPIKey(r)
		if r.Canary != nil {
			c.canary(r)
			used[r.Canary.Service] = true
		}
		if r.Mirror != nil {
			c.mirror(r)
			used[r.Mirror.Service] = true
		}
		c.oneOf(&r.Mode, "mode", r.Pos, "enforce", "shadow")
		c.rateLimits(r)
		c.rewrite(r)
		c.streams(r)
		c.reserved(r)
	}
	// Problems of single routes are known, so these are conflicts.
	if _, err := NewTable(sound); err != nil {
		c.problems = append(c.problems, err.(Problems)...)
	}
	for _, name := range slices.Sorted(maps.Keys(c.file.Services)) {
		if !used[name] {
			c.warn(keyPos(c, &c.file.Services, name), "no route uses the service %q", name)
		}
	}
}

// routeNames gives names to routes without one and reports names that are
// there twice.
func (c *checker) routeNames() {
	seen := map[string]Pos{}
	for _, r := range c.file.Routes {
		if r.Name == "" {
			continue
		}
		c.validName(c.at(&r.Name, r.Pos), "route", r.Name)
		c.unique(seen, "route", &r.Name, r.Pos)
	}
	for _, r := range c.file.Routes {
		if r.Name != "" || c.broken(&r.Name) || c.broken(r) {
			continue
		}
		if c.written(&r.Name) {
			c.report(c.at(&r.Name, r.Pos), "name is empty; leave it out for a name made of methods and path")
		}
		base := defaultName(r)
		r.Name = base
		for i := 2; seen[r.Name] != (Pos{}); i++ {
			r.Name = fmt.Sprintf("%s-%d", base, i)
		}
		seen[r.Name] = r.Pos
	}
}

// defaultName is made of methods and path: get-orders-id.
func defaultName(r *Route) string {
	words := slices.Clone(r.Methods)
	for s := range strings.SplitSeq(strings.ToLower(r.Path), "/") {
		switch s {
		case "**":
			s = "all"
		case "*":
			s = "any"
		}
		words = append(words, s)
	}
	keep := func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.':
			return c
		case c == '{' || c == '}':
			return -1
		}
		return '_'
	}
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	name := strings.Map(keep, strings.ToLower(strings.Join(words, "-")))
	if len(words) == len(r.Methods) {
		name = strings.TrimPrefix(name+"-root", "-")
	}
	return name
}

// pattern checks hosts, path and methods, each at its own place.
func (c *checker) pattern(r *Route) {
	if c.required(&r.Path, "path", r.Pos) {
		if _, err := parsePattern(r.Path); err != nil {
			c.report(c.at(&r.Path, r.Pos), "%v", err)
		} else if EncodedSlash([]byte(r.Path)) && !r.AllowEncodedSlash {
			c.report(c.at(&r.Path, r.Pos), "path %q holds %%2F, so it needs allow_encoded_slash: true", r.Path)
		}
	}
	if c.written(&r.Hosts) && len(r.Hosts) == 0 && !c.broken(&r.Hosts) {
		c.report(c.at(&r.Hosts, r.Pos), "hosts: an empty list matches nothing; leave it out for any host")
	}
	if c.written(&r.Methods) && len(r.Methods) == 0 && !c.broken(&r.Methods) {
		c.report(c.at(&r.Methods, r.Pos), "methods: an empty list matches nothing; leave it out for any method")
	}
	for i := range r.Hosts {
		if _, _, err := parseHost(r.Hosts[i]); err != nil && !c.broken(&r.Hosts[i]) {
			c.report(c.at(&r.Hosts[i], r.Pos), "%v", err)
		}
		if slices.Index(r.Hosts, r.Hosts[i]) < i {
			c.report(c.at(&r.Hosts[i], r.Pos), "the host %q stands there twice", r.Hosts[i])
		}
	}
	for i := range r.Methods {
		if err := validMethod(r.Methods[i]); err != nil && !c.broken(&r.Methods[i]) {
			c.suggest(c.at(&r.Methods[i], r.Pos), upperMethod(r.Methods[i]), "%v", err)
		}
		if slices.Index(r.Methods, r.Methods[i]) < i {
			c.report(c.at(&r.Methods[i], r.Pos), "the method %q stands there twice", r.Methods[i])
		}
	}
}

// decoded reports whether hosts, path and methods are what the file says.
func (c *checker) decoded(r *Route) bool {
	ok := !c.broken(&r.Hosts) && !c.broken(&r.Path) && !c.broken(&r.Methods)
	for i := range r.Hosts {
		ok = ok && !c.broken(&r.Hosts[i])
	}
	for i := range r.Methods {
		ok = ok && !c.broken(&r.Methods[i])
	}
	return ok
}

func upperMethod(m string) string {
	if upper := strings.ToUpper(m); upper != m && validMethod(upper) == nil {
		return upper
	}
	return ""
}

func (c *checker) routeService(r *Route) {
	if !c.written(&r.Service) && r.redirects() {
		return
	}
	if !c.required(&r.Service, "service", r.Pos) {
		return
	}
	if r.Upstream = c.file.Services[r.Service]; r.Upstream != nil || c.broken(&c.file.Services) {
		c.timeout(r)
		return
	}
	names := slices.Collect(maps.Keys(c.file.Services))
	c.suggest(c.at(&r.Service, r.Pos), nearest(r.Service, names), "unknown service %q; declared: %s", r.Service, declared(names))
}

// redirects reports whether every request of the route is answered by a
// redirect, so that it needs no service.
func (r *Route) redirects() bool {
	n := r.settings["redirect"].n
	return n != nil && n.find("to") != nil
}

// timeout gives a route with a timeout of its own a service that has it.
func (c *checker) timeout(r *Route) {
	if !c.written(&r.Timeout) || c.broken(&r.Timeout) || r.Upstream == nil {
		return
	}
	within(c, &r.Timeout, "timeout", time.Millisecond, 24*time.Hour)
	own := *r.Upstream
	own.Timeouts.Request = r.Timeout
	r.Upstream = &own
}

// access is "deny by default": who may call was written, once.
func (c *checker) access(r *Route) {
	switch {
	case c.broken(&r.Public) || c.broken(&r.Auth):
		return
	case r.Public && r.Auth != nil:
		c.report(c.at(&r.Public, r.Pos), "the route %q is public and has auth; keep one", r.Name)
		return
	case r.APIKey != nil && (r.Public || r.Auth != nil):
		c.report(c.at(&r.APIKey, r.Pos), "the route %q has api_key beside auth or public: true; keep one", r.Name)
		return
	case r.APIKey != nil:
		return
	case r.Public:
		return
	case r.Auth == nil:
		c.report(r.Pos, "the route %q does not say who may call it: write auth: {scopes: […]}, auth: {} for any valid token, api_key: {keys: […]}, or public: true", r.Name)
		return
	}
	a, own := r.Auth, c.file.AuthServer
	if own == nil && len(c.file.Issuers) == 0 && !c.broken(&c.file.AuthServer) && !c.broken(&c.file.Issuers) {
		c.report(a.Pos, "the route %q wants a token, but the file trusts no issuer: it has neither authserver nor issuers", r.Name)
	}
	c.authIssuers(a)
	c.mutualTLS(r)
	for _, scopes := range [][]string{a.Scopes, a.AnyScopes} {
		for i := range scopes {
			c.routeScope(&scopes[i], a)
		}
	}
	if c.written(&a.AnyScopes) && len(a.AnyScopes) == 0 && !c.broken(&a.AnyScopes) {
		c.report(c.at(&a.AnyScopes, a.Pos), "any_scopes: one of none is impossible; leave it out")
	}
	if c.written(&a.Audience) && a.Audience == "" && !c.broken(&a.Audience) {
		c.report(c.at(&a.Audience, a.Pos), "audience is empty; leave it out for the default")
	}
	if c.written(&a.DPoP) {
		c.oneOf(&a.DPoP, "dpop", a.Pos, "required")
	}
	if c.written(&a.MaxAge) {
		atLeast(c, &a.MaxAge, "max_age", time.Second)
	}
	for i := range a.ACRValues {
		if v := &a.ACRValues[i]; *v == "" || strings.ContainsFunc(*v, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			c.report(c.at(v, a.Pos), "acr_values: %q is not a value that a token can have: no spaces, quotes or letters beyond ASCII", *v)
		}
	}
	if c.written(&a.ACRValues) && len(a.ACRValues) == 0 && !c.broken(&a.ACRValues) {
		c.report(c.at(&a.ACRValues, a.Pos), "acr_values: one of none is impossible; leave it out")
	}
	for _, claim := range slices.Sorted(maps.Keys(a.Claims)) {
		if claim == "" || len(a.Claims[claim]) == 0 {
			c.report(keyPos(c, &a.Claims, claim), "claims: write NAME: [VALUE, …]; a token must have one of the values")
		}
	}
}

func (c *checker) authIssuers(a *Auth) {
	if c.written(&a.Issuers) && len(a.Issuers) == 0 && !c.broken(&a.Issuers) {
		c.report(c.at(&a.Issuers, a.Pos), "issuers: an empty list trusts nobody; leave it out for all trusted issuers")
	}
	var trusted []string
	if c.file.AuthServer != nil {
		trusted = append(trusted, c.file.AuthServer.Issuer)
	}
	for _, issuer := range c.file.Issuers {
		trusted = append(trusted, issuer.Issuer)
	}
	for i, issuer := range a.Issuers {
		if !slices.Contains(trusted, issuer) && !c.broken(&a.Issuers[i]) {
			c.suggest(c.at(&a.Issuers[i], a.Pos), nearest(issuer, trusted), "unknown issuer %q; declared: %s", issuer, declared(trusted))
		}
	}
}

// routeScope reports a scope that nobody can have. Where a further issuer may
// grant it, only a near miss is worth a warning.
func (c *checker) routeScope(scope *string, a *Auth) {
	own := c.file.AuthServer
	pos := c.at(scope, a.Pos)
	switch {
	case c.broken(scope):
	case !scopeToken(*scope):
		c.report(pos, "the scope %q holds a character that scopes may not have (RFC 6749, 3.3)", *scope)
	case own == nil || len(a.Issuers) > 0 && !slices.Contains(a.Issuers, own.Issuer):
	case len(c.file.Issuers) == 0 || len(a.Issuers) == 1:
		c.declaredScope(scope, a.Pos, own)
	default:
		names := slices.Collect(maps.Keys(own.Scopes))
		if _, known := own.Scopes[*scope]; !known && !slices.Contains(standardScopes, *scope) {
			if near := nearest(*scope, names); near != "" {
				c.warnings = append(c.warnings, Problem{Pos: pos, Suggestion: near,
					Message: fmt.Sprintf("the scope %q is not declared; only another issuer could grant it", *scope)})
			}
		}
	}
}

// rateLimits checks a route's limits and puts shared ones in place of their
// names.
func (c *checker) rateLimits(r *Route) {
	for i, l := range r.RateLimits {
		if l.ref == "" {
			c.limit(l, r.Public)
			continue
		}
		shared := c.file.Limits[l.ref]
		switch {
		case shared == nil && c.broken(&c.file.Limits):
		case shared == nil:
			names := slices.Collect(maps.Keys(c.file.Limits))
			c.suggest(l.Pos, nearest(l.ref, names), "unknown limit %q; declared: %s", l.ref, declared(names))
		case r.Public && !keyWithoutToken(shared.By):
			c.report(l.Pos, "the limit %q counts by %s, which needs a token, and the route %q is public", l.ref, shared.By, r.Name)
		case slices.Contains(r.RateLimits[:i], shared):
			c.report(l.Pos, "the limit %q stands there twice", l.ref)
		default:
			r.RateLimits[i] = shared
		}
	}
}

// literalPrefix reports whether the pattern starts with the literal segments of
// prefix.
func (p pattern) literalPrefix(prefix string) bool {
	for i, text := range strings.Split(prefix[1:], "/") {
		if i >= len(p.segments) || p.segments[i] != (segment{text: text}) {
			return false
		}
	}
	return true
}

// reserved reports a route that names a path of the authorization server on
// the host of its issuer. Wider patterns and wildcard hosts lose to it there.
func (c *checker) reserved(r *Route) {
	a := c.file.AuthServer
	if a == nil {
		return
	}
	issuer, err := url.Parse(a.Issuer)
	if err != nil {
		return
	}
	host, _, _ := CanonicalHost(nil, []byte(issuer.Host))
	if len(r.Hosts) > 0 && !slices.Contains(r.Hosts, string(host)) {
		return
	}
	p, err := parsePattern(r.Path)
	if err != nil {
		return
	}
	base := strings.TrimSuffix(issuer.Path, "/")
	for _, prefix := range []string{base + "/oauth", base + "/.well-known", "/.well-known"} {
		if p.literalPrefix(prefix) {
			c.report(c.at(&r.Path, r.Pos), "the path %q belongs to the authorization server of %v", r.Path, c.at(&a.Issuer, a.Pos))
			return
		}
	}
}

func (c *checker) tests() {
	for i := range c.file.Tests {
		t := &c.file.Tests[i]
		if c.broken(t) {
			continue
		}
		if c.required(&t.Request, "request", t.Pos) {
			method, target, _ := strings.Cut(t.Request, " ")
			if _, ok := webURL(target); !ok || validMethod(method) != nil {
				c.report(c.at(&t.Request, t.Pos), "request: %q is not of the form GET https://api.example.com/orders/1", t.Request)
			}
		}
		if c.required(&t.Expect, "expect", t.Pos) && strings.Trim(t.Expect, "abcdefghijklmnopqrstuvwxyz_") != "" {
			c.report(c.at(&t.Expect, t.Pos), "expect: %q is neither allow nor a reason such as scope_missing", t.Expect)
		}
		c.testCaller(t)
	}
}

func (c *checker) testCaller(t *Test) {
	if t.As.Client == "" {
		return
	}
	pos := c.at(&t.As.Client, t.Pos)
	if t.As.Claims != nil {
		c.report(pos, "as: has client and claims; keep one")
	}
	var ids []string
	if a := c.file.AuthServer; a != nil {
		for _, client := range a.Clients {
			ids = append(ids, client.ID)
		}
	}
	if !slices.Contains(ids, t.As.Client) && !c.broken(&t.As.Client) {
		c.suggest(pos, nearest(t.As.Client, ids), "unknown client %q; declared: %s", t.As.Client, declared(ids))
	}
}

func (c *checker) streams(r *Route) {
	s := &r.Streams
	atLeast(c, &s.IdleTimeout, "streams: idle_timeout", time.Second)
	atLeast(c, &s.MaxLifetime, "streams: max_lifetime", time.Second)
	atLeast(c, &s.TokenGrace, "streams: token_grace", 0)
	if s.WebSocket && len(r.Methods) > 0 && !slices.Contains(r.Methods, "GET") {
		c.report(c.at(&s.WebSocket, s.Pos), "streams: websocket: a WebSocket is opened with GET, which methods does not name")
	}
}
