// Package headers sets, adds and removes header fields of requests on their way
// to the service and of responses on their way to the client.
//
// It owns the rules and which names they may touch. It does not own the fields
// that only the gateway may write: those about the caller (plugins/auth), about
// forwarding (gateway/server), and about framing.
//
//	routes:
//	  - path: /orders/**
//	    headers:
//	      request: {set: {X-Tenant: "{claim.tenant}"}}
//	      response: {remove: [Server]}
package headers

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/template"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "headers"

// Settings are what stands under the key.
type Settings struct {
	Pos      routes.Pos
	Request  Rules `yaml:"request"`
	Response Rules `yaml:"response"`
}

// Rules change one head. They are applied in the order remove, set, add.
type Rules struct {
	Pos    routes.Pos
	Set    map[string]template.Template `yaml:"set"`
	Add    map[string]template.Template `yaml:"add"`
	Remove []string                     `yaml:"remove"`
}

// Plugin makes the steps.
type Plugin struct{}

// New returns a Plugin. Its steps change requests, and the fields of responses
// that name the caller; those of EarlyResponses all others.
func New() *Plugin { return &Plugin{} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

// Build implements plugins.Plugin: nil for a route without headers.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	request, response, err := compile(r)
	if err != nil {
		return nil, err
	}
	response.keep(func(t *template.Template) bool { return t.NeedsCaller() })
	response.drop = nil
	if request.empty() && response.empty() {
		return nil, nil
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if refusal := request.forward(x); refusal != nil {
				return refusal
			}
			response.answer(x)
			return next(x)
		}
	}, nil
}

// ClaimsRead implements plugins.ClaimReader.
func (p *Plugin) ClaimsRead(r *routes.Route) (names []string) {
	request, response, err := compile(r)
	if err != nil {
		return nil
	}
	for _, f := range slices.Concat(request.fields, response.fields) {
		names = append(names, f.value.Claims()...)
	}
	return names
}

// EarlyResponses returns the plugin whose steps mark the responses, before
// anything can refuse: what a route says of all its answers, it says of
// refusals too.
func (p *Plugin) EarlyResponses() plugins.Plugin { return early{} }

type early struct{}

// Name implements plugins.Plugin.
func (early) Name() string { return Name }

// Build implements plugins.Plugin.
func (early) Build(r *routes.Route) (plugins.Step, error) {
	_, response, err := compile(r)
	if err != nil {
		return nil, err
	}
	response.keep(func(t *template.Template) bool { return !t.NeedsCaller() })
	if response.empty() {
		return nil, nil
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			response.answer(x)
			return next(x)
		}
	}, nil
}

// rules are compiled Rules.
type rules struct {
	drop    []string // names: folded for requests, in lower case for responses
	fields  []field
	buffers sync.Pool // of *[]byte
}

type field struct {
	name   string
	value  template.Template
	folded string // of a field that is set: what it replaces
	lower  string
}

func (u *rules) empty() bool { return len(u.drop) == 0 && len(u.fields) == 0 }

func (u *rules) keep(wanted func(*template.Template) bool) {
	u.fields = slices.DeleteFunc(u.fields, func(f field) bool { return !wanted(&f.value) })
}

// compile returns the rules of r; empty ones where it has none.
func compile(r *routes.Route) (request, response *rules, err error) {
	request, response = &rules{}, &rules{}
	node := r.Plugin(Name)
	if node.IsZero() {
		return request, response, nil
	}
	var s Settings
	if err := node.Decode(&s); err != nil {
		return nil, nil, err
	}
	var problems routes.Problems
	c := &compiler{route: r, report: func(pos routes.Pos, text string) {
		problems = append(problems, routes.Problem{Pos: pos, Message: fmt.Sprintf("route %q: %s: %s", r.Name, Name, text)})
	}}
	c.rules(&s.Request, "request", forbiddenInRequests, request)
	c.rules(&s.Response, "response", forbiddenInResponses, response)
	if request.empty() && response.empty() && problems == nil {
		c.report(s.Pos, "wants request or response, with set, add or remove")
	}
	if problems != nil {
		return nil, nil, problems
	}
	return request, response, nil
}

type compiler struct {
	route  *routes.Route
	report func(pos routes.Pos, text string)
}

func (c *compiler) rules(s *Rules, what string, forbidden func(folded string) string, u *rules) {
	check := func(name string) bool {
		if why := invalidName(name, what == "request"); why != "" {
			c.report(s.Pos, fmt.Sprintf("%s: %q %s", what, name, why))
			return false
		}
		if why := forbidden(fold(name)); why != "" {
			c.report(s.Pos, fmt.Sprintf("%s: %s %s", what, name, why))
			return false
		}
		return true
	}
	for _, name := range s.Remove {
		switch {
		case !check(name):
		case what == "request":
			u.drop = append(u.drop, fold(name))
		default:
			u.drop = append(u.drop, strings.ToLower(name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Set)) {
		if check(name) {
			u.fields = append(u.fields, field{name: name, value: s.Set[name], folded: fold(name), lower: strings.ToLower(name)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Add)) {
		if _, twice := s.Set[name]; twice {
			c.report(s.Pos, fmt.Sprintf("%s: %s is set and added", what, name))
		} else if check(name) {
			u.fields = append(u.fields, field{name: name, value: s.Add[name]})
		}
	}
	if c.route.Public {
		for _, f := range u.fields {
			if f.value.NeedsCaller() {
				c.report(s.Pos, fmt.Sprintf("%s: %s asks who calls, and the route is public", what, f.name))
			}
		}
	}
}

// forward changes the request; the error refuses it.
func (u *rules) forward(x *plugins.Exchange) error {
	buffer, _ := u.buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	defer u.buffers.Put(buffer)
	received := len(x.Fields)
	for i := range u.fields {
		f := &u.fields[i]
		// Made of what was received, whatever was added meanwhile.
		all := x.Fields
		x.Fields = all[:received]
		value, err := f.value.Append((*buffer)[:0], x)
		x.Fields, *buffer = all, value[:0]
		if errors.Is(err, template.ErrUnsafe) {
			return &plugins.Error{
				Status: http.StatusBadRequest, Code: plugins.BadRequest, Err: err,
				Detail: "A value for the field " + f.name + " is not visible ASCII.",
			}
		}
		if err == nil {
			x.AddRequestField(f.name, value)
		}
	}
	for i := range x.Fields[:received] {
		if f := &x.Fields[i]; !f.Drop {
			f.Drop = u.replaces(f.Name)
		}
	}
	return nil
}

// replaces reports whether a received field must go. Servers read '_' and '.'
// as '-', so other spellings go too (EDGE: S40).
func (u *rules) replaces(name []byte) bool {
	for _, d := range u.drop {
		if foldedEqual(name, d) {
			return true
		}
	}
	for i := range u.fields {
		if u.fields[i].folded != "" && foldedEqual(name, u.fields[i].folded) {
			return true
		}
	}
	return false
}

// answer marks the response; a field whose value is absent or not safe is left
// out.
func (u *rules) answer(x *plugins.Exchange) {
	if u.empty() {
		return
	}
	for _, name := range u.drop {
		x.DropResponseField(name)
	}
	buffer, _ := u.buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	defer u.buffers.Put(buffer)
	for i := range u.fields {
		f := &u.fields[i]
		if f.folded != "" {
			x.DropResponseField(f.lower)
		}
		b := append(append((*buffer)[:0], f.name...), ": "...)
		b, err := f.value.Append(b, x)
		if err == nil {
			b = append(b, '\r', '\n')
			x.AppendResponseFields(b)
		}
		*buffer = b[:0]
	}
}
