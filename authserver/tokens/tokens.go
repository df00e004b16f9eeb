// Package tokens makes and reads what the authorization server hands out:
// access tokens (RFC 9068), ID tokens, refresh tokens and codes.
//
// It owns their form and the rule when one may be minted. It does not own the
// keys (keys), nor who gets a token (grants), nor the state behind one (store).
//
//	minted, err := issuer.Mint(tokens.Access{Subject: …, ClientID: …, Issued: now})
//	claims, err := issuer.ParseAccess(token)
package tokens

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// Keys is the key ring as this package needs it.
type Keys interface {
	// Sign returns a JWT of claims, a JSON object as []byte, under the active
	// key for use.
	Sign(use, typ string, claims any) (token string, err error)
	// PublicKey returns a key that may have signed; not ok for others.
	PublicKey(kid string) (key crypto.PublicKey, alg, use string, ok bool)
	// Derive returns the 32 secret bytes of a label and number.
	Derive(label string, n int) []byte
}

const (
	use    = "token" // of the signing key
	typeID = "JWT"
	// leeway is how far clocks may be apart.
	leeway = 30 * time.Second
)

// ErrInvalid says that a token is not a live one of ours. It never tells why:
// the answer to whoever presents one is the same.
var ErrInvalid = errors.New("the token is not valid")

// Issuer is safe for concurrent use.
type Issuer struct {
	keys   Keys
	issuer string
	ttl    time.Duration
	now    func() time.Time
	revs   store.Revocations
	parser *jwt.Parser
	hints  *jwt.Parser

	verified verified
}

// Config is what an Issuer needs.
type Config struct {
	Keys   Keys
	Issuer string
	TTL    time.Duration
	Now    func() time.Time
	Store  store.Revocations
}

// New returns an issuer.
func New(c Config) *Issuer {
	algorithms := jwt.WithValidMethods([]string{"ES256", "EdDSA", "RS256"})
	return &Issuer{
		keys: c.Keys, issuer: c.Issuer, ttl: c.TTL, now: c.Now, revs: c.Store,
		parser: jwt.NewParser(algorithms, jwt.WithIssuer(c.Issuer), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
			jwt.WithLeeway(leeway), jwt.WithTimeFunc(c.Now)),
		hints: jwt.NewParser(algorithms, jwt.WithoutClaimsValidation()),
	}
}

// TTL is the life of an access token.
func (i *Issuer) TTL() time.Duration { return i.ttl }

// Outlived returns when every token minted up to now has expired everywhere,
// leeway and all: how long a revocation has to be remembered.
func (i *Issuer) Outlived(now time.Time) time.Time { return now.Add(i.ttl + 2*leeway) }

// Access is the content of an access token. No claim says anything else about
// a person: names and addresses are userinfo's.
type Access struct {
	Subject, ClientID, Scope string
	Session, Grant, ACR      string
	Audience                 []string
	// Issued must be taken before the store's verb that permits the token, so
	// that a revocation which comes between the two catches it.
	Issued   time.Time
	AuthTime time.Time
	// Actor is who acts for the subject; nil: the subject does.
	Actor *Actor
	// NotAfter bounds the token's life besides the usual; zero: nothing does.
	NotAfter time.Time
	// DPoPKey and Certificate are the thumbprints that whoever presents the
	// token has to prove; "" for none.
	DPoPKey, Certificate string

	// Claims are what the client's rules say of the user; ParseAccess leaves
	// them out.
	Claims []Claim

	// Set by Mint and ParseAccess.
	ID      string
	Expires time.Time
}

// Actor is the claim `act` (RFC 8693, 4.1): who acts, and for whom that one
// acted before.
type Actor struct {
	Subject string `json:"sub"`
	Actor   *Actor `json:"act,omitempty"`
}

// Depth is how many act one for the other.
func (a *Actor) Depth() int {
	n := 0
	for ; a != nil; a = a.Actor {
		n++
	}
	return n
}

// Claim is a list of words about a user: roles, groups, permissions.
type Claim struct {
	Name   string
	Values []string
}

