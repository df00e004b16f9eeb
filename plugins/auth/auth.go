// Package auth decides who may call a route: it verifies JWT access tokens of
// the own authorization server and of external issuers, asks the deny set, and
// compares issuer, audience, scopes and claims with what the route demands.
//
// It owns the verifier with its cache and key sets, the edge's deny set, the
// RFC 6750 refusals, and the identity JWT for services. It does not own the
// revocation log and its feed (authserver/revfeed), the signing keys
// (authserver/keys), or the final gate (gateway/forward), which refuses what
// no step has authorised.
//
//	v := auth.NewVerifier(auth.VerifierConfig{Issuer: url, Audience: url, Keys: ring})
//	d := auth.NewDenied(url)
//	p := auth.New(auth.Config{Verifier: v, Denied: d})
//	step, err := p.Build(route) // and v.Run(ctx), d.Run(ctx, time.Now)
package auth

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Config is what a Plugin works with.
type Config struct {
	Verifier TokenVerifier
	// Denied is asked on every request; nil: no token is revoked before it
	// expires.
	Denied *Denied
	// Realm goes into challenges; it may be empty.
	Realm string
	// ResourceMetadata returns the URL of the RFC 9728 document of an audience,
	// "" meaning the default one, for challenges; nil, or "": there is none.
	ResourceMetadata func(audience string) string
	// Proofs remembers DPoP proofs; nil: only this process does.
	Proofs *Proofs
	// Nonces that DPoP proofs must have one of; nil: they need none.
	Nonces *dpop.Nonces
}

// Plugin enforces the auth section of routes.
type Plugin struct{ config Config }

// New makes the Plugin.
func New(config Config) *Plugin {
	if config.Proofs == nil {
		config.Proofs = NewProofs(nil)
	}
	return &Plugin{config}
}

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return "auth" }

// Build implements plugins.Plugin: nil for a public route, else a Step that
// lets a request pass with a Principal that the route permits. On a route in
// shadow mode the request passes in any case, and Record.ShadowReason tells
// what would have been; the Principal is then set only where the token is a
// good one for the route, whatever its scopes.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	if r.Auth == nil && (r.Public || r.APIKey != nil) {
		return nil, nil
	}
	if r.Public {
		return nil, routes.Problem{Pos: r.Pos, Message: "route \"" + r.Name + "\": has auth and public: true"}
	}
	u, err := p.compile(r)
	if err != nil {
		return nil, err
	}
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if refusal := p.decide(u, x); refusal != nil {
				if !u.shadow {
					return refusal
				}
				x.Record.ShadowReason = refusal.Code
			}
			return next(x)
		}
	}, nil
}

// decide authenticates x, marks what it found on it, and returns the refusal.
func (p *Plugin) decide(u *rule, x *plugins.Exchange) *plugins.Error {
	c, count := credentials(x)
	switch {
	case count > 1:
		return u.several
	case c.token == nil:
		return u.absent
	}
	t, hit, err := p.config.Verifier.Verify(context.Background(), c.token, x.ClientIP, x.Time)
	x.Record.CacheHit = hit
	if err != nil {
		return u.failed(err, c.dpop)
	}
	if refusal := p.admit(u, t); refusal != nil {
		return refusal
	}
	if confirm := t.Principal.Confirm; c.dpop || confirm != (plugins.Confirmation{}) {
		if refusal := p.possession(u, x, c, confirm); refusal != nil {
			return refusal
		}
	}
	x.Principal, x.Standing = t.Principal, p
	// Token and proof were meant for this gateway: a service could replay them.
	c.field.Drop = !u.forward
	if c.dpop && !u.forward {
		drop(x, fieldDPoP)
	}
	if refusal := u.permits(t.Principal); refusal != nil {
		return refusal
	}
	return u.signIn.suffices(t.Principal, x.Time)
}

func (p *Plugin) admit(u *rule, t *Token) *plugins.Error {
	// After the cache, on every request: nothing has to be invalidated.
	if p.config.Denied != nil && p.config.Denied.Denies(t.Principal) {
		return u.revoked
	}
	return u.admits(t)
}

// Stands implements plugins.Standing.
func (p *Plugin) Stands(who *plugins.Principal, _ time.Time) string {
	if p.config.Denied != nil && p.config.Denied.Denies(who) {
		return plugins.TokenRevoked
	}
	return ""
}

// Judge tells how the route decides at now about t, which may be nil for a
// request without a token; nil: it lets it pass. It is for `check` and `explain`.
func (p *Plugin) Judge(r *routes.Route, t *Token, now time.Time) error {
	if r.Public {
		return nil
	}
	u, err := p.compile(r)
	if err != nil {
		return err
	}
	refusal := u.absent
	if t != nil {
		if refusal = p.admit(u, t); refusal == nil {
			refusal = u.permits(t.Principal)
		}
		if refusal == nil {
			refusal = u.signIn.suffices(t.Principal, now)
		}
	}
	if refusal == nil {
		return nil
	}
	return refusal
}

// failed adds the route's challenge to an error of the verifier. An error of
// another kind refuses too.
func (u *rule) failed(err error, dpop bool) *plugins.Error {
	var known *plugins.Error
	if !errors.As(err, &known) {
		return &plugins.Error{Status: http.StatusInternalServerError, Code: plugins.Internal, Err: err}
	}
	if known.Status != http.StatusUnauthorized {
		return known
	}
	refusal := *known
	refusal.Header = u.invalid
	if dpop {
		refusal.Header = u.failedDPoP
	}
	return &refusal
}

// drop keeps the fields of a name, in lower case, from being forwarded.
func drop(x *plugins.Exchange, name string) {
	for i := range x.Fields {
		if f := &x.Fields[i]; len(f.Name) == len(name) && fold(f.Name, name) {
			f.Drop = true
		}
	}
}
