// Package sender finds out which keys the sender of a request has proven to
// hold: by a DPoP proof (RFC 9449) and by the certificate of the connection
// (RFC 8705).
//
// It owns the DPoP header field, the memory of proofs over all replicas, and
// nonces. It does not own what is bound to a key (grants), nor the edge's own
// check of bound tokens.
//
//	key, err := checker.Proof(w, r, tokenEndpoint, "")
package sender

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/dpop"
	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Once remembers what must not come twice; see store.Store.
type Once interface {
	Once(ctx context.Context, key string, expires time.Time) (fresh bool, err error)
}

// Checker is safe for concurrent use.
type Checker struct {
	Once Once
	// Nonces that every proof must have one of; nil: proofs need none.
	Nonces *dpop.Nonces
	Now    func() time.Time
}

// Proof returns the thumbprint of the key that the request's DPoP proof is of,
// "" where it has none. url is the endpoint's; token is the access token that
// came along, "" where none did. A proof counts once. Errors are *oauth.Error.
func (c *Checker) Proof(w http.ResponseWriter, r *http.Request, url, token string) (key string, err error) {
	fields := r.Header["Dpop"]
	if len(fields) == 0 {
		return "", nil
	}
	now := c.Now()
	if c.Nonces != nil {
		// Fresh on every answer, so that the client's next proof is good.
		w.Header().Set("DPoP-Nonce", c.Nonces.Current(now))
	}
	if len(fields) > 1 {
		return "", oauth.Refuse(oauth.InvalidDPoPProof, "there is more than one DPoP field")
	}
	proof, err := dpop.Verify(fields[0], dpop.Request{Method: r.Method, URL: url, Token: token, Nonces: c.Nonces, Now: now})
	if errors.Is(err, dpop.ErrNonce) {
		return "", oauth.Refuse(oauth.UseDPoPNonce, "the proof needs the nonce of the field DPoP-Nonce")
	}
	if err != nil {
		return "", oauth.Refuse(oauth.InvalidDPoPProof, "the proof is not for this request, not of now, or not well formed")
	}
	fresh, err := c.Once.Once(r.Context(), "dpop:"+proof.ID, proof.Expires)
	if err != nil {
		return "", oauth.Unavailable(fmt.Errorf("spend a DPoP proof: %w", err))
	}
	if !fresh {
		return "", oauth.Refuse(oauth.InvalidDPoPProof, "the proof was used before")
	}
	return proof.Key, nil
}

// Holds checks that whoever presents an access token holds the keys that it is
// bound to. isDPoP tells that the scheme of the Authorization field is DPoP.
// Errors are *oauth.Error.
func (c *Checker) Holds(w http.ResponseWriter, r *http.Request, url string, isDPoP bool, token string, t tokens.Access) error {
	refuse := func(code, description string) error {
		refusal := oauth.Refuse(code, description)
		refusal.Status, refusal.DPoP = http.StatusUnauthorized, true
		return refusal
	}
	if isDPoP != (t.DPoPKey != "") {
		return refuse(oauth.InvalidToken, "the token and the scheme of the Authorization field do not belong together")
	}
	if isDPoP {
		key, err := c.Proof(w, r, url, token)
		var refusal *oauth.Error
		switch {
		case errors.As(err, &refusal) && refusal.Status < 500:
			return refuse(refusal.Code, refusal.Description)
		case err != nil:
			return err
		case key == "":
			return refuse(oauth.InvalidDPoPProof, "the DPoP field is missing")
		case key != t.DPoPKey:
			return refuse(oauth.InvalidToken, "the token is bound to another key")
		}
	}
	if t.Certificate != "" && t.Certificate != Certificate(r) {
		return oauth.Refuse(oauth.InvalidToken, "the token is bound to a certificate that the connection does not have")
	}
	return nil
}

// Certificate is the thumbprint of the client's certificate, "" where the
// connection has none: `x5t#S256`.
func Certificate(r *http.Request) string {
	cert := web.Certificate(r)
	if cert == nil {
		return ""
	}
	return jose.CertificateThumbprint(cert.Raw)
}
