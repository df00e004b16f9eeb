package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/plugins"
)

// maxName bounds what may become a header line: subject, client, session….
const maxName = 255

// claims are the members of the payload, still raw; nil where absent or null.
type claims struct {
	iss, sub, aud, exp, nbf, iat, jti []byte
	clientID, azp, session, grant     []byte
	acr, authTime, confirm            []byte
	idToken                           bool // has a member that only ID and logout tokens have
	further                           []member
	expiry, notBefore, issued, authAt int64
}

type member struct {
	name  string
	value []byte
}

func (c *claims) member(name string, value []byte) error {
	if bytes.Equal(value, []byte("null")) {
		return nil
	}
	switch name {
	case "iss":
		c.iss = value
	case "sub":
		c.sub = value
	case "aud":
		c.aud = value
	case "exp":
		c.exp = value
	case "nbf":
		c.nbf = value
	case "iat":
		c.iat = value
	case "jti":
		c.jti = value
	case "client_id":
		c.clientID = value
	case "azp":
		c.azp = value
	case oauth.ClaimSession:
		c.session = value
	case oauth.ClaimGrant:
		c.grant = value
	case "acr":
		c.acr = value
	case "auth_time":
		c.authTime = value
	case "cnf":
		c.confirm = value
	case "at_hash", "c_hash", "nonce", "events":
		c.idToken = true
	}
	c.further = append(c.further, member{name, value})
	return nil
}

// times reads the dates; exp is the only one that must be there.
func (c *claims) times() error {
	if c.exp == nil {
		return errors.New("exp is missing")
	}
	for _, d := range []struct {
		name string
		raw  []byte
		to   *int64
	}{
		{"exp", c.exp, &c.expiry}, {"nbf", c.nbf, &c.notBefore},
		{"iat", c.iat, &c.issued}, {"auth_time", c.authTime, &c.authAt},
	} {
		if d.raw == nil {
			continue
		}
		n, err := seconds(d.raw)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		*d.to = n
	}
	return nil
}

// strict names the claims that must be present besides exp.
type strict struct{ subject, client, issued, tokenID bool }

// principal turns the claims into facts. Every value that reaches a header
// line is bounded; Identity is rendered by the caller.
func (c *claims) principal(t *trusted, need strict, wanted []string) (*plugins.Principal, error) {
	p := &plugins.Principal{Issuer: t.issuer}
	if c.clientID == nil {
		c.clientID = c.azp
	}
	for _, f := range []struct {
		name string
		raw  []byte
		need bool
		to   *string
	}{
		{"sub", c.sub, need.subject, &p.Subject}, {"client_id", c.clientID, need.client, &p.ClientID},
		{"jti", c.jti, need.tokenID, &p.TokenID}, {"sid", c.session, false, &p.Session},
		{"grant", c.grant, false, &p.Grant}, {"acr", c.acr, false, &p.ACR},
	} {
		if err := name(f.raw, f.need, f.to); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if need.issued && c.iat == nil {
		return nil, errors.New("iat is missing")
	}
	if c.aud != nil {
		aud, err := texts(c.aud)
		if err != nil {
			return nil, fmt.Errorf("aud: %w", err)
		}
		p.Audience = aud
	}
	confirm, err := confirmation(c.confirm)
	if err != nil {
		return nil, err
	}
	p.Confirm = confirm
	scopes, err := c.scopes(t.scopeClaim)
	if err != nil {
		return nil, err
	}
	p.Scopes = scopes
	p.Expiry = time.Unix(c.expiry, 0)
	if c.iat != nil {
		p.Issued = time.Unix(c.issued, 0)
	}
	if c.authTime != nil {
		p.AuthTime = time.Unix(c.authAt, 0)
	}
	for _, m := range c.further {
		if slices.Contains(wanted, m.name) {
			claim := plugins.Claim{Name: m.name, Values: values(m.value)}
			if err := json.Unmarshal(m.value, &claim.Value); err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			p.Claims = append(p.Claims, claim)
		}
	}
	return p, nil
}

func name(raw []byte, need bool, to *string) error {
	if raw == nil {
		if need {
			return errors.New("missing")
		}
		return nil
	}
	s, err := text(raw)
	if err != nil {
		return err
	}
	if s == "" && need || len(s) > maxName {
		return errors.New("empty or longer than 255 bytes")
	}
	*to = s
	return nil
}

// scopes reads the claim called from, else scope, else scp: a string of words
// (RFC 6749, 3.3) or an array of them.
func (c *claims) scopes(from string) ([]string, error) {
	raw := c.find(from)
	if from == "" {
		if raw = c.find("scope"); raw == nil {
			raw = c.find("scp")
		}
	}
	if raw == nil {
		return nil, nil
	}
	list, err := texts(raw)
	if err != nil {
		return nil, fmt.Errorf("scope: %w", err)
	}
	if raw[0] == '"' {
		list = strings.Split(list[0], " ")
	}
	scopes := make([]string, 0, len(list))
	for _, s := range list {
		if s == "" || slices.Contains(scopes, s) {
			continue
		}
		if !scopeToken(s) {
			return nil, errors.New("scope: a character that no scope has (RFC 6749, 3.3)")
		}
		scopes = append(scopes, s)
	}
	return scopes, nil
}

func (c *claims) find(name string) []byte {
	for _, m := range c.further {
		if m.name == name {
			return m.value
		}
	}
	return nil
}

// scopeToken: 1*( %x21 / %x23-5B / %x5D-7E ).
func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// values is a claim in its textual form; nested objects and arrays have none.
func values(raw []byte) []string {
	if raw[0] != '[' {
		if v, ok := scalar(raw); ok {
			return []string{v}
		}
		return nil
	}
	var list []string
	// The text was checked as a whole, and the function returns no error.
	_, _ = walkArray(raw, func(e []byte) error {
		if v, ok := scalar(e); ok {
			list = append(list, v)
		}
		return nil
	})
	return list
}

func scalar(raw []byte) (string, bool) {
	switch raw[0] {
	case '{', '[', 'n':
		return "", false
	case '"':
		s, err := unquote(raw)
		return s, err == nil
	}
	return string(raw), true
}
