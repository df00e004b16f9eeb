// Package dpop verifies proofs that whoever sends a request holds a private
// key (RFC 9449).
//
// It owns the proof's form and what it must say, and nonces. It does not own
// the memory of proofs that were seen: the caller has to accept each
// Proof.ID once until Proof.Expires.
//
//	proof, err := dpop.Verify(field, dpop.Request{Method: "POST", URL: tokenEndpoint, Now: now})
package dpop

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/jose"
)

const (
	// Window is how far the time of a proof may be off, both ways.
	Window = 60 * time.Second
	// maxProof bounds what is looked at.
	maxProof = 4 << 10
	// maxID bounds jti; it is hashed before it is kept.
	maxID = 512
)

// Algorithms are those that a proof may be signed with.
var Algorithms = jose.Algorithms[:]

var (
	// ErrInvalid: the proof is not good; the client has to make another.
	ErrInvalid = errors.New("the DPoP proof is not valid")
	// ErrNonce: the proof lacks a nonce of ours, or it is too old.
	ErrNonce = errors.New("the DPoP proof needs a fresh nonce")
)

// Request is what a proof must be for.
type Request struct {
	Method string
	// URL is where the request went; query and fragment do not count.
	URL string
	// Path makes the canonical form of a path, "" for one that is refused. nil:
	// paths are compared as they stand.
	Path func(string) string
	// Token is the access token that came along; "" where there is none.
	Token string
	// Nonces, if not nil, must have issued the proof's nonce.
	Nonces *Nonces
	Now    time.Time
}

// Proof is a proof that holds for a request.
type Proof struct {
	// Key is the thumbprint of the key: `jkt`.
	Key string
	// ID stands for the proof: no other proof of any key has it.
	ID string
	// Expires is when a replay is refused for its age.
	Expires time.Time
}

// Verify checks a proof (RFC 9449, 4.3). Errors are ErrInvalid and, for a
// proof that is good but for its nonce, ErrNonce.
func Verify(proof string, r Request) (Proof, error) {
	if len(proof) > maxProof {
		return Proof{}, ErrInvalid
	}
	t, err := jose.Parse(proof)
	if err != nil || t.Type != "dpop+jwt" || t.JWK == nil {
		return Proof{}, ErrInvalid
	}
	k, err := jose.ParseKey(t.JWK)
	if err != nil {
		return Proof{}, ErrInvalid
	}
	var c struct {
		ID     string   `json:"jti"`
		Method string   `json:"htm"`
		URL    string   `json:"htu"`
		Issued *float64 `json:"iat"`
		Hash   string   `json:"ath"`
		Nonce  string   `json:"nonce"`
	}
	if err := jose.Object(t.Claims, &c); err != nil {
		return Proof{}, ErrInvalid
	}
	if c.ID == "" || len(c.ID) > maxID || c.Method != r.Method || !sameURL(c.URL, r) || !tokenHash(c.Hash, r.Token) {
		return Proof{}, ErrInvalid
	}
	if c.Issued == nil || *c.Issued < 0 || *c.Issued > 1e11 {
		return Proof{}, ErrInvalid
	}
	// With a nonce the time is told by it, but not left out: RFC 9449, 11.1.
	issued := time.Unix(int64(*c.Issued), 0)
	if off := r.Now.Sub(issued); off > Window || off < -Window {
		return Proof{}, ErrInvalid
	}
	if err := t.Verify(k); err != nil {
		return Proof{}, ErrInvalid
	}
	if r.Nonces != nil && !r.Nonces.valid(c.Nonce, r.Now) {
		return Proof{}, ErrNonce
	}
	sum := sha256.Sum256([]byte(k.Thumbprint + "\n" + c.ID))
	return Proof{
		Key: k.Thumbprint, ID: base64.RawURLEncoding.EncodeToString(sum[:]), Expires: issued.Add(Window),
	}, nil
}

// tokenHash compares `ath`. A proof that names a token is for that token only,
// so without one it must not be there.
func tokenHash(hash, token string) bool {
	if token == "" {
		return hash == ""
	}
	sum := sha256.Sum256([]byte(token))
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	return subtle.ConstantTimeCompare([]byte(hash), []byte(want)) == 1
}

// sameURL compares after the normalisation of RFC 3986, 6.2.2 and 6.2.3.
func sameURL(htu string, r Request) bool {
	claimed, ok := split(htu)
	wanted, okToo := split(r.URL)
	if !ok || !okToo || claimed.scheme != wanted.scheme || claimed.host != wanted.host {
		return false
	}
	if claimed.path == wanted.path {
		return true
	}
	return r.Path != nil && wanted.path != "" && r.Path(claimed.path) == wanted.path
}

type target struct{ scheme, host, path string }

func split(raw string) (target, bool) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.User != nil {
		return target{}, false
	}
	t := target{strings.ToLower(u.Scheme), strings.ToLower(u.Host), u.EscapedPath()}
	switch t.scheme {
	case "https":
		t.host = strings.TrimSuffix(t.host, ":443")
	case "http":
		t.host = strings.TrimSuffix(t.host, ":80")
	default:
		return target{}, false
	}
	if t.path == "" {
		t.path = "/"
	}
	return t, true
}