// Mint returns a signed access token.
func (i *Issuer) Mint(a *Access) (string, error) {
	a.ID = newID()
	a.Expires = a.Issued.Truncate(time.Second).Add(i.ttl)
	if !a.NotAfter.IsZero() && a.NotAfter.Before(a.Expires) {
		a.Expires = a.NotAfter
	}
	b := make([]byte, 0, 512)
	b = oauth.AppendString(append(b, `{"iss":`...), i.issuer)
	b = oauth.AppendString(append(b, `,"sub":`...), a.Subject)
	b = appendAudience(append(b, `,"aud":`...), a.Audience)
	b = strconv.AppendInt(append(b, `,"iat":`...), a.Issued.Unix(), 10)
	b = strconv.AppendInt(append(b, `,"exp":`...), a.Expires.Unix(), 10)
	b = oauth.AppendString(append(b, `,"jti":`...), a.ID)
	b = oauth.AppendString(append(b, `,"client_id":`...), a.ClientID)
	b = oauth.AppendMember(b, `,"scope":`, a.Scope)
	b = oauth.AppendMember(b, `,"sid":`, a.Session)
	b = oauth.AppendMember(b, `,"grant":`, a.Grant)
	b = oauth.AppendMember(b, `,"acr":`, a.ACR)
	if !a.AuthTime.IsZero() {
		b = strconv.AppendInt(append(b, `,"auth_time":`...), a.AuthTime.Unix(), 10)
	}
	if a.Actor != nil {
		actor, err := json.Marshal(a.Actor)
		if err != nil {
			return "", fmt.Errorf("encode the actor: %w", err)
		}
		b = append(append(b, `,"act":`...), actor...)
	}
	b = AppendConfirmation(b, a.DPoPKey, a.Certificate)
	for _, c := range a.Claims {
		b = append(oauth.AppendString(append(b, ','), c.Name), ':', '[')
		for j, value := range c.Values {
			if j > 0 {
				b = append(b, ',')
			}
			b = oauth.AppendString(b, value)
		}
		b = append(b, ']')
	}
	token, err := i.keys.Sign(use, oauth.TypeAccessToken, append(b, '}'))
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	return token, nil
}

// AppendConfirmation appends the member `cnf` to a JSON object: what a token is
// bound to, if anything (RFC 9449, 6.1; RFC 8705, 3.1).
func AppendConfirmation(b []byte, key, certificate string) []byte {
	if key == "" && certificate == "" {
		return b
	}
	b = append(b, `,"cnf":{`...)
	if key != "" {
		b = oauth.AppendString(append(b, `"jkt":`...), key)
	}
	if certificate != "" {
		if key != "" {
			b = append(b, ',')
		}
		b = oauth.AppendString(append(b, `"x5t#S256":`...), certificate)
	}
	return append(b, '}')
}

// newID returns a `jti`.
func newID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// ID is the content of an ID token (OpenID Connect Core, 2).
type ID struct {
	Subject, ClientID   string
	Nonce, ACR, Session string
	Issued, AuthTime    time.Time
	// AccessToken is what at_hash is of.
	AccessToken string
}

// MintID returns a signed ID token.
func (i *Issuer) MintID(t ID) (string, error) {
	b := make([]byte, 0, 512)
	b = oauth.AppendString(append(b, `{"iss":`...), i.issuer)
	b = oauth.AppendString(append(b, `,"sub":`...), t.Subject)
	b = oauth.AppendString(append(b, `,"aud":`...), t.ClientID)
	b = strconv.AppendInt(append(b, `,"iat":`...), t.Issued.Unix(), 10)
	b = strconv.AppendInt(append(b, `,"exp":`...), t.Issued.Add(i.ttl).Unix(), 10)
	b = strconv.AppendInt(append(b, `,"auth_time":`...), t.AuthTime.Unix(), 10)
	b = oauth.AppendMember(b, `,"nonce":`, t.Nonce)
	b = oauth.AppendMember(b, `,"acr":`, t.ACR)
	if methods := oauth.Methods(t.ACR); methods != nil {
		b = append(append(append(b, `,"amr":["`...), strings.Join(methods, `","`)...), `"]`...)
	}
	b = oauth.AppendMember(b, `,"sid":`, t.Session)
	b = oauth.AppendString(append(b, `,"at_hash":`...), halfHash(t.AccessToken))
	token, err := i.keys.Sign(use, typeID, append(b, '}'))
	if err != nil {
		return "", fmt.Errorf("sign ID token: %w", err)
	}
	return token, nil
}

