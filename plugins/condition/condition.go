// Package condition lets a request of a protected route pass where an
// expression in CEL holds: auth: {condition: "…"}.
//
// It owns the variables of expressions, their checking when the file is read,
// and the bounds of what they may cost. It does not own who calls
// (plugins/auth), which is known when its steps run.
//
//	routes:
//	  - path: /tenants/{id}
//	    auth: {condition: "request.path.startsWith('/tenants/' + claims.tenant)"}
package condition

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

const (
	// mostCost bounds an evaluation. A plain comparison costs a few units, and
	// a unit some tens of nanoseconds.
	mostCost = 100_000
	// mostLength bounds the expression itself.
	mostLength = 4096
)

// Plugin makes the steps.
type Plugin struct {
	env *cel.Env
	err error
}

// New returns a Plugin.
func New() *Plugin {
	p := &Plugin{}
	p.env, p.err = cel.NewEnv(
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("scopes", cel.ListType(cel.StringType)),
		cel.Variable("client", cel.StringType),
		cel.Variable("subject", cel.StringType),
		cel.Variable("request.method", cel.StringType),
		cel.Variable("request.path", cel.StringType),
		cel.Variable("request.host", cel.StringType),
		cel.Variable("request.query", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("request.headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("request.ip", cel.StringType),
		cel.Variable("request.time", cel.TimestampType),
		cel.CrossTypeNumericComparisons(true),
	)
	return p
}

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return "condition" }

// Build implements plugins.Plugin: nil for a route without a condition. On a
// route in shadow mode the request passes in any case, and Record.ShadowReason
// tells what would have been.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	program, _, err := p.compile(r)
	if program == nil || err != nil {
		return nil, err
	}
	u := &rule{program: program, shadow: r.Mode == "shadow"}
	u.facts.New = func() any { return &facts{} }
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if refusal := u.decide(x); refusal != nil {
				if !u.shadow {
					return refusal
				}
				// The first reason stays: auth's, where there is one.
				if x.Record.ShadowReason == "" {
					x.Record.ShadowReason = refusal.Code
				}
			}
			return next(x)
		}
	}, nil
}

// ClaimsRead implements plugins.ClaimReader.
func (p *Plugin) ClaimsRead(r *routes.Route) []string {
	_, claims, err := p.compile(r)
	if err != nil {
		return nil
	}
	return claims
}

// compile returns the program of r and the claims that it asks for; nil where
// there is no condition.
func (p *Plugin) compile(r *routes.Route) (cel.Program, []string, error) {
	if r.Auth == nil || r.Auth.Condition.IsZero() {
		return nil, nil, nil
	}
	node := r.Auth.Condition
	problem := func(format string, args ...any) (cel.Program, []string, error) {
		return nil, nil, routes.Problem{Pos: node.Pos(), Message: fmt.Sprintf("route %q: condition: ", r.Name) + fmt.Sprintf(format, args...)}
	}
	if p.err != nil {
		return problem("%v", p.err)
	}
	var text string
	if err := node.Decode(&text); err != nil {
		return nil, nil, err
	}
	if len(text) > mostLength {
		return problem("is longer than %d characters", mostLength)
	}
	checked, issues := p.env.Compile(text)
	if issues.Err() != nil {
		var list []string
		for _, e := range issues.Errors() {
			list = append(list, fmt.Sprintf("at %d:%d: %s", e.Location.Line(), e.Location.Column()+1, e.Message))
		}
		return problem("%s", strings.Join(list, "; "))
	}
	if t := checked.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return problem("is a %s, and wants to be true or false", t)
	}
	claims, err := claimsOf(checked)
	if err != nil {
		return problem("%v", err)
	}
	estimate, err := p.env.EstimateCost(checked, sizes{})
	if err != nil {
		return problem("%v", err)
	}
	if estimate.Max > mostCost {
		return problem("could cost %d units with the longest request, more than %d", estimate.Max, mostCost)
	}
	program, err := p.env.Program(checked, cel.EvalOptions(cel.OptOptimize), cel.CostLimit(mostCost))
	if err != nil {
		return problem("%v", err)
	}
	return program, claims, nil
}

// sizes are what the static bound of the cost rests on: requests and tokens as
// large as they reasonably are. What larger ones cost is bounded at run time.
type sizes struct{}

const (
	mostEntries = 128  // of claims, scopes, fields and parameters; characters of one of them
	mostText    = 4096 // of all other texts
)

// EstimateSize implements cost.Estimator.
func (sizes) EstimateSize(element cost.AstNode) *cost.SizeEstimate {
	path := element.Path()
	switch {
	case len(path) == 0:
		return nil
	case path[0] == "claims", path[0] == "scopes", len(path) == 1 && (path[0] == "request.query" || path[0] == "request.headers"):
		return &cost.SizeEstimate{Max: mostEntries}
	}
	return &cost.SizeEstimate{Max: mostText}
}

// EstimateCallCost implements cost.Estimator: all functions are CEL's own.
func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// rule is the condition of a route.
type rule struct {
	program cel.Program
	shadow  bool
	facts   sync.Pool // of *facts
}

func (u *rule) decide(x *plugins.Exchange) *plugins.Error {
	if x.Principal == nil {
		// Only where auth refused and its route is in shadow mode.
		return &plugins.Error{Status: http.StatusForbidden, Code: plugins.ConditionDenied}
	}
	f := u.facts.Get().(*facts)
	f.x = x
	verdict, _, err := u.program.Eval(f)
	*f = facts{}
	u.facts.Put(f)
	if err != nil {
		// A claim that is not there, a type that does not fit, the bound of the
		// cost: what cannot be decided is refused.
		return &plugins.Error{Status: http.StatusForbidden, Code: plugins.ConditionDenied, Err: fmt.Errorf("evaluating the condition: %w", err)}
	}
	if allowed, ok := verdict.Value().(bool); !ok || !allowed {
		return denied
	}
	return nil
}

var denied = &plugins.Error{Status: http.StatusForbidden, Code: plugins.ConditionDenied}
