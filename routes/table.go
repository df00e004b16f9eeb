package routes

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
)

// Table finds the route of a request. It is immutable and safe for concurrent
// use; the cost of Match depends on the length of the host and the path, not on
// the number of routes.
//
// Which route wins, where several match: the host decides first (exact, then
// the wildcard with the longest name, then any), then the path (a literal
// before {id} and *, these before **, from left to right), then {id} before *,
// then methods (fewer before more, named ones before any). GET does not imply
// HEAD. A route that matches host and path but not the method is passed over,
// and so is a host without a matching path: a less specific route may answer.
type Table struct {
	exact     map[string]*branch
	wildcards map[string]*branch // by the name after "*."
	any       *branch
	methods   map[string]uint64 // a bit for every method that some route names
	names     []string          // of the bits
	rules     int
	// allow remembers the Allow values of the unions asked for so far. It is
	// replaced, never changed, and bounded by the unions the routes can make.
	allow atomic.Pointer[map[uint64]string]
}

// Match is what the table knows about a request: its route, or for which
// methods there is one, or neither.
type Match struct {
	Route *Route // nil: none
	// Allow is the value of the Allow field of a 405, when Route is nil and
	// the path exists; empty when it does not.
	Allow string
}

// branch is a segment of the paths of one host.
type branch struct {
	literals map[string]*branch
	wild     *branch // {id} and *
	end      []rule  // patterns that end here, in order of preference
	tail     []rule  // patterns that end here with /**
}

// rule is a route in a branch.
type rule struct {
	route   *Route
	pattern pattern
	methods uint64 // all bits: any method
	order   int    // of the routes given to NewTable
}

const anyMethod = math.MaxUint64

// maxMethods leaves a bit that no method has.
const maxMethods = 63

// NewTable compiles routes. The error is Problems: invalid patterns, and every
// pair of routes that match a common request although neither is more specific,
// both named with their places and such a request.
func NewTable(routes []*Route) (*Table, error) {
	t := &Table{
		exact:     map[string]*branch{},
		wildcards: map[string]*branch{},
		methods:   map[string]uint64{},
	}
	t.allow.Store(&map[uint64]string{})
	var problems Problems
	for _, r := range routes {
		problems = append(problems, t.add(r)...)
	}
	return t, problems.err()
}

// Shadowed reports whether a request that matched r would match another route
// if the path's parameters (";…" at the end of a segment) were cut off, as many
// servers do: "/admin;x" is no path of /admin/**, but the service behind
// another route may take it for one (EDGE: S32). A route whose own path has a
// semicolon knows what it does.
func (t *Table) Shadowed(r *Route, host, method, path []byte) bool {
	if bytes.IndexByte(path, ';') < 0 || strings.Contains(r.Path, ";") {
		return false
	}
	bare := make([]byte, 0, len(path))
	cut := false
	for _, c := range path {
		if cut = c == ';' || cut && c != '/'; !cut {
			bare = append(bare, c)
		}
	}
	// Empty segments are merged, as they would be there.
	bare, ok := CanonicalPath(make([]byte, 0, len(bare)), bare, true)
	return !ok || t.Match(host, method, bare).Route != r
}

// Match finds the route of a request. host and path are canonical
// (CanonicalHost, CanonicalPath); an empty host matches only routes for any
// host. A path with EncodedSlash matches like any other: the caller refuses it
// unless the route has AllowEncodedSlash. It keeps nothing of its arguments and does not allocate, except once
// for each new value of Allow.
func (t *Table) Match(host, method, path []byte) Match {
	if len(path) == 0 || path[0] != '/' {
		return Match{}
	}
	s := search{method: t.methods[string(method)]}
	rest := path[1:]
	if b := t.exact[string(host)]; b != nil {
		if r := b.find(&s, rest, true); r != nil {
			return Match{Route: r}
		}
	}
	if len(t.wildcards) > 0 {
		for name := host; ; {
			dot := bytes.IndexByte(name, '.')
			if dot < 0 {
				break
			}
			name = name[dot+1:]
			if b := t.wildcards[string(name)]; b != nil {
				if r := b.find(&s, rest, true); r != nil {
					return Match{Route: r}
				}
			}
		}
	}
	if t.any != nil {
		if r := t.any.find(&s, rest, true); r != nil {
			return Match{Route: r}
		}
	}
	if s.allowed == 0 {
		return Match{}
	}
	return Match{Allow: t.allowValue(s.allowed)}
}

