package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

const redacted = "[redacted]"

// Kek is a key encryption key. It prints as [redacted] in every format. The
// zero Kek encrypts nothing.
type Kek struct{ k *kek }

// kek keeps the key in a function: where fmt finds no method, it follows
// pointers that it meets with a wrong verb.
type kek struct {
	id   kekID
	aead func() cipher.AEAD
}

// kekID names a key encryption key without telling anything about it.
type kekID [8]byte

func (id kekID) String() string { return hex.EncodeToString(id[:]) }

// ParseKek reads 32 bytes in standard base64.
func ParseKek(text string) (Kek, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		// The decoder's error tells a position only, yet the text is a secret.
		return Kek{}, errors.New("a key encryption key is 32 bytes in base64; this is no base64")
	}
	if len(raw) != 32 {
		return Kek{}, fmt.Errorf("a key encryption key is 32 bytes in base64; these are %d bytes", len(raw))
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return Kek{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return Kek{}, err
	}
	k := &kek{aead: func() cipher.AEAD { return aead }}
	sum := sha256.Sum256(append([]byte("gatehouse key encryption key id\x00"), raw...))
	copy(k.id[:], sum[:])
	return Kek{k}, nil
}

// NewKekText returns a new key encryption key in the form that ParseKek reads.
func NewKekText() string {
	raw := make([]byte, 32)
	rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

// ID names the key in errors and logs; it is no secret.
func (k Kek) ID() string {
	if k.k == nil {
		return "none"
	}
	return k.k.id.String()
}

// String returns "[redacted]".
func (Kek) String() string { return redacted }

// GoString returns "[redacted]".
func (Kek) GoString() string { return redacted }

// Format writes "[redacted]" for every verb.
func (Kek) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalJSON returns "[redacted]" as JSON.
func (Kek) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalText returns "[redacted]".
func (Kek) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// An envelope is a version byte, the id of the key encryption key, a nonce and
// the AES-256-GCM ciphertext. Header and label are authenticated, so that an
// envelope opens only as what it was sealed for.
const (
	envelopeVersion = 1
	nonceSize       = 12
	headerSize      = 1 + len(kekID{}) + nonceSize
)

// keyring holds key encryption keys, newest first.
type keyring []Kek

func (r keyring) seal(label string, secret []byte) []byte {
	k := r[0].k
	aead := k.aead()
	envelope := make([]byte, headerSize, headerSize+len(secret)+aead.Overhead())
	envelope[0] = envelopeVersion
	copy(envelope[1:], k.id[:])
	nonce := envelope[headerSize-nonceSize:]
	rand.Read(nonce) // never fails
	return aead.Seal(envelope, nonce, secret, additional(label, k.id))
}

// open returns the secret and whether it should be sealed again, because a key
// that is not the newest one opened it.
func (r keyring) open(label string, envelope []byte) (secret []byte, reseal bool, err error) {
	if len(envelope) < headerSize || envelope[0] != envelopeVersion {
		return nil, false, fmt.Errorf("%s: not an envelope of version %d", label, envelopeVersion)
	}
	id := kekID(envelope[1 : 1+len(kekID{})])
	for i, k := range r {
		if k.k.id != id {
			continue
		}
		nonce := envelope[headerSize-nonceSize : headerSize]
		secret, err := k.k.aead().Open(nil, nonce, envelope[headerSize:], additional(label, id))
		if err != nil {
			return nil, false, fmt.Errorf("%s: the envelope was changed or belongs to something else", label)
		}
		return secret, i > 0, nil
	}
	return nil, false, fmt.Errorf("%s: sealed under key encryption key %s, which is not configured", label, id)
}

func additional(label string, id kekID) []byte {
	data := append([]byte{envelopeVersion}, id[:]...)
	return append(data, label...)
}
