package condition

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/gatehouse/gatehouse/plugins"
)

// facts are the variables of one evaluation; each is made when it is asked for.
type facts struct {
	x *plugins.Exchange
}

var _ cel.Activation = (*facts)(nil)

// Parent implements cel.Activation.
func (f *facts) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (f *facts) ResolveName(name string) (any, bool) {
	x, p := f.x, f.x.Principal
	switch name {
	case "claims":
		return claims(p), true
	case "scopes":
		return p.Scopes, true
	case "client":
		return p.ClientID, true
	case "subject":
		return p.Subject, true
	case "request.method":
		return string(x.Method), true
	case "request.path":
		return string(x.Path), true
	case "request.host":
		return string(x.Host), true
	case "request.ip":
		return x.ClientIP.String(), true
	case "request.time":
		return x.Time, true
	case "request.headers":
		return headers(x), true
	case "request.query":
		parameters, err := query(x)
		if err != nil {
			return types.WrapErr(err), true
		}
		return parameters, true
	}
	return nil, false
}

func claims(p *plugins.Principal) map[string]any {
	m := make(map[string]any, len(p.Claims))
	for _, c := range p.Claims {
		m[c.Name] = c.Value
	}
	return m
}

// headers are the fields that the service will see, names in lower case.
func headers(x *plugins.Exchange) map[string]string {
	m := make(map[string]string, len(x.Fields))
	for i := range x.Fields {
		f := &x.Fields[i]
		if f.Drop {
			continue
		}
		name := string(bytes.ToLower(f.Name))
		if before, twice := m[name]; twice {
			m[name] = before + ", " + string(f.Value)
		} else {
			m[name] = string(f.Value)
		}
	}
	return m
}

var errSeveral = errors.New("a query parameter is there twice")

// query refuses what the service could read in another way (EDGE: S34).
func query(x *plugins.Exchange) (map[string]string, error) {
	values, err := url.ParseQuery(string(x.Query))
	if err != nil {
		return nil, errors.New("the query is malformed")
	}
	m := make(map[string]string, len(values))
	for name, list := range values {
		if len(list) > 1 {
			return nil, errSeveral
		}
		m[name] = list[0]
	}
	return m, nil
}

// claimsOf names the claims of an expression. Tokens are searched for these
// and no others, so every use of claims must name one.
func claimsOf(checked *cel.Ast) (names []string, err error) {
	uses, named := 0, 0
	isClaims := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == "claims" }
	add := func(name string) {
		named++
		names = append(names, name)
	}
	literal := func(e ast.Expr) (string, bool) {
		if e.Kind() != ast.LiteralKind {
			return "", false
		}
		s, ok := e.AsLiteral().Value().(string)
		return s, ok
	}
	ast.PostOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.IdentKind:
			if isClaims(e) {
				uses++
			}
		case ast.SelectKind:
			if isClaims(e.AsSelect().Operand()) {
				add(e.AsSelect().FieldName())
			}
		case ast.CallKind:
			call := e.AsCall()
			args := call.Args()
			if len(args) != 2 {
				return
			}
			if s, ok := literal(args[1]); ok && call.FunctionName() == operators.Index && isClaims(args[0]) {
				add(s)
			}
			if s, ok := literal(args[0]); ok && call.FunctionName() == operators.In && isClaims(args[1]) {
				add(s)
			}
		}
	}))
	if uses != named {
		return nil, fmt.Errorf("claims can only be named, as in %s", strings.Join([]string{`claims.tenant`, `claims["tenant"]`, `has(claims.tenant)`}, ", "))
	}
	return names, nil
}