// halfHash is at_hash: the left half of the hash that the ID token's signature
// uses, whose key has just signed the access token.
func halfHash(token string) string {
	first, _, _ := strings.Cut(token, ".")
	header, err := base64.RawURLEncoding.DecodeString(first)
	// The header is the key ring's, which puts the algorithm first.
	if err == nil && bytes.HasPrefix(header, []byte(`{"alg":"EdDSA"`)) { // Ed25519 hashes with SHA-512
		sum := sha512.Sum512([]byte(token))
		return base64.RawURLEncoding.EncodeToString(sum[:32])
	}
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

type accessClaims struct {
	jwt.RegisteredClaims
	ClientID string           `json:"client_id"`
	Scope    string           `json:"scope"`
	Session  string           `json:"sid"`
	Grant    string           `json:"grant"`
	ACR      string           `json:"acr"`
	AuthTime *jwt.NumericDate `json:"auth_time"`
	Actor    *Actor           `json:"act"`
	Confirm  struct {
		Key         string `json:"jkt"`
		Certificate string `json:"x5t#S256"`
	} `json:"cnf"`
}

// ParseAccess verifies an access token of ours; ErrInvalid. It does not ask
// whether the token was revoked: see Live. What the answer points to is shared
// and not to be changed.
func (i *Issuer) ParseAccess(token string) (Access, error) {
	var c accessClaims
	if len(token) > 8<<10 {
		return Access{}, ErrInvalid
	}
	if a, ok := i.known(token, i.now()); ok {
		return a, nil
	}
	parsed, err := i.parser.ParseWithClaims(token, &c, i.key(oauth.TypeAccessToken))
	if err != nil {
		return Access{}, ErrInvalid
	}
	a := Access{
		Subject: c.Subject, ClientID: c.ClientID, Scope: c.Scope, Session: c.Session, Grant: c.Grant, ACR: c.ACR,
		Audience: c.Audience, ID: c.RegisteredClaims.ID, Expires: c.ExpiresAt.Time, Actor: c.Actor,
		DPoPKey: c.Confirm.Key, Certificate: c.Confirm.Certificate,
	}
	if c.IssuedAt == nil || a.ID == "" || a.ClientID == "" {
		return Access{}, ErrInvalid
	}
	a.Issued = c.IssuedAt.Time
	if c.AuthTime != nil {
		a.AuthTime = c.AuthTime.Time
	}
	kid, _ := parsed.Header["kid"].(string)
	i.verified.keep(token, verifiedToken{a, kid})
	return a, nil
}

// Hint is what an id_token_hint says. It may have expired.
type Hint struct {
	Subject, ClientID, Session string
}

// ParseHint verifies that an ID token was signed by us; ErrInvalid.
func (i *Issuer) ParseHint(token string) (Hint, error) {
	var c struct {
		jwt.RegisteredClaims
		Session string `json:"sid"`
	}
	if len(token) > 8<<10 {
		return Hint{}, ErrInvalid
	}
	if _, err := i.hints.ParseWithClaims(token, &c, i.key(typeID)); err != nil {
		return Hint{}, ErrInvalid
	}
	if c.Issuer != i.issuer || len(c.Audience) != 1 {
		return Hint{}, ErrInvalid
	}
	return Hint{Subject: c.Subject, ClientID: c.Audience[0], Session: c.Session}, nil
}

// key finds the key of a token that says it is of type typ.
func (i *Issuer) key(typ string) jwt.Keyfunc {
	return func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, alg, keyUse, ok := i.keys.PublicKey(kid)
		if !ok || keyUse != use || alg != t.Header["alg"] || t.Header["typ"] != typ {
			return nil, ErrInvalid
		}
		return key, nil
	}
}

// Live reports whether nothing that the token depends on was revoked.
func (i *Issuer) Live(ctx context.Context, a Access) (bool, error) {
	pairs := []oauth.Revocation{
		{Level: oauth.LevelIssuer, ID: i.issuer},
		{Level: oauth.LevelClient, ID: a.ClientID},
		{Level: oauth.LevelSubject, ID: a.Subject},
		{Level: oauth.LevelToken, ID: a.ID},
	}
	if a.Session != "" {
		pairs = append(pairs, oauth.Revocation{Level: oauth.LevelSession, ID: a.Session})
	}
	if a.Grant != "" {
		pairs = append(pairs, oauth.Revocation{Level: oauth.LevelGrant, ID: a.Grant})
	}
	revoked, err := i.revs.Revoked(ctx, pairs, a.Issued)
	if err != nil {
		return false, oauth.Unavailable(fmt.Errorf("look for revocations: %w", err))
	}
	return !revoked, nil
}

// appendAudience writes one audience as a string, which every library reads.
func appendAudience(b []byte, audience []string) []byte {
	if len(audience) == 1 {
		return oauth.AppendString(b, audience[0])
	}
	b = append(b, '[')
	for i, a := range audience {
		if i > 0 {
			b = append(b, ',')
		}
		b = oauth.AppendString(b, a)
	}
	return append(b, ']')
}

// HasScope reports whether a space-separated list holds scope.
func HasScope(list, scope string) bool {
	for s := range strings.SplitSeq(list, " ") {
		if s == scope {
			return true
		}
	}
	return false
}
