// Package factors is what people sign in with besides a password: codes of an
// authenticator app (RFC 6238), recovery codes, and passkeys (WebAuthn).
//
// It owns enrolment and verification, and that nothing is accepted twice. It
// does not own passwords and the limits of guessing (users), nor the pages
// (login, account).
//
//	err := f.VerifyCode(ctx, subject, code) // ErrWrong: not now, or not again
package factors

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// ErrWrong says that a code or a passkey's answer is not accepted. It does not
// say why: the answer to whoever sent it is the same.
var ErrWrong = errors.New("the code or the passkey is not accepted")

// Store is the state that the package needs.
type Store interface {
	store.Factors
	Once(ctx context.Context, key string, expires time.Time) (fresh bool, err error)
}

// Config is what Factors need.
type Config struct {
	Store Store
	Now   func() time.Time
	// Key seals the secrets of apps; 32 bytes, shared by replicas.
	Key []byte
	// Name is what apps and passkeys show: the issuer's host.
	Name string
	// Domain is the relying party of passkeys, "" where there can be none: they
	// need a domain name. Origin is that of our pages.
	Domain, Origin string
}

// Factors is safe for concurrent use.
type Factors struct {
	store Store
	now   func() time.Time
	name  string
	aead  cipher.AEAD
	keys  *webauthn.WebAuthn // nil: no passkeys
}

// New returns factors.
func New(c Config) (*Factors, error) {
	block, err := aes.NewCipher(c.Key)
	if err != nil {
		return nil, fmt.Errorf("key of authenticator secrets: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("key of authenticator secrets: %w", err)
	}
	f := &Factors{store: c.Store, now: c.Now, name: c.Name, aead: aead}
	if c.Domain == "" {
		return f, nil
	}
	f.keys, err = webauthn.New(&webauthn.Config{
		RPID: c.Domain, RPDisplayName: c.Name, RPOrigins: []string{c.Origin},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementRequired, UserVerification: protocol.VerificationRequired,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("passkeys: %w", err)
	}
	return f, nil
}

// Set is what a person has enrolled.
type Set struct {
	App      bool
	Recovery int // codes left
	Passkeys []store.Passkey
}

// Of returns what a person has enrolled.
func (f *Factors) Of(ctx context.Context, subject string) (Set, error) {
	var s Set
	_, err := f.store.TOTP(ctx, subject)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return s, err
	}
	s.App = err == nil
	if s.Passkeys, err = f.store.Passkeys(ctx, subject); err != nil {
		return s, err
	}
	s.Recovery, err = f.store.RecoveryCodes(ctx, subject)
	return s, err
}
