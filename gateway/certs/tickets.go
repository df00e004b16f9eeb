package certs

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// ticketLife is how long a key seals session tickets. Tickets are opened for
// one more such time, so a session can be resumed for 6 to 12 hours.
const ticketLife = 6 * time.Hour

// Tickets derives the keys of session tickets from a secret and the time, so
// that every process with the secret resumes the sessions of all others
// without ever speaking to them.
//
// Whoever learns the secret can open the tickets of all times: it protects
// TLS 1.2 sessions that were resumed, and who the client of one was. Sessions
// of TLS 1.3 keep their forward secrecy, because resuming makes a new key
// exchange (RFC 8446, 2.2).
type Tickets struct{ secrets [][]byte }

// NewTickets takes the secrets, newest first: the first one seals, all open.
// Without any, a random one is made that no other process has.
func NewTickets(secrets ...[]byte) *Tickets {
	if len(secrets) == 0 {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		secrets = [][]byte{secret}
	}
	return &Tickets{secrets}
}

func ticketWindow(now time.Time) int64 { return now.Unix() / int64(ticketLife/time.Second) }

// keys are those of a window: the first seals. Those of the window before
// open what was sealed then, those of the next what another process has
// sealed whose clock is ahead.
func (t *Tickets) keys(window int64, context [sha256.Size]byte) (keys [][32]byte) {
	for _, w := range []int64{window, window - 1, window + 1} {
		for _, secret := range t.secrets {
			keys = append(keys, ticketKey(secret, w, context))
		}
	}
	return keys
}

func ticketKey(secret []byte, window int64, context [sha256.Size]byte) [32]byte {
	info := append([]byte("gatehouse TLS session ticket 1\x00"), context[:]...)
	info = binary.BigEndian.AppendUint64(info, uint64(window))
	key, err := hkdf.Key(sha256.New, secret, nil, string(info), 32)
	if err != nil { // 32 bytes are always to be had of SHA-256
		panic(fmt.Sprintf("certs: %v", err))
	}
	return [32]byte(key)
}
