// Package cors tells browsers which pages of other origins may call a route
// (Fetch standard, "CORS protocol").
//
// It owns the answers to preflights, which are given before any credential is
// asked for, and the Access-Control fields of all answers, refusals among them.
// What a service says in such fields is replaced. It does not protect anything
// from clients that are no browsers.
//
//	routes:
//	  - path: /orders/**
//	    cors: {origins: [https://app.example.com], credentials: true}
package cors

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Name is the key of the setting on a route.
const Name = "cors"

// Settings are what stands under the key.
type Settings struct {
	Pos     routes.Pos
	Origins []Origin      `yaml:"origins"`
	Methods []Word        `yaml:"methods"` // default: those that lead to the route
	Headers []Word        `yaml:"headers"` // default: Authorization, Content-Type; "*": whatever is asked for
	Expose  []Word        `yaml:"expose"`
	MaxAge  time.Duration `yaml:"max_age"` // default 10m
	// Credentials lets pages send cookies and client certificates.
	Credentials bool `yaml:"credentials"`
}

const (
	defaultAge = 10 * time.Minute
	longestAge = 24 * time.Hour // no browser remembers longer
)

// Plugin makes the steps and the answers to preflights.
type Plugin struct{}

// New returns a Plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return Name }

// Build implements plugins.Plugin: nil for a route without cors.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	u, err := compile(r)
	if u == nil || err != nil {
		return nil, err
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			u.mark(x)
			return next(x)
		}
	}, nil
}

// Preflight implements plugins.Preflighter.
func (p *Plugin) Preflight(r *routes.Route) (plugins.Handler, error) {
	u, err := compile(r)
	if u == nil || err != nil {
		return nil, err
	}
	return u.preflight, nil
}

// rule is what a route's answers say; immutable.
type rule struct {
	origins     []Origin
	any         bool // and without credentials, so that the answer is "*"
	methods     []Word
	echoHeaders bool
	// preflightLines and answerLines follow the origin.
	preflightLines, answerLines []byte
}

func compile(r *routes.Route) (*rule, error) {
	node := r.Plugin(Name)
	if node.IsZero() {
		return nil, nil
	}
	s := Settings{MaxAge: defaultAge}
	if err := node.Decode(&s); err != nil {
		return nil, err
	}
	problem := func(text string) error {
		return routes.Problem{Pos: s.Pos, Message: fmt.Sprintf("route %q: %s: %s", r.Name, Name, text)}
	}
	anyOrigin := slices.ContainsFunc(s.Origins, func(o Origin) bool { return o.any })
	switch {
	case len(s.Origins) == 0:
		return nil, problem("origins is missing")
	case anyOrigin && len(s.Origins) > 1:
		return nil, problem(`origins: "*" stands alone`)
	case anyOrigin && s.Credentials:
		return nil, problem(`origins: "*" with credentials would let every page act as its visitor; list the origins`)
	case s.MaxAge > longestAge:
		return nil, problem("max_age: no browser remembers longer than 24h")
	case slices.Contains(s.Expose, "*") && s.Credentials:
		return nil, problem(`expose: "*" has no meaning with credentials; list the fields`)
	case slices.Contains(s.Methods, "*"):
		return nil, problem("methods: leave it out for every method of the route")
	}
	if len(s.Headers) == 0 {
		s.Headers = []Word{"Authorization", "Content-Type"}
	}
	u := &rule{origins: s.Origins, any: anyOrigin, methods: s.Methods, echoHeaders: slices.Contains(s.Headers, "*")}
	if !u.echoHeaders {
		u.preflightLines = line(u.preflightLines, "Access-Control-Allow-Headers", join(s.Headers))
	}
	if s.Credentials {
		u.preflightLines = line(u.preflightLines, "Access-Control-Allow-Credentials", "true")
		u.answerLines = line(u.answerLines, "Access-Control-Allow-Credentials", "true")
	}
	u.preflightLines = line(u.preflightLines, "Access-Control-Max-Age", strconv.Itoa(int(s.MaxAge/time.Second)))
	if len(s.Expose) > 0 {
		u.answerLines = line(u.answerLines, "Access-Control-Expose-Headers", join(s.Expose))
	}
	return u, nil
}

func line(b []byte, name, value string) []byte {
	return fmt.Appendf(b, "%s: %s\r\n", name, value)
}

func join(words []Word) string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	return strings.Join(list, ", ")
}

// answered are the fields of a service that would contradict the gateway's.
var answered = []string{
	"access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods",
	"access-control-allow-headers", "access-control-expose-headers", "access-control-max-age",
}

var (
	varyOrigin     = []byte("Vary: Origin\r\n")
	allowAnyOrigin = []byte("Access-Control-Allow-Origin: *\r\n")
)

// mark adds the fields of an answer, whoever will write it.
func (u *rule) mark(x *plugins.Exchange) {
	for _, name := range answered {
		x.DropResponseField(name)
	}
	if u.any {
		x.AppendResponseFields(allowAnyOrigin)
		x.AppendResponseFields(u.answerLines)
		return
	}
	// Caches must tell origins apart, also for requests that have none.
	x.AppendResponseFields(varyOrigin)
	if origin, n := x.Field("origin"); n == 1 && u.allows(origin) {
		allow(x, origin)
		x.AppendResponseFields(u.answerLines)
	}
}

var (
	allowOrigin = []byte("Access-Control-Allow-Origin: ")
	lineEnd     = []byte("\r\n")
)

func allow(x *plugins.Exchange, origin []byte) {
	x.AppendResponseFields(allowOrigin)
	x.AppendResponseFields(origin)
	x.AppendResponseFields(lineEnd)
}

func (u *rule) allows(origin []byte) bool {
	for i := range u.origins {
		if u.origins[i].matches(origin) {
			return true
		}
	}
	return false
}

var refusal = &plugins.Error{Status: http.StatusForbidden, Code: plugins.OriginDenied}

// preflight answers OPTIONS for the method that the browser asks about. The
// exchange's route is the one that the real request would take.
func (u *rule) preflight(x *plugins.Exchange) error {
	x.AppendResponseFields([]byte("Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"))
	origin, n := x.Field("origin")
	method, _ := x.Field("access-control-request-method")
	if n != 1 || !isName(method) || !u.any && !u.allows(origin) {
		return refusal
	}
	if len(u.methods) > 0 && !slices.Contains(u.methods, Word(method)) {
		return refusal
	}
	fields := make([]byte, 0, 512)
	if u.any {
		fields = append(fields, allowAnyOrigin...)
	} else {
		fields = append(append(append(fields, allowOrigin...), origin...), lineEnd...)
	}
	fields = append(append(append(fields, "Access-Control-Allow-Methods: "...), method...), lineEnd...)
	if asked, n := x.Field("access-control-request-headers"); u.echoHeaders && n == 1 && listOfNames(asked) {
		fields = append(append(append(fields, "Access-Control-Allow-Headers: "...), asked...), lineEnd...)
	}
	fields = append(fields, u.preflightLines...)
	head := plugins.ResponseHead{Status: http.StatusNoContent, Fields: fields, Date: true}
	// A preflight has no content; one that has would be read as the next request.
	head.Close = x.Body != nil
	if err := x.Client.WriteHead(head); err != nil {
		return err
	}
	return x.Client.Finish()
}

func listOfNames(v []byte) bool {
	return len(bytes.Trim(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ")) == 0 &&
		!bytes.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' })
}
