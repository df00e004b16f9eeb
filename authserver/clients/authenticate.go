package clients

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Methods are the client authentication methods that work.
var Methods = [...]string{"client_secret_basic", "client_secret_post", "none"}

// credentials are what a request says about its client.
type credentials struct {
	method     string
	id, secret string
}

// Attempt is what is known about an authentication whether it succeeded or not.
type Attempt struct {
	Method string
	// ClientID is the client that was named, "" where there is no such client.
	ClientID string
}

// Authenticate finds the client of a request and checks its secret. A public
// client only identifies itself; whoever needs a proof asks Client.Public.
// Errors are *oauth.Error.
func (r *Registry) Authenticate(req *http.Request, form web.Form) (*Client, Attempt, error) {
	cred, err := read(req.Header["Authorization"], form)
	if err != nil {
		return nil, Attempt{}, err
	}
	attempt := Attempt{Method: cred.method}
	c, err := r.Client(req.Context(), cred.id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, attempt, oauth.Unavailable(fmt.Errorf("look up the client: %w", err))
	}
	if c != nil {
		attempt.ClientID = c.ID
	}
	if !proven(c, cred) {
		refusal := oauth.Refuse(oauth.InvalidClient, "the client is unknown or did not prove who it is")
		refusal.Basic = cred.method == "client_secret_basic"
		return nil, attempt, refusal
	}
	return c, attempt, nil
}

// proven compares digests, also with nothing where there is no client, so that
// the time tells neither whether the client exists nor how much of the secret
// was right.
func proven(c *Client, cred credentials) bool {
	var hashes []store.Digest
	if c != nil {
		hashes = c.SecretHashes
	}
	presented := sha256.Sum256([]byte(cred.secret))
	match := 0
	for i := range max(len(hashes), 2) {
		var h store.Digest
		if i < len(hashes) {
			h = hashes[i]
		}
		match |= subtle.ConstantTimeCompare(presented[:], h[:])
	}
	switch {
	case c == nil:
		return false
	case c.Public():
		return cred.method == "none"
	}
	return cred.method != "none" && match == 1
}

// read finds the one way in which a request names its client.
func read(authorization []string, form web.Form) (credentials, error) {
	id, secret := form.Value("client_id"), form.Value("client_secret")
	if form.Value("client_assertion") != "" || form.Value("client_assertion_type") != "" {
		return credentials{}, oauth.Refuse(oauth.InvalidClient, "client assertions are not supported")
	}
	switch {
	case len(authorization) > 1:
		return credentials{}, oauth.Refuse(oauth.InvalidRequest, "there is more than one Authorization field")
	case len(authorization) == 1:
		basic, err := readBasic(authorization[0])
		if err != nil {
			return credentials{}, err
		}
		if secret != "" {
			return credentials{}, oauth.Refuse(oauth.InvalidRequest, "the client authenticates in two ways at once")
		}
		if id != "" && id != basic.id {
			return credentials{}, oauth.Refuse(oauth.InvalidRequest, "client_id differs from the authenticated client")
		}
		return basic, nil
	case id == "":
		return credentials{}, oauth.Refuse(oauth.InvalidClient, "the request names no client")
	case secret != "":
		return credentials{"client_secret_post", id, secret}, nil
	}
	return credentials{"none", id, ""}, nil
}

// readBasic decodes id and secret, which are form-urlencoded inside Basic
// (RFC 6749, 2.3.1).
func readBasic(field string) (credentials, error) {
	malformed := oauth.Refuse(oauth.InvalidClient, "the Authorization field is not Basic as RFC 6749, 2.3.1 has it")
	malformed.Basic = true
	scheme, encoded, _ := strings.Cut(field, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return credentials{}, malformed
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimLeft(encoded, " "))
	if err != nil {
		return credentials{}, malformed
	}
	id, secret, found := strings.Cut(string(raw), ":")
	if !found || id == "" {
		return credentials{}, malformed
	}
	if strings.ContainsAny(id, "%+") {
		if id, err = url.QueryUnescape(id); err != nil {
			return credentials{}, malformed
		}
	}
	if strings.ContainsAny(secret, "%+") {
		if secret, err = url.QueryUnescape(secret); err != nil {
			return credentials{}, malformed
		}
	}
	return credentials{"client_secret_basic", id, secret}, nil
}
