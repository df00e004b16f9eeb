package tokens

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// Prefixes make a token that leaked into a log or a repository recognisable.
const (
	codePrefix    = "ghc_"
	refreshPrefix = "ghr_"
	devicePrefix  = "ghd_"
)

const (
	grantLength   = 16
	secretLength  = 32
	refreshLength = grantLength + 4 + secretLength
)

var encoding = base64.RawURLEncoding.Strict()

// NewCode returns an authorization code of 256 random bits and its digest.
func NewCode() (code string, hash store.Digest) { return newOpaque(codePrefix) }

// NewDeviceCode returns a device code of 256 random bits and its digest.
func NewDeviceCode() (code string, hash store.Digest) { return newOpaque(devicePrefix) }

func newOpaque(prefix string) (text string, hash store.Digest) {
	var b [32]byte
	rand.Read(b[:]) // never fails
	text = prefix + encoding.EncodeToString(b[:])
	return text, sha256.Sum256([]byte(text))
}

// CodeHash returns the digest under which a code is stored; not ok for what
// cannot be a code of ours.
func CodeHash(code string) (hash store.Digest, ok bool) { return opaqueHash(codePrefix, code) }

// DeviceCodeHash is CodeHash for device codes.
func DeviceCodeHash(code string) (hash store.Digest, ok bool) { return opaqueHash(devicePrefix, code) }

func opaqueHash(prefix, text string) (hash store.Digest, ok bool) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok || len(rest) != 43 {
		return hash, false
	}
	return sha256.Sum256([]byte(text)), true
}

// NewGrant returns the id of a new grant.
func NewGrant() string {
	var b [grantLength]byte
	rand.Read(b[:])
	return encoding.EncodeToString(b[:])
}

// Refresh is a refresh token as its text says: a grant, a generation, and the
// secret that only the server can derive for them.
type Refresh struct {
	Grant      string
	Generation int
	secret     [secretLength]byte
	hash       store.Digest
}

// Hash is the digest under which the token is stored.
func (r Refresh) Hash() store.Digest { return r.hash }

// ParseRefresh reads a refresh token; not ok for what cannot be one of ours.
// It does not tell whether the secret is right: see Issuer.Genuine.
func ParseRefresh(token string) (r Refresh, ok bool) {
	rest, ok := strings.CutPrefix(token, refreshPrefix)
	if !ok {
		return r, false
	}
	raw, err := encoding.DecodeString(rest)
	if err != nil || len(raw) != refreshLength {
		return r, false
	}
	generation := binary.BigEndian.Uint32(raw[grantLength:])
	if generation == 0 || generation > 1<<30 {
		return r, false
	}
	r.Grant = encoding.EncodeToString(raw[:grantLength])
	r.Generation = int(generation)
	copy(r.secret[:], raw[grantLength+4:])
	r.hash = sha256.Sum256([]byte(token))
	return r, true
}

// Refresh returns the refresh token of a grant's generation, and its digest.
// It is a function of both, so a retry gets the very same one and no copy has
// to be kept.
func (i *Issuer) Refresh(grant string, generation int) (token string, hash store.Digest) {
	id, err := encoding.DecodeString(grant)
	if err != nil || len(id) != grantLength {
		panic("tokens: a grant that NewGrant did not make")
	}
	raw := make([]byte, 0, refreshLength)
	raw = append(raw, id...)
	raw = binary.BigEndian.AppendUint32(raw, uint32(generation))
	raw = append(raw, i.keys.Derive(grant, generation)...)
	token = refreshPrefix + encoding.EncodeToString(raw)
	return token, sha256.Sum256([]byte(token))
}

// Genuine reports whether the server made this refresh token. Only genuine
// ones may reach the store, which believes its caller about old generations.
func (i *Issuer) Genuine(r Refresh) bool {
	return subtle.ConstantTimeCompare(i.keys.Derive(r.Grant, r.Generation), r.secret[:]) == 1
}

// PushedPrefix is what the request_uri of a pushed request starts with (RFC 9126, 2.2).
const PushedPrefix = "urn:ietf:params:oauth:request_uri:"

// NewPushed returns a request_uri of 256 random bits and its digest.
func NewPushed() (uri string, hash store.Digest) {
	var b [32]byte
	rand.Read(b[:])
	uri = PushedPrefix + encoding.EncodeToString(b[:])
	return uri, sha256.Sum256([]byte(uri))
}

// PushedHash returns the digest under which a pushed request is stored; not ok
// for what cannot be a request_uri of ours.
func PushedHash(uri string) (hash store.Digest, ok bool) {
	rest, ok := strings.CutPrefix(uri, PushedPrefix)
	if !ok || len(rest) != 43 {
		return hash, false
	}
	return sha256.Sum256([]byte(uri)), true
}
