package keys

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// secret makes MACs under the key that refresh tokens are derived from. It
// alone could forge live ones, so it is sealed like a private key, and kept in
// a function: fmt follows pointers that it meets with a wrong verb.
type secret func() hash.Hash

const secretName = "refresh-hmac"

// openSecret returns the secret that all replicas share, which the first of
// them made.
func openSecret(ctx context.Context, s store.Keys, keks keyring) (secret, error) {
	candidate := make([]byte, 32)
	rand.Read(candidate) // never fails
	sealed, err := s.Envelope(ctx, secretName, keks.seal(secretName, candidate))
	if err != nil {
		return nil, fmt.Errorf("read the secret of refresh tokens: %w", err)
	}
	raw, reseal, err := keks.open(secretName, sealed)
	if err != nil {
		return nil, err
	}
	if len(raw) != 32 {
		return nil, fmt.Errorf("%s: a secret of %d bytes", secretName, len(raw))
	}
	if reseal {
		err := s.ReplaceEnvelope(ctx, secretName, sealed, keks.seal(secretName, raw))
		if err != nil && !errors.Is(err, store.ErrMismatch) { // another replica was first
			return nil, fmt.Errorf("seal the secret of refresh tokens again: %w", err)
		}
	}
	return func() hash.Hash { return hmac.New(sha256.New, raw) }, nil
}

// Derive returns 32 secret bytes that belong to a label and a number, the same
// on every replica. Those of a grant and a generation are its refresh token, so
// that a repeated rotation finds the successor without its ever being stored;
// labels that no grant has give other secrets. Compare them in constant time.
func (r *Ring) Derive(label string, n int) []byte {
	mac := r.refresh()
	mac.Write([]byte("gatehouse refresh token 1\x00"))
	var size, number [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(label)))
	binary.BigEndian.PutUint64(number[:], uint64(n))
	mac.Write(size[:])
	mac.Write([]byte(label))
	mac.Write(number[:])
	return mac.Sum(nil)
}
