package auth

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/routes"
)

// trusted is an issuer and what its tokens must look like; immutable but for
// its keys.
type trusted struct {
	issuer     string
	own        bool
	audiences  []string
	algorithms []string
	types      []string // lower case; "" stands for a token without typ
	scopeClaim string
	need       strict
	keys       keys
	parser     *jwt.Parser
	config     routes.Issuer // of an external one
}

func (t *trusted) withParser() *trusted {
	t.parser = jwt.NewParser(jwt.WithValidMethods(t.algorithms), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	return t
}

// accepts checks the header against the issuer's terms.
func (t *trusted) accepts(p *parsed) error {
	if !slices.Contains(t.algorithms, p.alg) {
		return errMethod
	}
	typ := p.typ
	if !t.own {
		// RFC 7515, 4.1.9: a media type, case-insensitive, its prefix may be left out.
		typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
	}
	if !slices.Contains(t.types, typ) {
		return errType
	}
	// Where a token's type does not say that it is an access token, at least
	// refuse what only ID and logout tokens have (RFC 8725, 3.12).
	if typ != oauth.TypeAccessToken && p.claims.idToken {
		return errType
	}
	return nil
}

// own makes the terms of the gateway's own authorization server (RFC 9068).
func own(config VerifierConfig) *trusted {
	return (&trusted{
		issuer:     config.Issuer,
		own:        true,
		audiences:  []string{config.Audience},
		algorithms: []string{"ES256", "EdDSA", "RS256"},
		types:      []string{oauth.TypeAccessToken},
		need:       strict{subject: true, client: true, issued: true, tokenID: true},
		keys:       newOwnKeys(config.Keys, config.Now),
	}).withParser()
}

// external checks and completes the terms of an external issuer.
func (v *Verifier) external(c routes.Issuer) (*trusted, error) {
	problem := func(text string, a ...any) error {
		return routes.Problem{Pos: c.Pos, Message: fmt.Sprintf("issuer %q: ", c.Issuer) + fmt.Sprintf(text, a...)}
	}
	for _, s := range []string{c.Issuer, c.JWKSURI} {
		u, err := url.Parse(s)
		if s == "" && s != c.Issuer {
			continue
		}
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, problem("%q is not an http or https URL", s)
		}
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = []string{"RS256", "ES256"}
	}
	for _, a := range c.Algorithms {
		if !slices.Contains(asymmetric, a) {
			return nil, problem("algorithm %q is not one of %s", a, strings.Join(asymmetric, ", "))
		}
	}
	if slices.Contains(c.Audiences, "") {
		return nil, problem("an audience is empty")
	}
	types := c.TokenTypes
	if len(types) == 0 {
		types = []string{oauth.TypeAccessToken, "jwt"}
	}
	t := &trusted{
		issuer: c.Issuer, audiences: c.Audiences, algorithms: c.Algorithms, scopeClaim: c.ScopeClaim,
		need: strict{subject: true}, config: c,
	}
	for _, typ := range types {
		typ = strings.TrimPrefix(strings.ToLower(typ), "application/")
		if typ == oauth.TypeIdentity {
			return nil, problem("token type %q is what the gateway gives to services", typ)
		}
		if t.types = append(t.types, typ); typ == "jwt" {
			t.types = append(t.types, "") // RFC 7519, 5.1: optional
		}
	}
	t.keys = newRemote(c, v.client, v.config.Now, v.config.KeyError)
	return t.withParser(), nil
}

// SetIssuers replaces the external issuers. Those whose terms stay as they
// were keep their keys; cached tokens of the others are verified anew. On an
// error nothing changes.
func (v *Verifier) SetIssuers(issuers []routes.Issuer) error {
	v.setting.Lock()
	defer v.setting.Unlock()
	old := *v.trust.Load()
	next, err := v.among(old, issuers)
	if err != nil {
		return err
	}
	v.trust.Store(&next)
	for name, o := range old {
		if r, ok := o.keys.(*remote); ok && next[name] != o {
			r.retire()
		}
	}
	select {
	case v.changed <- struct{}{}:
	default:
	}
	return nil
}

// CheckIssuers returns what SetIssuers would refuse, and changes nothing.
func (v *Verifier) CheckIssuers(issuers []routes.Issuer) error {
	_, err := v.among(*v.trust.Load(), issuers)
	return err
}

// among makes the set of trusted issuers; what stays as it was in old is
// taken from there.
func (v *Verifier) among(old map[string]*trusted, issuers []routes.Issuer) (map[string]*trusted, error) {
	next := make(map[string]*trusted, len(issuers)+1)
	if v.config.Issuer != "" {
		next[v.config.Issuer] = old[v.config.Issuer]
	}
	for _, c := range issuers {
		if next[c.Issuer] != nil {
			return nil, routes.Problem{Pos: c.Pos, Message: fmt.Sprintf("issuer %q is there twice, or is the own one", c.Issuer)}
		}
		t, err := v.external(c)
		if err != nil {
			return nil, err
		}
		if o := old[c.Issuer]; o != nil && sameTerms(o.config, t.config) {
			t = o
		}
		next[c.Issuer] = t
	}
	return next, nil
}

func sameTerms(a, b routes.Issuer) bool {
	a.Pos, b.Pos = routes.Pos{}, routes.Pos{}
	return reflect.DeepEqual(a, b)
}

// Run keeps the keys of the external issuers fresh until ctx ends. It starts
// at once where issuers are away: their tokens are refused with
// keys_unavailable until their keys come.
func (v *Verifier) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := make(map[*remote]context.CancelFunc)
	for {
		live := make(map[*remote]bool)
		for _, t := range *v.trust.Load() {
			if r, ok := t.keys.(*remote); ok {
				live[r] = true
			}
		}
		for r, stop := range running {
			if !live[r] {
				stop()
				delete(running, r)
			}
		}
		for r := range live {
			if running[r] == nil {
				each, stop := context.WithCancel(ctx)
				running[r] = stop
				wg.Go(func() { r.run(each) })
			}
		}
		select {
		case <-ctx.Done():
			for _, stop := range running {
				stop()
			}
			return nil
		case <-v.changed:
		}
	}
}

// Status tells how the keys of each external issuer stand, by name.
func (v *Verifier) Status() []IssuerStatus {
	var list []IssuerStatus
	for _, t := range *v.trust.Load() {
		if r, ok := t.keys.(*remote); ok {
			list = append(list, r.state())
		}
	}
	slices.SortFunc(list, func(a, b IssuerStatus) int { return strings.Compare(a.Issuer, b.Issuer) })
	return list
}
