package auth

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

const (
	identityLife = time.Minute
	identityUse  = "identity"
	identitySets = 1024 // of eight: tokens times services that are remembered
	identityLine = "X-Auth-Identity: "
)

// Signer signs claims as a JWT with the key of a use; authserver/keys has it.
type Signer interface {
	Sign(use, typ string, claims any) (string, error)
}

// Identity is the plugin that tells a service with `identity: {jwt: true}` who
// calls, as a JWT of one minute that only this service may accept. It comes
// after auth in the chain and does nothing for requests without a Principal.
type Identity struct {
	signer Signer
	issuer string
	seed   maphash.Seed
	sets   [identitySets][ways]atomic.Pointer[identityEntry]
	hands  [identitySets]atomic.Uint32
}

// identityEntry is a signed line for one token and one service. A Principal is
// one verification of one token, so its address names the token; the entry
// keeps it from being used for another.
type identityEntry struct {
	principal *plugins.Principal
	service   string
	line      []byte
	signed    time.Time
	renewing  atomic.Bool
}

// identityClaims is the payload. Subject is unique only together with
// TokenIssuer, who issued the access token.
type identityClaims struct {
	Issuer      string `json:"iss"`
	Audience    string `json:"aud"`
	Subject     string `json:"sub"`
	Issued      int64  `json:"iat"`
	Expiry      int64  `json:"exp"`
	TokenIssuer string `json:"token_iss"`
	ClientID    string `json:"client_id,omitempty"`
	Scope       string `json:"scope,omitempty"`
	Session     string `json:"sid,omitempty"`
}

// NewIdentity makes the plugin; issuer is the own one, whose JWKS holds the
// key.
func NewIdentity(signer Signer, issuer string) *Identity {
	return &Identity{signer: signer, issuer: issuer, seed: maphash.MakeSeed()}
}

// Name implements plugins.Plugin.
func (i *Identity) Name() string { return identityUse }

// Build implements plugins.Plugin: nil where the service wants no JWT.
func (i *Identity) Build(r *routes.Route) (plugins.Step, error) {
	if r.Upstream == nil || !r.Upstream.Identity.JWT {
		return nil, nil
	}
	if i.signer == nil {
		return nil, routes.Problem{Pos: r.Upstream.Pos, Message: fmt.Sprintf(
			"service %q: identity: jwt: true needs the authorization server's keys (authserver:)", r.Upstream.Name)}
	}
	service := r.Upstream.Name
	return func(next plugins.Handler) plugins.Handler {
		return func(x *plugins.Exchange) error {
			if x.Principal != nil {
				line, err := i.line(x.Principal, service, x.Time)
				if err != nil {
					return err
				}
				x.IdentityLines = line
			}
			return next(x)
		}
	}, nil
}

// line returns the header line for p and service. From half of its life on,
// one request renews it while the others go on with the old one.
func (i *Identity) line(p *plugins.Principal, service string, now time.Time) ([]byte, error) {
	s := maphash.Comparable(i.seed, p) ^ maphash.String(i.seed, service)
	set := &i.sets[s%identitySets]
	at := -1
	var usable []byte // good for a quarter of its life at least
	for w := range set {
		e := set[w].Load()
		if e == nil || e.principal != p || e.service != service {
			continue
		}
		at = w
		if age := now.Sub(e.signed); age < identityLife*3/4 {
			usable = e.line
			if age < identityLife/2 || !e.renewing.CompareAndSwap(false, true) {
				return usable, nil
			}
		}
		break
	}
	token, err := i.sign(p, service, now)
	if err != nil {
		if usable != nil {
			return usable, nil
		}
		return nil, &plugins.Error{
			Status: http.StatusServiceUnavailable, Code: plugins.KeysUnavailable,
			Header: [][2]string{{"Retry-After", "5"}},
			Err:    fmt.Errorf("signing an identity for service %q: %w", service, err),
		}
	}
	if at < 0 {
		at = int(i.hands[s%identitySets].Add(1) % ways)
	}
	e := &identityEntry{principal: p, service: service, signed: now, line: []byte(identityLine + token + "\r\n")}
	set[at].Store(e)
	return e.line, nil
}

func (i *Identity) sign(p *plugins.Principal, service string, now time.Time) (string, error) {
	c := identityClaims{
		Issuer: i.issuer, Audience: service, Subject: p.Subject, TokenIssuer: p.Issuer,
		Issued: now.Unix(), Expiry: now.Add(identityLife).Unix(),
		ClientID: p.ClientID, Session: p.Session,
	}
	for n, s := range p.Scopes {
		if n > 0 {
			c.Scope += " "
		}
		c.Scope += s
	}
	return i.signer.Sign(identityUse, oauth.TypeIdentity, c)
}
