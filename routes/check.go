package routes

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// unsupported are keys of the documented schema whose behaviour does not exist
// yet. They are refused: a key that is read and ignored would open a route.
var unsupported = map[reflect.Type][]string{
	reflect.TypeFor[File]():       {"follow", "tracing", "plugins"},
	reflect.TypeFor[Admin]():      {"probes", "tls"},
	reflect.TypeFor[AuthServer](): {"feed"},
	reflect.TypeFor[Service]():    {"health"},
	reflect.TypeFor[Route]():      {"revocation"},
}

// unsupportedMappings are keys with a documented short form, which exists, and
// a mapping, which does not yet.
var unsupportedMappings = map[reflect.Type]string{
	reflect.TypeFor[File]():      "redis",
	reflect.TypeFor[RateLimit](): "cost",
}

// checker holds the rules of the file that are about more than one value's
// form. It changes the file only to fill in defaults and to resolve names.
type checker struct {
	file     *File
	places   map[any]place
	options  Options
	sources  func(path string)
	problems Problems
	warnings []Problem
}

// check runs all rules; whole is the place of what is missing.
func (c *checker) check(whole Pos) {
	c.fillDefaults()
	c.listeners(whole)
	c.admin()
	c.stores(whole)
	c.server()
	if c.file.AuthServer != nil && !c.broken(c.file.AuthServer) {
		c.authServer(c.file.AuthServer)
	}
	c.issuers()
	for _, name := range slices.Sorted(maps.Keys(c.file.Services)) {
		c.service(c.file.Services[name])
	}
	for _, name := range slices.Sorted(maps.Keys(c.file.Limits)) {
		c.validName(keyPos(c, &c.file.Limits, name), "limit", name)
		c.limit(c.file.Limits[name], false)
	}
	c.apiKeys()
	c.routes()
	c.tests()
}

func (c *checker) report(pos Pos, format string, args ...any) {
	c.problems = append(c.problems, Problem{Pos: pos, Message: fmt.Sprintf(format, args...)})
}

func (c *checker) suggest(pos Pos, suggestion, format string, args ...any) {
	c.problems = append(c.problems, Problem{Pos: pos, Message: fmt.Sprintf(format, args...), Suggestion: suggestion})
}

func (c *checker) warn(pos Pos, format string, args ...any) {
	c.warnings = append(c.warnings, Problem{Pos: pos, Message: fmt.Sprintf(format, args...)})
}

// written reports whether the value at an address stands in the file.
func (c *checker) written(address any) bool {
	_, ok := c.places[address]
	return ok
}

// broken reports whether a problem of the value at an address is known already.
func (c *checker) broken(address any) bool { return c.places[address].broken }

// at is the place of the value at an address, otherwise where it is not written.
func (c *checker) at(address any, otherwise Pos) Pos {
	if p, ok := c.places[address]; ok {
		return p.pos
	}
	return otherwise
}

// keyPos is the place of a key of the map at an address.
func keyPos[V any](c *checker, address *map[string]V, key string) Pos {
	return c.places[keyPlace{address, key}].pos
}

// required reports a value that is absent or empty. It returns whether there
// is one to look at.
func (c *checker) required(value *string, key string, owner Pos) bool {
	switch {
	case *value != "":
		return !c.broken(value)
	case c.broken(value):
	case c.written(value):
		c.report(c.at(value, owner), "%s is empty", key)
	default:
		c.report(owner, "%s is missing", key)
	}
	return false
}

// oneOf checks a word against the words of its key.
func (c *checker) oneOf(value *string, key string, owner Pos, words ...string) bool {
	if slices.Contains(words, *value) || c.broken(value) {
		return true
	}
	c.suggest(c.at(value, owner), nearest(*value, words), "%s: %q is none of %s", key, *value, strings.Join(words, ", "))
	return false
}

type number interface{ ~int | ~int64 | ~float64 }

// within checks the bounds of a number; one that was not written is a default,
// and these are within.
func within[T number](c *checker, value *T, key string, least, most T) {
	if !c.broken(value) && (*value < least || *value > most) {
		c.report(c.at(value, Pos{}), "%s: %s is outside of %s to %s", key, shownNumber(*value), shownNumber(least), shownNumber(most))
	}
}

// atLeast is within without an upper bound.
func atLeast[T number](c *checker, value *T, key string, least T) {
	if !c.broken(value) && *value < least {
		c.report(c.at(value, Pos{}), "%s: %s is less than %s", key, shownNumber(*value), shownNumber(least))
	}
}

