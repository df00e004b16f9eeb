package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

// Algorithms that sign, by their JOSE names (RFC 7518, RFC 8037).
const (
	ES256 = "ES256"
	EdDSA = "EdDSA"
	RS256 = "RS256"
)

// rsaBits is the size of new RSA keys, and the least that is accepted.
const rsaBits = 2048

// methods is the allow-list of algorithms.
var methods = map[string]jwt.SigningMethod{
	ES256: jwt.SigningMethodES256, EdDSA: jwt.SigningMethodEdDSA, RS256: jwt.SigningMethodRS256,
}

func generate(alg string) (crypto.Signer, error) {
	switch alg {
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return nil, fmt.Errorf("unknown algorithm %q", alg)
}

// jwk is a public key as RFC 7517 has it. It has no member that could hold a
// private one. The order of the members is that of RFC 7638.
type jwk struct {
	Curve     string `json:"crv,omitempty"`
	Exponent  string `json:"e,omitempty"`
	Type      string `json:"kty"`
	Modulus   string `json:"n,omitempty"`
	X         string `json:"x,omitempty"`
	Y         string `json:"y,omitempty"`
	ID        string `json:"kid,omitempty"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
}

var b64 = base64.RawURLEncoding

// newJWK describes a public key; its kid is the thumbprint of RFC 7638.
func newJWK(public crypto.PublicKey, alg string) (jwk, error) {
	var j jwk
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			return jwk{}, err
		}
		half := (len(point) - 1) / 2
		j = jwk{Type: "EC", Curve: "P-256", X: b64.EncodeToString(point[1 : 1+half]), Y: b64.EncodeToString(point[1+half:])}
	case ed25519.PublicKey:
		j = jwk{Type: "OKP", Curve: "Ed25519", X: b64.EncodeToString(k)}
	case *rsa.PublicKey:
		j = jwk{Type: "RSA", Modulus: b64.EncodeToString(k.N.Bytes()),
			Exponent: b64.EncodeToString(big.NewInt(int64(k.E)).Bytes())}
	default:
		return jwk{}, fmt.Errorf("no JWK for a %T", public)
	}
	canonical, err := json.Marshal(j)
	if err != nil {
		return jwk{}, err
	}
	sum := sha256.Sum256(canonical)
	j.ID, j.Use, j.Algorithm = b64.EncodeToString(sum[:]), "sig", alg
	return j, nil
}

// parseJWK returns the public key in text if it fits alg.
func parseJWK(text []byte, alg string) (crypto.PublicKey, error) {
	var j jwk
	if err := json.Unmarshal(text, &j); err != nil {
		return nil, fmt.Errorf("malformed JWK: %w", err)
	}
	part := func(s string) []byte {
		b, err := b64.DecodeString(s)
		if err != nil {
			return nil // no key has an empty part
		}
		return b
	}
	switch {
	case alg == ES256 && j.Type == "EC" && j.Curve == "P-256":
		x, y := part(j.X), part(j.Y)
		if len(x) != 32 || len(y) != 32 {
			return nil, errors.New("a coordinate of P-256 has 32 bytes")
		}
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	case alg == EdDSA && j.Type == "OKP" && j.Curve == "Ed25519":
		x := part(j.X)
		if len(x) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("a key of Ed25519 has %d bytes", ed25519.PublicKeySize)
		}
		return ed25519.PublicKey(x), nil
	case alg == RS256 && j.Type == "RSA":
		n, e := new(big.Int).SetBytes(part(j.Modulus)), new(big.Int).SetBytes(part(j.Exponent))
		if n.BitLen() < rsaBits {
			return nil, fmt.Errorf("an RSA key of %d bits, want at least %d", n.BitLen(), rsaBits)
		}
		if n.BitLen() > 4*rsaBits || n.Bit(0) == 0 || e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
			return nil, errors.New("not an RSA key")
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	}
	return nil, fmt.Errorf("a JWK of type %.20q, curve %.20q does not fit algorithm %.20q", j.Type, j.Curve, alg)
}
