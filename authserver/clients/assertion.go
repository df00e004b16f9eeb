package clients

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/oauth"
)

const (
	// AssertionType is the client_assertion_type of a JWT (RFC 7523, 2.2).
	AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// assertionLife is the longest that an assertion may be good for.
	assertionLife = 5 * time.Minute
	leeway        = 30 * time.Second
)

var errAssertion = errors.New("the client assertion is not good")

// assertion is a client's statement about itself, taken apart but not verified.
type assertion struct {
	token  *jose.Token
	claims struct {
		Issuer    string          `json:"iss"`
		Subject   string          `json:"sub"`
		Audience  json.RawMessage `json:"aud"`
		ID        string          `json:"jti"`
		Expires   *float64        `json:"exp"`
		NotBefore *float64        `json:"nbf"`
		Issued    *float64        `json:"iat"`
	}
}

func parseAssertion(text string) (*assertion, error) {
	t, err := jose.Parse(text)
	if err != nil {
		return nil, err
	}
	a := &assertion{token: t}
	if err := jose.Object(t.Claims, &a.claims); err != nil {
		return nil, err
	}
	return a, nil
}

// check verifies everything that a client assertion must be (RFC 7523, 3), and
// spends it: it counts once over all replicas. The audience is the issuer and
// nothing else: with the token endpoint's URL an assertion that was made for
// another server could be passed on.
func (r *Registry) check(ctx context.Context, c *Client, a *assertion) error {
	now := r.now()
	m := &a.claims
	var audience jose.Strings
	if m.Audience != nil && json.Unmarshal(m.Audience, &audience) != nil {
		return errAssertion
	}
	switch {
	case m.Issuer != c.ID || m.Subject != c.ID,
		len(audience) != 1 || audience[0] != r.issuer,
		m.ID == "" || len(m.ID) > 512,
		m.Expires == nil || late(m.NotBefore, now) || late(m.Issued, now):
		return errAssertion
	}
	left := at(*m.Expires).Sub(now)
	if left <= -leeway || left > assertionLife+leeway {
		return errAssertion
	}
	if err := r.Verify(ctx, c, a.token); err != nil {
		if errors.Is(err, ErrKeys) {
			return oauth.Unavailable(err)
		}
		return errAssertion
	}
	sum := sha256.Sum256([]byte(c.ID + "\n" + m.ID))
	fresh, err := r.once.Once(ctx, "assertion:"+base64.RawURLEncoding.EncodeToString(sum[:]), at(*m.Expires).Add(leeway))
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("spend a client assertion: %w", err))
	}
	if !fresh {
		return errAssertion
	}
	return nil
}

func at(seconds float64) time.Time {
	return time.Unix(int64(min(max(seconds, 0), 1e11)), 0)
}

// late reports whether a date that must not be in the future is.
func late(date *float64, now time.Time) bool {
	return date != nil && at(*date).After(now.Add(leeway))
}
