package tokens

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// MintIntrospection signs what the introspection endpoint answers to a client,
// as a value that encodes to a JSON object (RFC 9701, 5). Its `typ` keeps it
// from passing for a token.
func (i *Issuer) MintIntrospection(client string, now time.Time, answer any) (string, error) {
	return i.state(oauth.TypeIntrospection, struct {
		Issuer   string `json:"iss"`
		Audience string `json:"aud"`
		Issued   int64  `json:"iat"`
		Answer   any    `json:"token_introspection"`
	}{i.issuer, client, now.Unix(), answer})
}

// state signs claims under a `typ` of their own.
func (i *Issuer) state(typ string, claims any) (string, error) {
	b, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", typ, err)
	}
	token, err := i.keys.Sign(use, typ, b)
	if err != nil {
		return "", fmt.Errorf("sign %s: %w", typ, err)
	}
	return token, nil
}

// logoutLife is how long a logout token may take to arrive.
const logoutLife = 2 * time.Minute

// Logout is the content of a logout token.
type Logout struct {
	ClientID, Subject, Session string
	Issued                     time.Time
}

// MintLogout returns a signed logout token (OpenID Connect Back-Channel Logout,
// 2.4). It has no nonce, so it cannot pass for an ID token.
func (i *Issuer) MintLogout(l Logout) (string, error) {
	return i.state(oauth.TypeLogout, struct {
		Issuer   string                    `json:"iss"`
		Subject  string                    `json:"sub"`
		Audience string                    `json:"aud"`
		Issued   int64                     `json:"iat"`
		Expires  int64                     `json:"exp"`
		ID       string                    `json:"jti"`
		Session  string                    `json:"sid"`
		Events   map[string]map[string]any `json:"events"`
	}{i.issuer, l.Subject, l.ClientID, l.Issued.Unix(), l.Issued.Add(logoutLife).Unix(), newID(), l.Session,
		map[string]map[string]any{oauth.EventLogout: {}}})
}
