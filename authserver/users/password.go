package users

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost of new hashes, by the OWASP recommendation that OAUTH.md decides for.
const (
	costMemory  = 19456 // KiB
	costTime    = 2
	costThreads = 1
	saltLength  = 16
	keyLength   = 32
)

// maxPassword bounds what is hashed; longer ones are refused, never cut.
const maxPassword = 1024

// minPassword is the least length of a new password (NIST SP 800-63B).
const minPassword = 8

var (
	// errHash says that a password hash is not argon2id in PHC form with sane
	// cost.
	errHash = errors.New("password hash is not argon2id in PHC form ($argon2id$v=19$m=…,t=…,p=…$salt$hash)")
	// ErrBusy says that too many passwords are being hashed already.
	ErrBusy = errors.New("too many sign-ins at once")
	// ErrPassword says that a new password is too short or too long.
	ErrPassword = fmt.Errorf("a password has %d to %d bytes", minPassword, maxPassword)
)

// phc is a parsed hash.
type phc struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

// parsePHC reads an argon2id hash. The bounds keep a bad configuration file
// from becoming a denial of service.
func parsePHC(s string) (phc, error) {
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != "v=19" {
		return phc{}, errHash
	}
	var h phc
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); err != nil || n != 3 {
		return phc{}, errHash
	}
	if fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.threads) != part[3] {
		return phc{}, errHash
	}
	if h.threads < 1 || h.threads > 16 || h.time < 1 || h.time > 32 || h.memory < 8*uint32(h.threads) || h.memory > 256<<10 {
		return phc{}, errHash
	}
	var err error
	if h.salt, err = base64.RawStdEncoding.DecodeString(part[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return phc{}, errHash
	}
	if h.key, err = base64.RawStdEncoding.DecodeString(part[5]); err != nil || len(h.key) < 16 || len(h.key) > 64 {
		return phc{}, errHash
	}
	return h, nil
}

// checkHash reports whether s is a hash that can be verified.
func checkHash(s string) error {
	_, err := parsePHC(s)
	return err
}

func (h phc) String() string {
	return fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s", h.memory, h.time, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// outdated reports whether the cost is below that of new hashes.
func (h phc) outdated() bool {
	return h.memory < costMemory || h.time < costTime || len(h.key) < keyLength
}

// hasher bounds how many passwords are hashed at once, so that a storm of
// sign-ins leaves processor time to the token endpoint. The zero value is not
// usable.
type hasher struct {
	slots chan struct{}
	queue chan struct{}
}

func newHasher() *hasher {
	n := max(1, runtime.NumCPU()-1)
	return &hasher{slots: make(chan struct{}, n), queue: make(chan struct{}, 64*n)}
}

// do runs f in a slot. It returns ErrBusy at once when the queue is full, and
// the context's error when that ends first.
func (h *hasher) do(ctx context.Context, f func()) error {
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return ErrBusy
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return ErrBusy
	}
	f()
	return nil
}

// GoodPassword reports whether a new password has an allowed length.
func GoodPassword(password string) bool {
	return len(password) >= minPassword && len(password) <= maxPassword
}

// hash returns the PHC string of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if !GoodPassword(password) {
		return "", ErrPassword
	}
	p := phc{memory: costMemory, time: costTime, threads: costThreads, salt: make([]byte, saltLength)}
	rand.Read(p.salt) // never fails
	if err := h.do(ctx, func() {
		p.key = argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, keyLength)
	}); err != nil {
		return "", err
	}
	return p.String(), nil
}

// verify reports whether password has this hash. It takes the time that the
// hash's cost takes, whatever the answer.
func (h *hasher) verify(ctx context.Context, p phc, password string) (bool, error) {
	long := len(password) > maxPassword
	if long {
		password = ""
	}
	var key []byte
	if err := h.do(ctx, func() {
		key = argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, uint32(len(p.key)))
	}); err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(key, p.key) == 1 && !long, nil
}

// HashPassword returns the hash to write into a configuration.
func HashPassword(ctx context.Context, password string) (string, error) {
	return newHasher().hash(ctx, password)
}
