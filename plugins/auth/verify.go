package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"

	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// leeway is how far clocks may differ, in seconds, for every issuer alike.
const leeway = 30

// TokenVerifier turns a bearer token into the facts that it states.
type TokenVerifier interface {
	// Verify returns what token, which is lent, says at now, and whether that
	// was known already. from is the client's address: failed verifications
	// are limited by it. Every error is a *plugins.Error without a challenge.
	// A verified token may still be revoked, and for another audience.
	Verify(ctx context.Context, token []byte, from netip.Addr, now time.Time) (t *Token, hit bool, err error)
}

// VerifierConfig is what a Verifier needs for its life.
type VerifierConfig struct {
	// Issuer is the own authorization server, Keys its keys, Audience what its
	// tokens for this gateway name, by default the issuer. Issuer may be
	// empty: there is none.
	Issuer, Audience string
	Keys             KeySource
	// Now tells the time of background work; nil: time.Now.
	Now func() time.Time
	// CacheEntries bounds the verified tokens that are remembered; 0: 100,000.
	CacheEntries int
	// KeyError is told when the keys of an external issuer cannot be had; may
	// be nil.
	KeyError func(issuer string, err error)
}

// Verifier verifies JWT access tokens (RFC 9068, and what other issuers make
// of it) of the own server and of external issuers. It is safe for concurrent
// use.
type Verifier struct {
	config  VerifierConfig
	client  *http.Client
	setting sync.Mutex
	changed chan struct{}
	trust   atomic.Pointer[map[string]*trusted]
	wanted  atomic.Pointer[[]string]
	epoch   atomic.Uint64 // of wanted
	cache   *cache
	refused refused
	flood   flood
	flight  singleflight.Group
}

var _ TokenVerifier = (*Verifier)(nil)

