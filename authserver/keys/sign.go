package keys

import (
	"crypto"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// signer signs with one private key, which it keeps in a function: fmt follows
// pointers that it meets with a wrong verb.
type signer struct {
	kid, algorithm string
	activates      time.Time
	signature      func(text string) ([]byte, error)
	headers        sync.Map // typ → the encoded header and its dot
}

func newSigner(row store.Key, private crypto.Signer) (*signer, error) {
	method, known := methods[row.Algorithm]
	if !known {
		return nil, fmt.Errorf("unknown algorithm %.20q", row.Algorithm)
	}
	return &signer{kid: row.ID, algorithm: row.Algorithm, activates: row.Activates,
		signature: func(text string) ([]byte, error) { return method.Sign(text, private) }}, nil
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
	sig, err := s.signature(string(buf))
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
