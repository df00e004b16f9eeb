// Package apikey admits callers by a key instead of a token.
//
// It owns where keys are looked for, and what a key says about its caller. It
// does not own the keys (routes: api_keys; only hashes are there) or the last
// gate (gateway/forward), which asks for the principal made here.
//
//	api_keys:
//	  partners:
//	    - {owner: acme, sha256: "<64 digits>", scopes: [read:orders]}
//	routes:
//	  - path: /orders/**
//	    api_key: {keys: [partners], scopes: [read:orders]}
package apikey

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// Plugin makes the steps.
type Plugin struct{}

// New returns a Plugin.
func New() *Plugin { return &Plugin{} }

// Name implements plugins.Plugin.
func (p *Plugin) Name() string { return "api_key" }

// endless is the expiry of a key without one.
var endless = time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)

// Build implements plugins.Plugin: nil for a route without api_key. On a route
// in shadow mode the request passes in any case, and Record.ShadowReason tells
// what would have been.
func (p *Plugin) Build(r *routes.Route) (plugins.Step, error) {
	if r.APIKey == nil {
		return nil, nil
	}
	if r.Public || r.Auth != nil {
		return nil, routes.Problem{Pos: r.Pos, Message: fmt.Sprintf("route %q: has api_key beside auth or public: true", r.Name)}
	}
	u := compile(r)
	shadow := r.Mode == "shadow"
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if refusal := u.decide(x); refusal != nil {
				if !shadow {
					return refusal
				}
				x.Record.ShadowReason = refusal.Code
			}
			return next(x)
		}
	}, nil
}

// rule is what a route demands; immutable.
type rule struct {
	header, query string
	scopes        []string
	keys          map[[sha256.Size]byte]*entry

	missing, several, invalid, expired, scope *plugins.Error
}

type entry struct {
	sum       [sha256.Size]byte
	principal *plugins.Principal
}

func compile(r *routes.Route) *rule {
	k := r.APIKey
	u := &rule{
		header: strings.ToLower(k.Header), query: k.Query, scopes: k.Scopes,
		keys: make(map[[sha256.Size]byte]*entry, len(k.Accepted)),
	}
	where := "the field " + k.Header
	if u.query != "" {
		where = "the query parameter " + k.Query
	}
	// RFC 9110, 15.5.2 wants a challenge; no scheme is registered for keys.
	challenge := [][2]string{{"WWW-Authenticate", `ApiKey realm="gatehouse"`}}
	unauthorized := func(code, detail string) *plugins.Error {
		return &plugins.Error{Status: http.StatusUnauthorized, Code: code, Detail: detail, Header: challenge}
	}
	u.missing = unauthorized(plugins.APIKeyMissing, "Send a key in "+where+".")
	u.invalid = unauthorized(plugins.APIKeyInvalid, "")
	u.expired = unauthorized(plugins.APIKeyExpired, "")
	u.several = &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest, Detail: "There is more than one key in " + where + "."}
	u.scope = &plugins.Error{Status: http.StatusForbidden, Code: plugins.ScopeMissing,
		Detail: "This needs the scope " + strings.Join(k.Scopes, " and ") + "."}
	for _, key := range k.Accepted {
		u.keys[key.SHA256] = &entry{key.SHA256, principal(key)}
	}
	return u
}

// principal is what the key says. Its subject is in a namespace that neither
// users nor clients can take.
func principal(key *routes.APIKey) *plugins.Principal {
	p := &plugins.Principal{Subject: "key:" + key.Owner, ClientID: key.ClientID, Scopes: key.Scopes, Expiry: key.Expires}
	if p.Expiry.IsZero() {
		p.Expiry = endless
	}
	p.Identity = plugins.IdentityLines(p)
	return p
}

// decide finds the caller, marks it on x, and returns the refusal.
func (u *rule) decide(x *plugins.Exchange) *plugins.Error {
	key, refusal := u.take(x)
	if refusal != nil {
		return refusal
	}
	// The table is asked with a hash that a caller cannot steer, so how long
	// that takes tells nothing about keys.
	sum := sha256.Sum256(key)
	e := u.keys[sum]
	switch {
	case e == nil || subtle.ConstantTimeCompare(e.sum[:], sum[:]) != 1:
		return u.invalid
	case !x.Time.Before(e.principal.Expiry):
		return u.expired
	}
	x.Principal = e.principal
	for _, s := range u.scopes {
		if !slices.Contains(e.principal.Scopes, s) {
			return u.scope
		}
	}
	return nil
}

// take finds the key and removes it from what the service receives.
func (u *rule) take(x *plugins.Exchange) ([]byte, *plugins.Error) {
	if u.query != "" {
		return u.takeParameter(x)
	}
	var key []byte
	for i := range x.Fields {
		f := &x.Fields[i]
		if len(f.Name) != len(u.header) || !bytes.EqualFold(f.Name, []byte(u.header)) {
			continue
		}
		if key != nil {
			return nil, u.several
		}
		key, f.Drop = f.Value, true
	}
	if len(key) == 0 {
		return nil, u.missing
	}
	return key, nil
}

// takeParameter reads the query as it came, without decoding: keys need no
// escapes, and another spelling of the name is another parameter (EDGE: S34).
func (u *rule) takeParameter(x *plugins.Exchange) ([]byte, *plugins.Error) {
	var key []byte
	rest := make([]byte, 0, len(x.Query))
	for part := range bytes.SplitSeq(x.Query, []byte("&")) {
		name, value, _ := bytes.Cut(part, []byte("="))
		if string(name) == u.query {
			if key != nil {
				return nil, u.several
			}
			key = value
			continue
		}
		if len(rest) > 0 {
			rest = append(rest, '&')
		}
		rest = append(rest, part...)
	}
	if len(key) == 0 {
		return nil, u.missing
	}
	x.Query, x.HasQuery = rest, len(rest) > 0
	return key, nil
}