// NewVerifier makes a Verifier that trusts the own issuer only. It panics on
// an Issuer without Keys.
func NewVerifier(config VerifierConfig) *Verifier {
	if config.Issuer != "" && config.Keys == nil {
		panic("auth: VerifierConfig has an Issuer and no Keys")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Audience == "" {
		config.Audience = config.Issuer
	}
	if config.CacheEntries == 0 {
		config.CacheEntries = 100_000
	}
	v := &Verifier{
		config:  config,
		client:  newClient(),
		changed: make(chan struct{}, 1),
		cache:   newCache(config.CacheEntries),
	}
	trust := make(map[string]*trusted)
	if config.Issuer != "" {
		trust[config.Issuer] = own(config)
	}
	v.trust.Store(&trust)
	v.wanted.Store(new([]string))
	return v
}

// WantClaims adds to the claims that Principals hold. Call it before routes
// that ask for them go live; it only grows, and never by more than the
// configurations of a process name.
func (v *Verifier) WantClaims(names []string) {
	v.setting.Lock()
	defer v.setting.Unlock()
	wanted := slices.Clone(*v.wanted.Load())
	for _, name := range names {
		if !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}
	if len(wanted) > len(*v.wanted.Load()) {
		v.wanted.Store(&wanted)
		v.epoch.Add(1)
	}
}

// ClaimsWanted lists the claims that the routes ask for.
func ClaimsWanted(live []*routes.Route) []string {
	var names []string
	for _, r := range live {
		if r.Auth != nil {
			for name := range r.Auth.Claims {
				names = append(names, name)
			}
		}
		for _, limit := range r.RateLimits {
			if name, ok := strings.CutPrefix(limit.By, "claim:"); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// The causes of refusals. They are for the log and hold nothing of the token.
var (
	errMethod    = errors.New("alg is not allowed for the issuer")
	errType      = errors.New("typ is not that of an access token")
	errBound     = errors.New("token is bound in a way that is not known (cnf)")
	errIssuer    = errors.New("iss is missing or not a string")
	errKey       = errors.New("kid is unknown")
	errKeyMethod = errors.New("alg is not the key's")
	errSignature = errors.New("signature does not verify")
)

func invalid(code string, cause error) *plugins.Error {
	return &plugins.Error{Status: http.StatusUnauthorized, Code: code, Err: cause}
}

// Verify implements TokenVerifier.
func (v *Verifier) Verify(ctx context.Context, token []byte, from netip.Addr, now time.Time) (*Token, bool, error) {
	if len(token) > maxToken {
		return nil, false, invalid(plugins.TokenInvalid, errSize)
	}
	hash := v.cache.hash(token)
	if e := v.cache.find(token, hash); e != nil && e.usable(now, v.epoch.Load()) {
		return &e.Token, true, nil
	}
	e, err := v.miss(ctx, token, hash, from, now)
	if err != nil {
		return nil, false, err
	}
	return &e.Token, false, nil
}

// miss verifies a token that is not known. All that is cheap comes first.
func (v *Verifier) miss(ctx context.Context, token []byte, hash uint64, from netip.Addr, now time.Time) (*entry, error) {
	sum := sha256.Sum256(token)
	if v.refused.has(&sum, now) {
		return nil, invalid(plugins.TokenInvalid, errSignature)
	}
	p, err := parse(token)
	if err != nil {
		return nil, invalid(plugins.TokenInvalid, err)
	}
	t, err := v.terms(p, now)
	if err != nil {
		return nil, err
	}
	if d := v.flood.wait(from, now); d > 0 {
		after := strconv.Itoa(int(d/time.Second) + 1)
		return nil, &plugins.Error{
			Status: http.StatusTooManyRequests, Code: plugins.RateLimited,
			Detail: "Too many invalid tokens came from this address.",
			Header: [][2]string{{"Retry-After", after}},
		}
	}
	// One verification serves all who bring the token now, so it does not
	// end with the first of them.
	ctx = context.WithoutCancel(ctx)
	r, err, _ := v.flight.Do(string(sum[:]), func() (any, error) { return v.prove(ctx, token, hash, p, t, now) })
	if err != nil {
		switch {
		case errors.Is(err, errSignature):
			v.refused.add(&sum, now)
			v.flood.fail(from, now)
		case errors.Is(err, errKey):
			v.flood.fail(from, now)
		}
		return nil, err
	}
	return r.(*entry), nil
}

// terms finds the issuer and checks all that needs no key.
func (v *Verifier) terms(p *parsed, now time.Time) (*trusted, error) {
	c := &p.claims
	if c.iss == nil {
		return nil, invalid(plugins.TokenInvalid, errIssuer)
	}
	issuer, err := text(c.iss)
	if err != nil {
		return nil, invalid(plugins.TokenInvalid, errIssuer)
	}
	t := (*v.trust.Load())[issuer]
	if t == nil {
		return nil, invalid(plugins.IssuerUntrusted, nil)
	}
	if err := t.accepts(p); err != nil {
		return nil, invalid(plugins.TokenInvalid, err)
	}
	if err := c.times(); err != nil {
		return nil, invalid(plugins.TokenInvalid, err)
	}
	clock := now.Unix()
	if clock >= c.expiry+leeway {
		return nil, invalid(plugins.TokenExpired, nil)
	}
	if clock+leeway < max(c.notBefore, c.issued) {
		return nil, invalid(plugins.TokenNotYetValid, nil)
	}
	return t, nil
}

// prove verifies the signature and keeps what it proves.
func (v *Verifier) prove(ctx context.Context, token []byte, hash uint64, p *parsed, t *trusted, now time.Time) (*entry, error) {
	epoch, wanted := v.epoch.Load(), *v.wanted.Load()
	// Read before the key: a change in between is then seen at the next hit.
	generation := t.keys.generation()
	k, ok := t.keys.find(p.kid)
	if !ok {
		have := t.keys.missing(ctx, p.kid)
		generation = t.keys.generation()
		if k, ok = t.keys.find(p.kid); !ok && !have {
			return nil, &plugins.Error{
				Status: http.StatusServiceUnavailable, Code: plugins.KeysUnavailable,
				Header: [][2]string{{"Retry-After", "5"}},
			}
		}
		if !ok {
			return nil, invalid(plugins.TokenInvalid, errKey)
		}
	}
	if k.alg != "" && k.alg != p.alg {
		return nil, invalid(plugins.TokenInvalid, errKeyMethod)
	}
	if _, err := t.parser.ParseWithClaims(string(token), &noClaims{}, k.lookup); err != nil {
		return nil, invalid(plugins.TokenInvalid, errSignature)
	}
	principal, err := p.claims.principal(t, t.need, wanted)
	if err != nil {
		return nil, invalid(plugins.TokenInvalid, err)
	}
	if len(principal.Audience) == 0 {
		return nil, invalid(plugins.TokenInvalid, errors.New("aud is missing"))
	}
	e := &entry{
		Token: facts(t, principal), hash: hash, raw: slices.Clone(token),
		issuer: t, key: k, kid: p.kid, epoch: epoch,
		expires: p.claims.expiry + leeway, verified: now,
	}
	e.generation.Store(generation)
	v.cache.add(e, now)
	return e, nil
}

// facts completes the facts.
func facts(t *trusted, p *plugins.Principal) Token {
	p.Identity = plugins.IdentityLines(p)
	accepted := slices.ContainsFunc(p.Audience, func(a string) bool { return slices.Contains(t.audiences, a) })
	return Token{Principal: p, Own: t.own, Audience: accepted}
}

// Assume returns the Token that claims, a JSON object, would make if a trusted
// issuer had signed them; iss is the own issuer where they have none. It is for
// the expectations of a configuration file, never for a request: nothing is
// verified, and dates and names may be missing.
func (v *Verifier) Assume(claimSet []byte) (*Token, error) {
	var c claims
	if err := object(claimSet, c.member); err != nil {
		return nil, err
	}
	issuer := v.config.Issuer
	if c.iss != nil {
		s, err := text(c.iss)
		if err != nil {
			return nil, errIssuer
		}
		issuer = s
	}
	t := (*v.trust.Load())[issuer]
	if t == nil {
		return nil, invalid(plugins.IssuerUntrusted, nil)
	}
	if c.exp != nil {
		if err := c.times(); err != nil {
			return nil, err
		}
	}
	p, err := c.principal(t, strict{}, *v.wanted.Load())
	if err != nil {
		return nil, err
	}
	if c.aud == nil && t.own {
		p.Audience = t.audiences
	}
	token := facts(t, p)
	return &token, nil
}

// noClaims keeps the library from reading the claims a second time: parse has
// done so, more strictly.
type noClaims struct{ jwt.RegisteredClaims }

func (*noClaims) UnmarshalJSON([]byte) error { return nil }