// shownNumber is a number as people write it: 1m, not 1m0s.
func shownNumber(v any) string {
	s := fmt.Sprint(v)
	if _, ok := v.(time.Duration); ok {
		for _, zero := range []string{"0s", "0m"} {
			if rest, ok := strings.CutSuffix(s, zero); ok && strings.HasSuffix(rest, map[string]string{"0s": "m", "0m": "h"}[zero]) {
				s = rest
			}
		}
	}
	return s
}

// validName checks the names that operators choose; they become labels of
// metrics and parts of keys.
func (c *checker) validName(pos Pos, what, name string) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		c.report(pos, "the name of %s %q may have a-z, 0-9, '-', '_' and '.' only", what, name)
	}
}

func (c *checker) listeners(whole Pos) {
	f := c.file
	if len(f.Listeners) == 0 && !c.broken(&f.Listeners) {
		c.report(whole, "listeners: at least one is needed")
	}
	seen := map[string]Pos{}
	for i := range f.Listeners {
		l := &f.Listeners[i]
		if c.broken(l) || !c.required(&l.Address, "address", l.Pos) {
			continue
		}
		loopback, ok := c.address(&l.Address)
		if !ok {
			continue
		}
		pos := c.at(&l.Address, l.Pos)
		if first, twice := seen[l.Address]; twice {
			c.report(pos, "the address %s is listened on twice, first at %v", l.Address, first)
		}
		seen[l.Address] = pos
		switch {
		case l.TLS == nil && !loopback && !l.Insecure && !c.broken(&l.TLS):
			c.report(pos, "%s is outside of loopback and has no tls: give a certificate, or tls: terminated where a trusted balancer did it, or insecure: true", l.Address)
		case l.TLS != nil && l.TLS.Terminated && len(f.TrustedProxies) == 0 && !c.broken(&f.TrustedProxies):
			c.report(l.TLS.Pos, "tls: terminated needs trusted_proxies, the addresses of the balancer")
		case l.TLS != nil && !c.broken(&l.TLS):
			c.tls(l.TLS)
		}
		if c.oneOf(&l.Protocol, "protocol", l.Pos, "http", "h2c") && l.Protocol == "h2c" && l.TLS != nil && !l.TLS.Terminated {
			c.report(c.at(&l.Protocol, l.Pos), "protocol: h2c is HTTP/2 without TLS; leave it out, and clients choose HTTP/2 by ALPN")
		}
		if l.ProxyProtocol != nil && !c.broken(&l.ProxyProtocol) {
			c.proxyProtocol(l.ProxyProtocol)
		}
		switch {
		case l.HTTP3 && (l.TLS == nil || l.TLS.Terminated):
			c.report(c.at(&l.HTTP3, l.Pos), "http3: true needs tls with a certificate: HTTP/3 is always encrypted, and here is where that ends")
		case l.HTTP3 && l.ProxyProtocol != nil:
			c.report(c.at(&l.HTTP3, l.Pos), "http3: true beside proxy_protocol: a balancer tells no address over UDP; give HTTP/3 a listener of its own")
		}
		if l.Insecure && l.TLS != nil {
			c.report(c.at(&l.Insecure, l.Pos), "insecure: true is for listeners without tls")
		}
	}
}

// address checks host:port of a listener.
func (c *checker) address(value *string) (loopback, ok bool) {
	host, port, err := net.SplitHostPort(*value)
	if err == nil {
		if _, e := strconv.ParseUint(port, 10, 16); e != nil {
			err = e
		}
	}
	ip, ipErr := netip.ParseAddr(host)
	if err != nil || host != "" && host != "localhost" && ipErr != nil {
		c.report(c.at(value, Pos{}), "address: %q is not an address to listen on; write IP:PORT, such as 0.0.0.0:8443 or 127.0.0.1:8080", *value)
		return false, false
	}
	return host == "localhost" || ipErr == nil && ip.IsLoopback(), true
}

// minToken is the length of a static token that cannot be guessed.
const minToken = 16

func (c *checker) admin() {
	a := c.file.Admin
	if a == nil || c.broken(&c.file.Admin) || !c.required(&a.Address, "admin: address", a.Pos) {
		return
	}
	if n := len(a.Token.Reveal()); (n > 0 || c.written(&a.Token)) && n < minToken && !c.broken(&a.Token) {
		c.report(c.at(&a.Token, a.Pos), "admin: token is shorter than %d characters", minToken)
	}
	loopback, ok := c.address(&a.Address)
	if !ok || loopback {
		return
	}
	if !a.Insecure {
		c.report(c.at(&a.Address, a.Pos), "admin: %s is outside of loopback, and TLS for it is not supported by this version; bind it to loopback, or say insecure: true where only a trusted network reaches it", a.Address)
	}
}

