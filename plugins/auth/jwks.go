package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
)

// keySet is one version of an issuer's keys; immutable.
type keySet struct{ keys map[string]key }

func (s *keySet) equal(other *keySet) bool {
	if len(s.keys) != len(other.keys) {
		return false
	}
	for kid, k := range s.keys {
		if o, ok := other.keys[kid]; !ok || !k.equal(o) {
			return false
		}
	}
	return true
}

// The algorithms that an issuer may be configured with: asymmetric ones only.
// HS* and none cannot be had by any configuration (RFC 8725, 3.1 and 3.2).
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// parseKeys reads a JWK set (RFC 7517, 5) and keeps the public keys that can
// verify signatures of the given algorithms; others are not for us and are
// ignored. Two of them with one kid, or none at all, make the set unusable.
func parseKeys(body []byte, algorithms []string) (*keySet, error) {
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &document); err != nil {
		return nil, fmt.Errorf("not a JWK set: %w", err)
	}
	storage := jwkset.NewMemoryStorage()
	lookup, err := keyfunc.New(keyfunc.Options{Storage: storage, UseWhitelist: []jwkset.USE{jwkset.UseSig, ""}})
	if err != nil {
		return nil, fmt.Errorf("key look-up: %w", err)
	}
	set := &keySet{keys: make(map[string]key)}
	for _, raw := range document.Keys {
		jwk, k, ok := parseKey(raw, algorithms)
		if !ok {
			continue
		}
		kid := jwk.Marshal().KID
		if _, ok := set.keys[kid]; ok {
			return nil, errors.New("two keys have one kid")
		}
		if err := storage.KeyWrite(context.Background(), jwk); err != nil {
			return nil, fmt.Errorf("keeping a key: %w", err)
		}
		k.lookup = lookup.Keyfunc
		set.keys[kid] = k
	}
	if len(set.keys) == 0 {
		return nil, errors.New("no usable key")
	}
	return set, nil
}

// parseKey reports whether raw is a key for us.
func parseKey(raw json.RawMessage, algorithms []string) (jwkset.JWK, key, bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(raw, &m) != nil || !saneKeyID(m.KID) {
		return jwkset.JWK{}, key{}, false
	}
	// A published private key is no secret any more.
	if m.D != "" || m.K != "" || m.P != "" || m.Q != "" {
		return jwkset.JWK{}, key{}, false
	}
	if m.USE != "" && m.USE != jwkset.UseSig ||
		len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return jwkset.JWK{}, key{}, false
	}
	// Certificates are not used; what is wrong with them is no concern.
	m = jwkset.JWKMarshal{
		KTY: m.KTY, CRV: m.CRV, X: m.X, Y: m.Y, N: m.N, E: m.E, KID: m.KID, ALG: m.ALG, USE: m.USE,
	}
	jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return jwkset.JWK{}, key{}, false
	}
	alg, ok := algorithm(jwk.Key(), string(m.ALG), algorithms)
	return jwk, key{public: jwk.Key(), alg: alg}, ok
}

// algorithm binds a key to its algorithm; "" stands for several of RSA.
func algorithm(public any, stated string, allowed []string) (string, bool) {
	alg := ""
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		alg = map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
	case ed25519.PublicKey:
		alg = jwt.SigningMethodEdDSA.Alg()
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < 2048 || bits > 8192 || k.E < 3 {
			return "", false
		}
		if stated == "" {
			return "", slices.ContainsFunc(allowed, ofRSA)
		}
		return stated, ofRSA(stated) && slices.Contains(allowed, stated)
	default:
		return "", false
	}
	return alg, (stated == "" || stated == alg) && slices.Contains(allowed, alg)
}

func ofRSA(alg string) bool { return alg != "" && (alg[0] == 'R' || alg[0] == 'P') }
