// Package jose reads what others signed: client assertions, request objects
// and DPoP proofs, with the public keys that belong to them.
//
// It owns the strict reading of compact JWS and JWK, the allow-list of
// algorithms, and thumbprints. It does not own what the claims mean, nor
// the server's own keys (keys) and tokens (tokens).
//
//	token, err := jose.Parse(assertion)
//	err = token.Verify(key) // key of jose.ParseSet
package jose

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithms is the allow-list: asymmetric ones only, so that neither `none`
// nor a public key used as a secret can ever verify (RFC 8725, 3.1 and 3.2).
// Ed25519 is what RFC 9864, 2.2 calls EdDSA with that curve, the only one here.
var Algorithms = [...]string{"ES256", "ES384", "Ed25519", "EdDSA", "PS256", "RS256"}

// method is the implementation of an allowed algorithm.
func method(algorithm string) jwt.SigningMethod {
	if algorithm == "Ed25519" {
		algorithm = "EdDSA"
	}
	return jwt.GetSigningMethod(algorithm)
}

// maxToken bounds what is looked at.
const maxToken = 16 << 10

var (
	errForm      = errors.New("not a compact JWS")
	errAlgorithm = errors.New("alg is missing or not allowed")
	errSignature = errors.New("the signature does not verify")
	errFit       = errors.New("the key does not fit alg")
)

var (
	encoding    = base64.RawURLEncoding.Strict()
	stdEncoding = base64.StdEncoding
)

// Token is a compact JWS taken apart. Nothing of it is believed before Verify.
type Token struct {
	Algorithm string
	Type      string
	KeyID     string
	// JWK is the header's own key, for proofs; nil where there is none.
	JWK json.RawMessage
	// Claims is the payload, a JSON object.
	Claims []byte

	signed    string
	signature []byte
}

// Parse takes a compact JWS apart, without any cryptography. Errors hold
// nothing of the token.
func Parse(token string) (*Token, error) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 || strings.ContainsAny(token, "\r\n") {
		return nil, errForm
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = encoding.DecodeString(p); err != nil || len(raw[i]) == 0 {
			return nil, errForm
		}
	}
	var h struct {
		Algorithm string          `json:"alg"`
		Type      string          `json:"typ"`
		KeyID     string          `json:"kid"`
		JWK       json.RawMessage `json:"jwk"`
		Critical  json.RawMessage `json:"crit"`
		Base64    json.RawMessage `json:"b64"`
	}
	if err := Object(raw[0], &h); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	// No extension is understood here (RFC 7515, 4.1.11).
	if h.Critical != nil || h.Base64 != nil {
		return nil, errors.New("header: crit is not accepted")
	}
	if !slices.Contains(Algorithms[:], h.Algorithm) {
		return nil, errAlgorithm
	}
	if err := Object(raw[1], &struct{}{}); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return &Token{
		Algorithm: h.Algorithm, Type: h.Type, KeyID: h.KeyID, JWK: h.JWK, Claims: raw[1],
		signed: token[:len(parts[0])+1+len(parts[1])], signature: raw[2],
	}, nil
}

// Verify checks the signature under a key. The key must be of the kind, and of
// the curve, that the algorithm names.
func (t *Token) Verify(k Key) error {
	if !k.Fits(t.Algorithm) {
		return errFit
	}
	if err := method(t.Algorithm).Verify(t.signed, t.signature, k.Public); err != nil {
		return errSignature
	}
	return nil
}

// Object decodes a JSON object and refuses one in which a member occurs twice:
// readers differ in which of the two they take, and a signature covers both.
func Object(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return errors.New("not a JSON object")
		}
		// Go folds case when it finds the field of a member.
		key := strings.ToLower(name.(string))
		if seen[key] {
			return errors.New("a member occurs twice")
		}
		seen[key] = true
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			return errors.New("not a JSON object")
		}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return errors.New("a member has another type than it must")
	}
	return nil
}

// Strings is one string or an array of them, as `aud` is.
type Strings []string

// UnmarshalJSON implements json.Unmarshaler.
func (s *Strings) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*s = Strings{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(s))
}
