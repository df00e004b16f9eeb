package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/MicahParks/jwkset"
)

const (
	leastRSA = 2048
	mostRSA  = 8192
	// maxKeys bounds a set: verification without a key id tries all that fit.
	maxKeys = 32
)

// Key is a public key. Algorithm and ID may be empty.
type Key struct {
	ID        string
	Algorithm string
	Public    crypto.PublicKey
	// Thumbprint is that of RFC 7638 with SHA-256, in base64url: `jkt`.
	Thumbprint string
	// Certificate is the first of x5c, DER; nil where there is none.
	Certificate []byte
}

// ParseKey reads a public JWK for signatures. One with a private part is
// refused: whoever sent it has given it away.
func ParseKey(raw []byte) (Key, error) {
	var m jwkset.JWKMarshal
	if err := Object(raw, &m); err != nil {
		return Key{}, fmt.Errorf("key: %w", err)
	}
	if m.D != "" || m.K != "" || m.P != "" || m.Q != "" || m.DP != "" || m.DQ != "" || m.QI != "" || len(m.OTH) > 0 {
		return Key{}, errors.New("key: it has a private part")
	}
	if m.USE != "" && m.USE != jwkset.UseSig || len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
		return Key{}, errors.New("key: it is not for signatures")
	}
	public := jwkset.JWKMarshal{KTY: m.KTY, CRV: m.CRV, X: m.X, Y: m.Y, N: m.N, E: m.E}
	parsed, err := jwkset.NewJWKFromMarshal(public, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return Key{}, errors.New("key: it is malformed, or of a kind that is not supported")
	}
	k := Key{ID: m.KID, Algorithm: string(m.ALG), Public: parsed.Key()}
	if k.Thumbprint, err = thumbprint(k.Public); err != nil {
		return Key{}, err
	}
	if k.Algorithm != "" && !slices.Contains(Algorithms[:], k.Algorithm) {
		return Key{}, errors.New("key: its alg is not allowed")
	}
	if !slices.ContainsFunc(Algorithms[:], k.Fits) {
		return Key{}, errors.New("key: no allowed algorithm fits it")
	}
	if len(m.X5C) > 0 {
		if k.Certificate, err = stdEncoding.DecodeString(m.X5C[0]); err != nil {
			return Key{}, errors.New("key: x5c is not base64")
		}
	}
	return k, nil
}

// ParseSet reads a JWK set (RFC 7517, 5). Keys that are not for us, such as
// those for encryption, are passed over; a private one, or two with one id,
// make the whole set unusable.
func ParseSet(raw []byte) ([]Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := Object(raw, &set); err != nil || set.Keys == nil {
		return nil, errors.New("not a JWK set: an object with the member keys")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	var keys []Key
	var last error
	for i, one := range set.Keys {
		var secret struct {
			D, K string
		}
		if json.Unmarshal(one, &secret) == nil && (secret.D != "" || secret.K != "") {
			return nil, fmt.Errorf("keys[%d] has a private part", i)
		}
		k, err := ParseKey(one)
		if err != nil {
			last = fmt.Errorf("keys[%d]: %w", i, err)
			continue
		}
		if k.ID != "" && slices.ContainsFunc(keys, func(o Key) bool { return o.ID == k.ID }) {
			return nil, errors.New("two keys have one kid")
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.Join(errors.New("no usable key"), last)
	}
	return keys, nil
}

// Fits reports whether the key may verify signatures of the algorithm.
func (k Key) Fits(alg string) bool {
	if k.Algorithm != "" && method(k.Algorithm) != method(alg) {
		return false
	}
	switch p := k.Public.(type) {
	case *ecdsa.PublicKey:
		return alg == map[int]string{256: "ES256", 384: "ES384"}[p.Curve.Params().BitSize]
	case ed25519.PublicKey:
		return alg == "EdDSA" || alg == "Ed25519"
	case *rsa.PublicKey:
		bits := p.N.BitLen()
		return (alg == "RS256" || alg == "PS256") && bits >= leastRSA && bits <= mostRSA && p.E >= 3
	}
	return false
}

// thumbprint is over the canonical form of the key (RFC 7638, 3), whatever
// spelling it came in.
func thumbprint(public crypto.PublicKey) (string, error) {
	var canonical []byte
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		point, err := p.Bytes()
		if err != nil {
			return "", errors.New("key: the point is not on the curve")
		}
		half := (len(point) - 1) / 2
		canonical = fmt.Appendf(nil, `{"crv":%q,"kty":"EC","x":%q,"y":%q}`, p.Curve.Params().Name,
			encoding.EncodeToString(point[1:1+half]), encoding.EncodeToString(point[1+half:]))
	case ed25519.PublicKey:
		canonical = fmt.Appendf(nil, `{"crv":"Ed25519","kty":"OKP","x":%q}`, encoding.EncodeToString(p))
	case *rsa.PublicKey:
		canonical = fmt.Appendf(nil, `{"e":%q,"kty":"RSA","n":%q}`,
			encoding.EncodeToString(big.NewInt(int64(p.E)).Bytes()), encoding.EncodeToString(p.N.Bytes()))
	default:
		return "", errors.New("key: its kind is not supported")
	}
	sum := sha256.Sum256(canonical)
	return encoding.EncodeToString(sum[:]), nil
}

// CertificateThumbprint is `x5t#S256` of a DER certificate (RFC 8705, 3.1).
func CertificateThumbprint(der []byte) string {
	sum := sha256.Sum256(der)
	return encoding.EncodeToString(sum[:])
}

// Certifies reports whether a certificate is the key's: the very one of x5c
// where there is one, else any with the same public key.
func (k Key) Certifies(cert *x509.Certificate) bool {
	if k.Certificate != nil {
		return bytes.Equal(k.Certificate, cert.Raw)
	}
	t, err := thumbprint(cert.PublicKey)
	return err == nil && t == k.Thumbprint
}
