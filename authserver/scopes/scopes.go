// Package scopes knows which scopes and which resources exist, and which of
// them a request may have.
//
// It owns the rules of narrowing. It does not own who may ask for what: that
// is a list of the client, given to it.
//
//	granted, err := catalogue.Grant(form.Value("scope"), client.Scopes)
//	audience, err := catalogue.Audience(form.All("resource"))
package scopes

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Scopes that mean something to the server itself.
const (
	OpenID        = "openid"
	Profile       = "profile"
	Email         = "email"
	OfflineAccess = "offline_access"
	// Admin and Read open the admin API. Like every scope of the server itself
	// they are given to clients in their own name only: what a user may do here
	// is not the client's to decide, and users have no such right to pass on.
	Admin = "gatehouse:admin"
	Read  = "gatehouse:read"
	// Introspect lets a client, as a resource server, look at the tokens of
	// other clients.
	Introspect = "gatehouse:introspect"
)

var (
	standard = []string{OpenID, Profile, Email, OfflineAccess}
	internal = []string{Admin, Read, Introspect}
)

// Catalogue is safe for concurrent use.
type Catalogue struct {
	audience string
	current  atomic.Pointer[Prepared]
}

// Prepared is a checked set of declared scopes and resources.
type Prepared struct {
	descriptions map[string]string
	resources    []string
}

// New returns a catalogue whose tokens are for audience where a request names
// no resource.
func New(audience string) *Catalogue {
	c := &Catalogue{audience: audience}
	c.current.Store(&Prepared{})
	return c
}

// Prepare checks scopes, with their descriptions, and further resources.
func Prepare(descriptions map[string]string, resources []string) (*Prepared, error) {
	var problems []error
	for name := range descriptions {
		switch {
		case !Valid(name):
			problems = append(problems, fmt.Errorf("scope %q holds a character that RFC 6749, 3.3 does not allow", name))
		case slices.Contains(standard, name) || slices.Contains(internal, name):
			problems = append(problems, fmt.Errorf("scope %q exists already and means something to the server", name))
		}
	}
	return &Prepared{descriptions, slices.Clone(resources)}, errors.Join(problems...)
}

// Known reports whether the scope exists in the prepared set.
func (p *Prepared) Known(scope string) bool {
	_, ok := p.descriptions[scope]
	return ok || slices.Contains(standard, scope) || slices.Contains(internal, scope)
}

// Declare makes the prepared set what exists.
func (c *Catalogue) Declare(p *Prepared) { c.current.Store(p) }

// Known reports whether the scope exists.
func (c *Catalogue) Known(scope string) bool { return c.current.Load().Known(scope) }

// Description is what the configuration says about a scope, "" where it says
// nothing.
func (c *Catalogue) Description(scope string) string { return c.current.Load().descriptions[scope] }

// Described is a scope as people are asked about it.
type Described struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
}

// Describe returns the scopes of these names with their descriptions.
func (c *Catalogue) Describe(names []string) []Described {
	list := make([]Described, 0, len(names))
	for _, name := range names {
		list = append(list, Described{name, c.Description(name)})
	}
	return list
}

// Advertised returns the scopes for the metadata: all but the internal ones.
func (c *Catalogue) Advertised() []string {
	list := slices.Clone(standard)
	for name := range c.current.Load().descriptions {
		list = append(list, name)
	}
	slices.Sort(list[len(standard):])
	return list
}

// Personal is the allowed list without the server's own scopes, for requests
// in the name of a user.
func Personal(allowed []string) []string {
	return slices.DeleteFunc(slices.Clone(allowed), func(s string) bool { return slices.Contains(internal, s) })
}

// Grant returns the scopes that a request gets: those asked for, each once.
// Where none is asked for it gets the whole allowed list, but neither
// offline_access nor the server's own scopes, which have to be meant. One that
// is not allowed, or does not exist any more, makes the request invalid_scope.
func (c *Catalogue) Grant(asked string, allowed []string) ([]string, error) {
	p := c.current.Load()
	if asked == "" {
		all := make([]string, 0, len(allowed))
		for _, s := range allowed {
			if s != OfflineAccess && !slices.Contains(internal, s) && p.Known(s) {
				all = append(all, s)
			}
		}
		return all, nil
	}
	granted := make([]string, 0, 4)
	for s := range strings.SplitSeq(asked, " ") {
		switch {
		case s == "" || slices.Contains(granted, s):
		case !slices.Contains(allowed, s) || !p.Known(s):
			return nil, oauth.Refuse(oauth.InvalidScope, "a scope does not exist or is not allowed to this client")
		default:
			granted = append(granted, s)
		}
	}
	return granted, nil
}

// Still returns those of the scopes granted earlier that the client is still
// allowed and that still exist.
func (c *Catalogue) Still(granted, allowed []string) []string {
	p := c.current.Load()
	var left []string
	for _, s := range granted {
		if slices.Contains(allowed, s) && p.Known(s) {
			left = append(left, s)
		}
	}
	return left
}

// Audience returns the `aud` of a token for the resources asked for (RFC 8707).
// Where none is, it is the default one, or, if that is not allowed to the
// client, the only one that is. One that is unknown, or not in allowed where
// that is not empty, is invalid_target.
func (c *Catalogue) Audience(resources, allowed []string) ([]string, error) {
	if len(resources) == 0 {
		switch {
		case len(allowed) == 0 || slices.Contains(allowed, c.audience):
			resources = []string{c.audience}
		case len(allowed) == 1:
			resources = allowed
		default:
			return nil, oauth.Refuse(oauth.InvalidTarget, "resource is missing: this client has several")
		}
	}
	var audience []string
	for _, r := range resources {
		if !c.Resource(r) || len(allowed) > 0 && !slices.Contains(allowed, r) {
			return nil, oauth.Refuse(oauth.InvalidTarget, "a resource is unknown here, or not allowed to this client")
		}
		if !slices.Contains(audience, r) {
			audience = append(audience, r)
		}
	}
	return audience, nil
}

// Narrow returns the audience for the resources asked for out of those granted
// earlier; all of them where none is asked for.
func (c *Catalogue) Narrow(asked, granted, allowed []string) ([]string, error) {
	if len(asked) == 0 {
		asked = granted
	}
	for _, r := range asked {
		if !slices.Contains(granted, r) {
			return nil, oauth.Refuse(oauth.InvalidTarget, "a resource was not granted")
		}
	}
	return c.Audience(asked, allowed)
}

// Resource reports whether tokens may be for this audience.
func (c *Catalogue) Resource(r string) bool {
	return r == c.audience || slices.Contains(c.current.Load().resources, r)
}

// Valid reports whether s is a scope-token (RFC 6749, 3.3).
func Valid(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}
