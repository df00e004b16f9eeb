package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// signer signs with one private key, which it keeps in a function: fmt follows
// pointers that it meets with a wrong verb.
type signer struct {
	kid, algorithm string
	activates      time.Time
	signature      func(text []byte) ([]byte, error)
	headers        sync.Map // typ → the encoded header and its dot
}

func newSigner(row store.Key, private crypto.Signer) (*signer, error) {
	method, known := methods[row.Algorithm]
	if !known {
		return nil, fmt.Errorf("unknown algorithm %.20q", row.Algorithm)
	}
	s := &signer{kid: row.ID, algorithm: row.Algorithm, activates: row.Activates,
		signature: func(text []byte) ([]byte, error) { return method.Sign(string(text), private) }}
	if key, ok := private.(*ecdsa.PrivateKey); ok && row.Algorithm == ES256 {
		s.signature = func(text []byte) ([]byte, error) { return signES256(key, text) }
	}
	return s, nil
}

// signES256 is the method's Sign without its detours over big integers: most
// of what a token costs is its signature.
func signES256(key *ecdsa.PrivateKey, text []byte) ([]byte, error) {
	digest := sha256.Sum256(text)
	der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return nil, err
	}
	const size = 32 // of each half (RFC 7518, 3.4)
	signature := make([]byte, 2*size)
	var pair, r, s cryptobyte.String
	input := cryptobyte.String(der)
	if !input.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&r, asn1.INTEGER) || !pair.ReadASN1(&s, asn1.INTEGER) ||
		!leftPadded(signature[:size], r) || !leftPadded(signature[size:], s) {
		return nil, errors.New("a signature of another form than ECDSA's on P-256")
	}
	return signature, nil
}

// leftPadded writes a positive integer into all of to.
func leftPadded(to, integer []byte) bool {
	integer = bytes.TrimLeft(integer, "\x00")
	if len(integer) > len(to) {
		return false
	}
	copy(to[len(to)-len(integer):], integer)
	return true
}

// Sign returns a compact JWS (RFC 7515) of claims under the key that is active
// for use now. claims is a JSON object as []byte, which is signed as it stands,
// or anything that encoding/json encodes as one. typ is one of few constants.
func (r *Ring) Sign(use, typ string, claims any) (token string, err error) {
	payload, ready := claims.([]byte)
	if !ready {
		if payload, err = json.Marshal(claims); err != nil {
			return "", fmt.Errorf("encode claims: %w", err)
		}
	}
	pair, known := r.view.Load().signers[use]
	if !known {
		return "", fmt.Errorf("no key signs for use %q", use)
	}
	s := pair.active
	// Every replica that knows of the next key changes over at the same time,
	// even if it cannot reach the store then.
	if pair.next != nil && !r.now().Before(pair.next.activates) {
		s = pair.next
	}
	return s.sign(typ, payload)
}

func (s *signer) sign(typ string, payload []byte) (string, error) {
	header, err := s.header(typ)
	if err != nil {
		return "", err
	}
	const room = 700 // for the signature of the longest RSA key in base64
	buf := make([]byte, 0, len(header)+b64.EncodedLen(len(payload))+1+room)
	buf = append(buf, header...)
	buf = b64.AppendEncode(buf, payload)
	sig, err := s.signature(buf)
	if err != nil {
		return "", fmt.Errorf("sign with key %q: %w", s.kid, err)
	}
	buf = append(buf, '.')
	return string(b64.AppendEncode(buf, sig)), nil
}

func (s *signer) header(typ string) (string, error) {
	if h, ok := s.headers.Load(typ); ok {
		return h.(string), nil
	}
	text, err := json.Marshal(struct {
		Algorithm string `json:"alg"`
		Type      string `json:"typ"`
		ID        string `json:"kid"`
	}{s.algorithm, typ, s.kid})
	if err != nil {
		return "", fmt.Errorf("encode header: %w", err)
	}
	h := b64.EncodeToString(text) + "."
	s.headers.Store(typ, h)
	return h, nil
}
