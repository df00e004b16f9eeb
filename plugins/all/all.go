// Package all is the list of the gateway's plugins in the order in which they
// see a request. The order is security, so it stands here and nowhere else, and
// operators cannot change it.
//
// It owns the order; every plugin owns its policy, and cmd/gatehouse makes them.
//
//	gateway.Config{Plugins: all.All(all.Deps{Auth: auth, RateLimit: limits, …})}
package all

import (
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/plugins/apikey"
	"github.com/gatehouse/gatehouse/plugins/auth"
	"github.com/gatehouse/gatehouse/plugins/bodylimit"
	"github.com/gatehouse/gatehouse/plugins/breaker"
	"github.com/gatehouse/gatehouse/plugins/cache"
	"github.com/gatehouse/gatehouse/plugins/canary"
	"github.com/gatehouse/gatehouse/plugins/clientcert"
	"github.com/gatehouse/gatehouse/plugins/compress"
	"github.com/gatehouse/gatehouse/plugins/condition"
	"github.com/gatehouse/gatehouse/plugins/cors"
	"github.com/gatehouse/gatehouse/plugins/forwardauth"
	"github.com/gatehouse/gatehouse/plugins/headers"
	"github.com/gatehouse/gatehouse/plugins/ipallow"
	"github.com/gatehouse/gatehouse/plugins/mirror"
	"github.com/gatehouse/gatehouse/plugins/ratelimit"
	"github.com/gatehouse/gatehouse/plugins/redirect"
	"github.com/gatehouse/gatehouse/plugins/retry"
	"github.com/gatehouse/gatehouse/plugins/rewrite"
)

// Deps are the plugins that need something of the process, so that it makes
// them.
type Deps struct {
	Auth *auth.Plugin
	// Identity may be nil where there is no key to sign identities with.
	Identity  *auth.Identity
	RateLimit *ratelimit.Plugin
	Retry     *retry.Plugin
	Breaker   *breaker.Plugin
}

// All returns the plugins in their order.
func All(d Deps) []plugins.Plugin {
	rules := headers.New()
	list := []plugins.Plugin{
		// Whoever may not come at all learns nothing more.
		ipallow.New(),
		// Refusals of all others need their fields: a page could not read them
		// else, and what is said of all answers is said of refusals too.
		cors.New(),
		rules.EarlyResponses(),
		// Who came in plain must not be asked for a token.
		redirect.New(),
		// What can be refused by the head alone costs nothing else.
		bodylimit.New(),
		// Limits by address come before auth: they also slow down who guesses
		// tokens, and whose floods would cost a verification each.
		d.RateLimit.ByAddress(),
		// The handshake is over, so this is cheaper than looking at a token.
		clientcert.New(),
		// Behind these every request has a principal, or its route is public.
		apikey.New(),
		d.Auth,
		condition.New(),
		// All other limits come behind auth. Those by client or claim need the
		// principal; those by route would else be used up for everybody by
		// requests that auth refuses.
		d.RateLimit,
		// Limits spare whoever is asked, too.
		forwardauth.New(),
		// Outside of all that answers, so that it encodes whatever comes.
		compress.New(),
		// From here on there is one service: each has its own identity JWT,
		// retries and breaker.
		canary.New(),
	}
	if d.Identity != nil {
		// Only a request that will be forwarded is worth a signature.
		list = append(list, d.Identity)
	}
	return append(list,
		// They change what is forwarded; everything that judges the request has
		// judged it.
		rules,
		rewrite.New(),
		// Behind all that decides, and behind all that changes the request: what
		// a response was selected by is known here.
		cache.New(),
		// Copies are of what the service itself gets.
		mirror.New(nil),
		// Retry stands before the breaker: the circuit judges every attempt,
		// and none is repeated against an open circuit.
		d.Retry,
		d.Breaker,
	)
}

// Names are the keys that plugins add to a route in the configuration file.
// Those of auth, rate_limit and of services are part of the file itself.
func Names() []string {
	return []string{bodylimit.Name, cache.Name, compress.Name, cors.Name, forwardauth.Name, headers.Name, ipallow.Name, redirect.Name}
}
