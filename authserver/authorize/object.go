package authorize

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/web"
)

const (
	// objectLife is the longest that a signed request may be good for.
	objectLife = time.Hour
	leeway     = 30 * time.Second
)

// origin tells how the parameters of a request came here.
type origin struct {
	// pushed: by the client itself (RFC 9126); signed: in an object that it
	// signed (RFC 9101).
	pushed, signed bool
}

// resolve returns the parameters that count. Where a request refers to a pushed
// one, or holds a signed object, nothing else of it does (RFC 9101, 6.3), but
// the client's name, which has to be the same.
func (e *Endpoint) resolve(ctx context.Context, form web.Form) (web.Form, origin, error) {
	var o origin
	if uri := form.Value("request_uri"); uri != "" {
		// What a client publishes elsewhere is not fetched: a URL in a request
		// is anybody's, and a pushed request does all that it could.
		if !strings.HasPrefix(uri, tokens.PushedPrefix) {
			return nil, o, oauth.Refuse(oauth.RequestURINotSupported, "request_uri is for pushed requests only")
		}
		if form.Value("request") != "" || form.Count("client_id") != 1 || form.Count("request_uri") != 1 {
			return nil, o, oauth.Refuse(oauth.InvalidRequest, "The request is ambiguous.")
		}
		unknown := oauth.Refuse(oauth.InvalidRequestURI, "This sign-in was opened before, or took too long. Go back to the application and start again.")
		hash, ok := tokens.PushedHash(uri)
		if !ok {
			return nil, o, unknown
		}
		p, err := e.Store.TakePushed(ctx, hash, form.Value("client_id"), e.Now())
		if errors.Is(err, store.ErrNotFound) {
			return nil, o, unknown
		}
		if err != nil {
			return nil, o, oauth.Unavailable(fmt.Errorf("take the pushed request: %w", err))
		}
		form, err = web.ParseQuery(p.Query)
		return form, origin{pushed: true, signed: p.Signed}, err
	}
	if form.Value("request") == "" {
		return form, o, nil
	}
	if form.Count("client_id") != 1 || form.Count("request") != 1 {
		return nil, o, errTarget
	}
	c, err := e.Clients.Client(ctx, form.Value("client_id"))
	if errors.Is(err, store.ErrNotFound) {
		return nil, o, errTarget
	}
	if err != nil {
		return nil, o, oauth.Unavailable(fmt.Errorf("look up the client: %w", err))
	}
	inner, err := e.object(ctx, c, form.Value("request"))
	return inner, origin{signed: true}, err
}

// object verifies a request object and returns what it holds as parameters.
func (e *Endpoint) object(ctx context.Context, c *clients.Client, text string) (web.Form, error) {
	refusal := oauth.Refuse(oauth.InvalidRequestObject, "The signed request is not good: its signature, audience or time is wrong.")
	t, err := jose.Parse(text)
	if err != nil || t.Type != "" && !strings.EqualFold(t.Type, "JWT") && t.Type != "oauth-authz-req+jwt" {
		return nil, refusal
	}
	var m struct {
		Issuer    string       `json:"iss"`
		Subject   string       `json:"sub"`
		Audience  jose.Strings `json:"aud"`
		ClientID  string       `json:"client_id"`
		Expires   float64      `json:"exp"`
		NotBefore float64      `json:"nbf"`
		Issued    float64      `json:"iat"`
	}
	now := float64(e.Now().Unix())
	slack := leeway.Seconds()
	switch err := jose.Object(t.Claims, &m); {
	case err != nil,
		m.Issuer != c.ID || m.ClientID != "" && m.ClientID != c.ID,
		// A client assertion must not pass for a request (RFC 9101, 10.8).
		m.Subject == c.ID,
		!slices.Contains(m.Audience, e.Issuer),
		m.Expires <= now-slack || m.Expires > now+objectLife.Seconds()+slack,
		m.NotBefore > now+slack || m.Issued > now+slack:
		return nil, refusal
	}
	if err := e.Clients.Verify(ctx, c, t); err != nil {
		if errors.Is(err, clients.ErrKeys) {
			return nil, oauth.Unavailable(err)
		}
		return nil, refusal
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(t.Claims, &all); err != nil {
		return nil, refusal
	}
	v := url.Values{"client_id": {c.ID}}
	for name, raw := range all {
		switch name {
		case "iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id":
		case "request", "request_uri":
			return nil, refusal
		default:
			v[name] = parameters(raw)
		}
	}
	return web.ParseQuery(v.Encode())
}

// parameters is a claim in the form of parameters: a string as it is, several
// as several, anything else in its JSON text (RFC 9101, 4).
func parameters(raw json.RawMessage) []string {
	var list jose.Strings
	if json.Unmarshal(raw, &list) == nil {
		return list
	}
	return []string{string(raw)}
}
