package plugins

import (
	"slices"
	"time"
)

// Principal is who a verified token speaks for. It is immutable and shared by
// all requests that carry the token: it holds facts of the token, never a
// verdict of a route.
type Principal struct {
	Subject  string
	ClientID string
	Issuer   string
	Session  string // `sid`, empty if the token has none
	Grant    string // `grant`, empty if the token has none
	TokenID  string // `jti`
	ACR      string
	Scopes   []string // in the token's order, without duplicates
	Audience []string
	Issued   time.Time
	Expiry   time.Time
	AuthTime time.Time // zero if the token has none
	// Confirm is what the token is bound to.
	Confirm Confirmation
	// Claims holds the further claims that some route or limit of the running
	// configuration asks for, extracted once, when the token is verified.
	Claims []Claim
	// Identity is the block of header lines ("Name: value\r\n"…) that tells a
	// backend who calls, rendered once, when the token is verified.
	Identity []byte
}

// Confirmation names what whoever presents a token must prove to hold (RFC
// 7800): thumbprints in base64url, "" for none.
type Confirmation struct {
	// Key is that of a DPoP key (RFC 9449, 6.1).
	Key string
	// Certificate is that of a client certificate (RFC 8705, 3.1).
	Certificate string
}

// Claim is one claim of a token in its textual form: strings as they are,
// numbers and booleans as in JSON, arrays as several Values.
type Claim struct {
	Name   string
	Values []string
	// Value is the claim as encoding/json decodes it; never changed.
	Value any
}

// HasScope reports whether the token was granted scope.
func (p *Principal) HasScope(scope string) bool { return slices.Contains(p.Scopes, scope) }

// Claim returns the values of the claim name; nil if the token has none or
// nothing in the configuration asks for it.
func (p *Principal) Claim(name string) []string {
	for i := range p.Claims {
		if p.Claims[i].Name == name {
			return p.Claims[i].Values
		}
	}
	return nil
}