// search is one run of Match.
type search struct {
	method  uint64 // the bit of the method; 0: no route names it
	allowed uint64 // methods of the routes that match but for the method
}

func (s *search) pick(rules []rule) *Route {
	for i := range rules {
		if m := rules[i].methods; m&s.method != 0 || m == anyMethod {
			return rules[i].route
		}
		s.allowed |= rules[i].methods
	}
	return nil
}

// find matches rest, the path after this branch's slash; more is false where
// the path ends here.
func (b *branch) find(s *search, rest []byte, more bool) *Route {
	if !more {
		if r := s.pick(b.end); r != nil {
			return r
		}
		return s.pick(b.tail)
	}
	text, next, following := rest, []byte(nil), false
	if i := bytes.IndexByte(rest, '/'); i >= 0 {
		text, next, following = rest[:i], rest[i+1:], true
	}
	if child := b.literals[string(text)]; child != nil {
		if r := child.find(s, next, following); r != nil {
			return r
		}
	}
	if b.wild != nil && len(text) > 0 {
		if r := b.wild.find(s, next, following); r != nil {
			return r
		}
	}
	return s.pick(b.tail)
}

// allowValue lists the methods of a union in the order of their names.
func (t *Table) allowValue(union uint64) string {
	known := t.allow.Load()
	if v, ok := (*known)[union]; ok {
		return v
	}
	var names []string
	for i, name := range t.names {
		if union&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	value := strings.Join(names, ", ")
	larger := make(map[uint64]string, len(*known)+1)
	for k, v := range *known {
		larger[k] = v
	}
	larger[union] = value
	// Losing the race costs another computation, nothing else.
	t.allow.CompareAndSwap(known, &larger)
	return value
}

// add puts a route into the branches of its hosts.
func (t *Table) add(r *Route) (problems Problems) {
	report := func(err error) {
		problems = append(problems, Problem{Pos: r.Pos, Message: fmt.Sprintf("route %q: %v", r.Name, err)})
	}
	p, err := parsePattern(r.Path)
	if err != nil {
		report(err)
		return problems
	}
	if EncodedSlash([]byte(r.Path)) && !r.AllowEncodedSlash {
		report(fmt.Errorf("path %q holds %%2F, so it needs allow_encoded_slash: true", r.Path))
	}
	methods, err := t.methodBits(r.Methods)
	if err != nil {
		report(err)
		return problems
	}
	t.rules++
	added := rule{route: r, pattern: p, methods: methods, order: t.rules}
	hosts := r.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	seen := map[*branch]bool{}
	for _, host := range hosts {
		root, err := t.root(host)
		if err != nil {
			report(err)
			continue
		}
		if seen[root] {
			report(fmt.Errorf("host %q stands there twice", host))
			continue
		}
		seen[root] = true
		for _, message := range root.conflicts(added, host) {
			problems = append(problems, Problem{Pos: r.Pos, Message: message})
		}
		root.insert(added)
	}
	return problems
}

// root is where the paths of a host pattern start; "" is any host.
func (t *Table) root(host string) (*branch, error) {
	if host == "" {
		if t.any == nil {
			t.any = &branch{}
		}
		return t.any, nil
	}
	name, wildcard, err := parseHost(host)
	if err != nil {
		return nil, err
	}
	hosts := t.exact
	if wildcard {
		hosts = t.wildcards
	}
	if hosts[name] == nil {
		hosts[name] = &branch{}
	}
	return hosts[name], nil
}

func (t *Table) methodBits(methods []string) (bits uint64, err error) {
	if len(methods) == 0 {
		return anyMethod, nil
	}
	for _, m := range methods {
		if err := validMethod(m); err != nil {
			return 0, err
		}
		bit, ok := t.methods[m]
		if !ok {
			if len(t.names) == maxMethods {
				return 0, fmt.Errorf("method %q: more than %d different methods", m, maxMethods)
			}
			bit = 1 << len(t.names)
			t.methods[m] = bit
			t.names = append(t.names, m)
		}
		if bits&bit != 0 {
			return 0, fmt.Errorf("method %q stands there twice", m)
		}
		bits |= bit
	}
	return bits, nil
}
