package dpop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// rotation is how long a nonce is the current one; it is accepted for as long
// again.
const rotation = 2 * time.Minute

// Nonces are functions of a key and the time, so replicas that share the key
// accept each other's and nothing has to be stored. They make proofs that were
// made in advance worthless (RFC 9449, 8); they are the same for every
// client, and a replay is for the caller to notice.
type Nonces struct{ key []byte }

// NewNonces returns the nonces of a secret key of 32 bytes.
func NewNonces(key []byte) *Nonces { return &Nonces{key} }

// Current is the nonce for the next proof.
func (n *Nonces) Current(now time.Time) string { return n.of(now.Unix() / int64(rotation/time.Second)) }

func (n *Nonces) valid(nonce string, now time.Time) bool {
	window := now.Unix() / int64(rotation/time.Second)
	// The next one too: another replica's clock may be ahead.
	for _, w := range []int64{window, window - 1, window + 1} {
		if hmac.Equal([]byte(nonce), []byte(n.of(w))) {
			return true
		}
	}
	return false
}

func (n *Nonces) of(window int64) string {
	mac := hmac.New(sha256.New, n.key)
	mac.Write([]byte("dpop nonce"))
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(window)))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}
