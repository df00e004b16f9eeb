package auth

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// rule is what a route demands, and its refusals, rendered when the route was
// built. Refusals are shared by requests and never changed.
type rule struct {
	all, any  []string
	audience  string
	issuers   []string
	claims    []claim
	forward   bool
	shadow    bool
	invalid   [][2]string // the challenge for a bad token
	several   *plugins.Error
	absent    *plugins.Error
	revoked   *plugins.Error
	untrusted *plugins.Error
	misused   *plugins.Error
	scope     *plugins.Error
	signIn    stepUp

	dpop        bool // only tokens that are bound to a key
	failedDPoP  [][2]string
	unproven    *plugins.Error
	nonce       *plugins.Error
	unbound     *plugins.Error
	bearer      *plugins.Error
	uncertified *plugins.Error
}

type claim struct {
	name    string
	values  []string
	missing *plugins.Error
}

// compile checks r and makes its rule.
func (p *Plugin) compile(r *routes.Route) (*rule, error) {
	a := r.Auth
	problem := func(at routes.Pos, text string, args ...any) error {
		return routes.Problem{Pos: at, Message: fmt.Sprintf("route %q: ", r.Name) + fmt.Sprintf(text, args...)}
	}
	if a == nil {
		return nil, problem(r.Pos, "has neither auth nor public: true")
	}
	for _, s := range slices.Concat(a.Scopes, a.AnyScopes) {
		if !scopeToken(s) {
			return nil, problem(a.Pos, "auth: scope %q has a character that no scope may have", s)
		}
	}
	u := &rule{
		all: a.Scopes, any: a.AnyScopes, audience: a.Audience, issuers: a.Issuers,
		forward: a.ForwardToken, shadow: r.Mode == "shadow",
	}
	needs := u.needs()
	c := challenge{realm: p.config.Realm, scope: needs}
	if p.config.ResourceMetadata != nil {
		c.metadata = p.config.ResourceMetadata(a.Audience)
	}
	u.invalid = c.header(oauth.InvalidToken)
	refuse := func(status int, code, detail string, header [][2]string) *plugins.Error {
		return &plugins.Error{Status: status, Code: code, Detail: detail, Header: header}
	}
	unauthorized := func(code string) *plugins.Error {
		return refuse(http.StatusUnauthorized, code, "", u.invalid)
	}
	u.absent = refuse(http.StatusUnauthorized, plugins.TokenMissing,
		"Send an access token as \"Authorization: Bearer …\".", c.header(""))
	u.several = refuse(http.StatusBadRequest, plugins.BadRequest,
		"There is more than one Authorization field.", c.header(oauth.InvalidRequest))
	u.revoked = unauthorized(plugins.TokenRevoked)
	u.untrusted = unauthorized(plugins.IssuerUntrusted)
	u.misused = unauthorized(plugins.AudienceMismatch)
	u.scope = refuse(http.StatusForbidden, plugins.ScopeMissing,
		"This needs the scope "+u.describe()+".", c.header(oauth.InsufficientScope))
	u.bindings(c, a.DPoP == "required")
	u.signIn = newStepUp(a, c)
	c.scope = "" // another token with the same scopes would not help
	for name, values := range a.Claims {
		u.claims = append(u.claims, claim{name, values, refuse(http.StatusForbidden, plugins.ClaimMissing,
			fmt.Sprintf("The token's claim %q has none of the values that this needs.", name), c.header(oauth.InsufficientScope))})
	}
	slices.SortFunc(u.claims, func(a, b claim) int { return strings.Compare(a.name, b.name) })
	return u, nil
}

// needs is a set of scopes that suffices: all of all, and the first of any.
func (u *rule) needs() string {
	list := slices.Clone(u.all)
	if len(u.any) > 0 && !slices.ContainsFunc(u.any, func(s string) bool { return slices.Contains(list, s) }) {
		list = append(list, u.any[0])
	}
	return strings.Join(list, " ")
}

func (u *rule) describe() string {
	var parts []string
	if len(u.all) > 0 {
		parts = append(parts, strings.Join(u.all, " and "))
	}
	if len(u.any) > 0 {
		parts = append(parts, "one of "+strings.Join(u.any, ", "))
	}
	return strings.Join(parts, ", and ")
}

// admits decides whether the token is one for this route at all.
func (u *rule) admits(t *Token) *plugins.Error {
	if len(u.issuers) > 0 && !slices.Contains(u.issuers, t.Principal.Issuer) {
		return u.untrusted
	}
	if u.audience == "" && !t.Audience || u.audience != "" && !slices.Contains(t.Principal.Audience, u.audience) {
		return u.misused
	}
	if u.dpop && t.Principal.Confirm.Key == "" {
		return u.bearer
	}
	return nil
}

// permits decides whether the token's holder may use the route.
func (u *rule) permits(p *plugins.Principal) *plugins.Error {
	for _, s := range u.all {
		if !p.HasScope(s) {
			return u.scope
		}
	}
	if len(u.any) > 0 && !slices.ContainsFunc(u.any, p.HasScope) {
		return u.scope
	}
	for i := range u.claims {
		c := &u.claims[i]
		if !slices.ContainsFunc(p.Claim(c.name), func(v string) bool { return slices.Contains(c.values, v) }) {
			return c.missing
		}
	}
	return nil
}

// challenge is a WWW-Authenticate value (RFC 6750, 3; RFC 9728, 5.1; RFC 9449,
// 7.1). The scheme is Bearer if it is not another.
type challenge struct{ scheme, realm, scope, metadata string }

func (c challenge) header(code string) [][2]string {
	var params []string
	scheme := "Bearer"
	if c.scheme != "" {
		scheme = c.scheme
		params = append(params, `algs="`+strings.Join(dpop.Algorithms, " ")+`"`)
	}
	for _, p := range [][2]string{
		{"realm", c.realm}, {"error", code}, {"scope", c.scope}, {"resource_metadata", c.metadata},
	} {
		if p[1] != "" {
			params = append(params, p[0]+`="`+quoted.Replace(p[1])+`"`)
		}
	}
	return [][2]string{{"WWW-Authenticate", strings.TrimSuffix(scheme+" "+strings.Join(params, ", "), " ")}}
}

var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\r", "", "\n", "")
