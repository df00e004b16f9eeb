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

	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// credentials are what a request says about its client.
type credentials struct {
	method     string
	id, secret string
	assertion  *assertion
}

// Attempt is what is known about an authentication whether it succeeded or not.
type Attempt struct {
	Method string
	// ClientID is the client that was named, "" where there is no such client.
	ClientID string
}

// Authenticate finds the client of a request and checks that it is the one: by
// its secret, its signature or its certificate, whichever it is registered
// with. A public client only identifies itself; whoever needs a proof asks
// Client.Public. Errors are *oauth.Error.
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
		if m := c.Method(); cred.method == None && (m == TLSClient || m == SelfSignedTLS) {
			attempt.Method = m
		}
	}
	if err := r.prove(req, c, &cred, attempt.Method); err != nil {
		var refusal *oauth.Error
		if errors.As(err, &refusal) {
			return nil, attempt, refusal
		}
		refusal = oauth.Refuse(oauth.InvalidClient, "the client is unknown or did not prove who it is")
		refusal.Basic = cred.method == SecretBasic
		return nil, attempt, refusal
	}
	return c, attempt, nil
}

var errProof = errors.New("no proof")

// prove checks the proof that goes with the method. An error that is not an
// *oauth.Error is told to nobody.
func (r *Registry) prove(req *http.Request, c *Client, cred *credentials, method string) error {
	switch method {
	case PrivateKeyJWT:
		if c == nil || c.Method() != method {
			return errProof
		}
		return r.check(req.Context(), c, cred.assertion)
	case TLSClient, SelfSignedTLS:
		cert := web.Certificate(req)
		if cert == nil {
			return errProof
		}
		var keys []jose.Key
		if method == SelfSignedTLS {
			var err error
			if keys, err = r.keys(req.Context(), c, ""); errors.Is(err, ErrKeys) {
				return oauth.Unavailable(err)
			}
		}
		if !c.shows(cert, keys) {
			return errProof
		}
		return nil
	}
	if !proven(c, *cred) {
		return errProof
	}
	return nil
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
	if c == nil || !c.accepts(cred.method) {
		return false
	}
	return cred.method == None || match == 1
}

// read finds the one way in which a request names its client.
func read(authorization []string, form web.Form) (credentials, error) {
	id, secret := form.Value("client_id"), form.Value("client_secret")
	switch {
	case form.Value("client_assertion") != "" || form.Value("client_assertion_type") != "":
		return readAssertion(authorization, form)
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
		return credentials{method: SecretPost, id: id, secret: secret}, nil
	}
	return credentials{method: None, id: id}, nil
}

// readAssertion takes the client's name from the assertion; client_id may
// repeat it (RFC 7521, 4.2).
func readAssertion(authorization []string, form web.Form) (credentials, error) {
	if len(authorization) > 0 || form.Value("client_secret") != "" {
		return credentials{}, oauth.Refuse(oauth.InvalidRequest, "the client authenticates in two ways at once")
	}
	if form.Value("client_assertion_type") != AssertionType {
		return credentials{}, oauth.Refuse(oauth.InvalidClient, "the client assertion is of an unknown type")
	}
	a, err := parseAssertion(form.Value("client_assertion"))
	if err != nil {
		return credentials{}, oauth.Refuse(oauth.InvalidClient, "the client assertion is malformed, or its algorithm is not allowed")
	}
	if id := form.Value("client_id"); id != "" && id != a.claims.Subject {
		return credentials{}, oauth.Refuse(oauth.InvalidClient, "client_id differs from the client assertion's subject")
	}
	return credentials{method: PrivateKeyJWT, id: a.claims.Subject, assertion: a}, nil
}

// readBasic decodes id and secret, which are form-urlencoded inside Basic
// (RFC 6749, 2.3.1).
func readBasic(field string) (credentials, error) {
	id, secret, ok := cutBasic(field)
	if !ok {
		malformed := oauth.Refuse(oauth.InvalidClient, "the Authorization field is not Basic as RFC 6749, 2.3.1 has it")
		malformed.Basic = true
		return credentials{}, malformed
	}
	return credentials{method: SecretBasic, id: id, secret: secret}, nil
}

func cutBasic(field string) (id, secret string, ok bool) {
	scheme, encoded, _ := strings.Cut(field, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return "", "", false
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimLeft(encoded, " "))
	if err != nil {
		return "", "", false
	}
	if id, secret, ok = strings.Cut(string(raw), ":"); !ok || id == "" {
		return "", "", false
	}
	for _, part := range []*string{&id, &secret} {
		if strings.ContainsAny(*part, "%+") {
			if *part, err = url.QueryUnescape(*part); err != nil {
				return "", "", false
			}
		}
	}
	return id, secret, true
}