func (c *checker) stores(whole Pos) {
	f := c.file
	c.oneOf(&f.Replicas, "replicas", whole, "one", "many")
	store := f.Store.Reveal()
	scheme, rest, _ := strings.Cut(store, ":")
	pos := c.at(&f.Store, whole)
	switch {
	case c.broken(&f.Store):
	case store == "":
		if f.AuthServer != nil {
			c.report(whole, "store is missing: the authorization server needs one; write store: sqlite:FILE or postgres://…")
		}
	case scheme == "sqlite":
		if rest == "" {
			c.report(pos, "store: sqlite: names no file")
		}
		if f.Replicas == "many" {
			c.report(pos, "store: sqlite cannot be shared, so replicas: many needs postgres://…")
		}
	case scheme == "postgres" || scheme == "postgresql":
		if u, err := url.Parse(store); err != nil || u.Host == "" && u.Query().Get("host") == "" {
			c.report(pos, "store: this is not a URL such as postgres://USER:PASSWORD@HOST/DATABASE")
		}
	default:
		c.report(pos, "store: only sqlite:FILE and postgres://… are supported")
	}
	c.redis(whole)
	consul := f.Consul
	if consul != nil && !c.broken(&f.Consul) && c.required(&consul.Address, "consul: address", consul.Pos) {
		if u, ok := webURL(consul.Address); !ok || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			c.report(c.at(&consul.Address, consul.Pos), "consul: address is not a URL such as http://127.0.0.1:8500")
		}
	}
}

func (c *checker) redis(whole Pos) {
	f := c.file
	address := f.Redis.Reveal()
	pos := c.at(&f.Redis, whole)
	switch {
	case c.broken(&f.Redis):
	case address == "":
		if f.Replicas == "many" {
			c.report(c.at(&f.Replicas, whole), "replicas: many needs redis:, or each replica would count its own limits")
		}
	default:
		u, err := url.Parse(address)
		switch {
		case err != nil || u.Host == "":
			c.report(pos, "redis: this is not a URL such as redis://HOST:6379/0")
		case u.Scheme != "redis" && u.Scheme != "rediss":
			c.report(pos, "redis: only redis:// and rediss:// are supported by this version")
		}
	}
}

// webURL parses an http or https URL without user information and fragment.
func webURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return nil, false
	}
	if _, _, ok := CanonicalHost(nil, []byte(u.Host)); !ok {
		return nil, false
	}
	return u, true
}

// secureURL is webURL that is https, or http on loopback.
func secureURL(s string) (*url.URL, bool) {
	u, ok := webURL(s)
	return u, ok && (u.Scheme == "https" || loopbackHost(u.Hostname()))
}

func loopbackHost(name string) bool {
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback() || name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// maxRate is what no link promises to every client.
const maxRate = 1 << 30

func (c *checker) server() {
	s := &c.file.Server
	atLeast(c, &s.MaxConnections, "max_connections", 1)
	atLeast(c, &s.MaxTunnels, "max_tunnels", 1)
	within(c, &s.MaxHeaderBytes, "max_header_bytes", 1<<10, 1<<20)
	within(c, &s.MaxURLBytes, "max_url_bytes", 64, 1<<20)
	atLeast(c, &s.MaxConnectionsPerAddress, "max_connections_per_address", 0)
	within(c, &s.MaxHeaders, "max_headers", 10, 10000)
	within(c, &s.MaxStreams, "max_streams", 1, 10000)
	c.oneOf(&s.UnderscoreHeaders, "underscore_headers", Pos{}, "drop", "reject")
	atLeast(c, &s.HeaderTimeout, "header_timeout", time.Millisecond)
	atLeast(c, &s.IdleTimeout, "idle_timeout", time.Millisecond)
	atLeast(c, &s.BodyIdleTimeout, "body_idle_timeout", time.Millisecond)
	atLeast(c, &s.WriteIdleTimeout, "write_idle_timeout", time.Millisecond)
	within(c, &s.MinRequestRate, "min_request_rate", 0, maxRate)
	within(c, &s.MinResponseRate, "min_response_rate", 0, maxRate)
	atLeast(c, &s.RateGrace, "rate_grace", time.Millisecond)
	atLeast(c, &s.DrainTimeout, "drain_timeout", time.Millisecond)
	c.ticketSecrets(s)
	if a := &c.file.AccessLog; c.written(a) && a.Path != "" && !a.Enabled {
		c.report(c.at(&a.Path, a.Pos), "access_log: path without enabled: true writes nothing")
	}
}
