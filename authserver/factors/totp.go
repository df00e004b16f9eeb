package factors

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"image/png"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const (
	period        = 30 // seconds of a time step
	recoveryCodes = 10
	recoverySize  = 10 // bytes: 16 characters of base32
	qrSize        = 240
)

var base32Text = base32.StdEncoding.WithPadding(base32.NoPadding)

// Enrolment is an authenticator app that is not confirmed yet. Whoever keeps
// it keeps it secret.
type Enrolment struct {
	Secret string `json:"s"` // base32
	URL    string `json:"u"` // otpauth://
}

// NewApp returns the secret for a new authenticator app of an account.
func (f *Factors) NewApp(account string) (Enrolment, error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: f.name, AccountName: account, Period: period})
	if err != nil {
		return Enrolment{}, fmt.Errorf("make the secret of an authenticator app: %w", err)
	}
	return Enrolment{key.Secret(), key.URL()}, nil
}

// QR returns the enrolment as a PNG that apps read.
func (e Enrolment) QR() ([]byte, error) {
	key, err := otp.NewKeyFromURL(e.URL)
	if err != nil {
		return nil, fmt.Errorf("read an enrolment: %w", err)
	}
	image, err := key.Image(qrSize, qrSize)
	if err != nil {
		return nil, fmt.Errorf("draw a QR code: %w", err)
	}
	var b bytes.Buffer
	err = png.Encode(&b, image)
	return b.Bytes(), err
}

// ConfirmApp stores the app of an enrolment if code is one of its codes now,
// and returns new recovery codes, which can never be read again.
func (f *Factors) ConfirmApp(ctx context.Context, subject string, e Enrolment, code string, events ...store.AuditEvent) ([]string, error) {
	step, ok := f.step(e.Secret, code)
	if !ok {
		return nil, ErrWrong
	}
	codes, digests := newRecoveryCodes()
	return codes, f.store.PutTOTP(ctx, store.TOTP{
		Subject: subject, Sealed: f.aead.Seal(nil, nil, []byte(e.Secret), label(subject)), LastStep: step, Created: f.now(),
	}, digests, events...)
}

// label binds a sealed secret to its owner.
func label(subject string) []byte { return []byte("totp\x00" + subject) }

// RemoveApp removes the app and the recovery codes; store.ErrNotFound.
func (f *Factors) RemoveApp(ctx context.Context, subject string, events ...store.AuditEvent) error {
	return f.store.RemoveTOTP(ctx, subject, events...)
}

// NewRecoveryCodes replaces the recovery codes.
func (f *Factors) NewRecoveryCodes(ctx context.Context, subject string, events ...store.AuditEvent) ([]string, error) {
	codes, digests := newRecoveryCodes()
	return codes, f.store.PutRecoveryCodes(ctx, subject, digests, events...)
}

// bare is a code without what people type between its parts.
func bare(code string) string {
	return strings.Map(func(c rune) rune {
		if c == ' ' || c == '-' {
			return -1
		}
		return c
	}, code)
}

// IsRecovery reports whether a code is for Recover rather than for VerifyCode.
func IsRecovery(code string) bool { return len(bare(code)) > int(otp.DigitsSix) }

// VerifyCode spends a code of the app; ErrWrong. It counts in its time step and
// in those beside it, for clocks that go wrong, and once only (RFC 6238, 5.2).
func (f *Factors) VerifyCode(ctx context.Context, subject, code string) error {
	t, err := f.store.TOTP(ctx, subject)
	if errors.Is(err, store.ErrNotFound) {
		return ErrWrong
	}
	if err != nil {
		return err
	}
	secret, err := f.aead.Open(nil, nil, t.Sealed, label(subject))
	if err != nil {
		return fmt.Errorf("the secret of an authenticator app does not open: %w", err)
	}
	step, ok := f.step(string(secret), bare(code))
	if !ok {
		return ErrWrong
	}
	err = f.store.SpendTOTP(ctx, subject, step)
	if errors.Is(err, store.ErrUsed) || errors.Is(err, store.ErrNotFound) {
		return ErrWrong
	}
	return err
}

// step returns the time step that a code belongs to, if that is not more than
// one away.
func (f *Factors) step(secret, code string) (int64, bool) {
	now := f.now()
	found, ok := int64(0), false
	for _, away := range [...]int64{-1, 0, 1} {
		at := now.Add(time.Duration(away) * period * time.Second)
		want, err := totp.GenerateCode(secret, at)
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			found, ok = at.Unix()/period, true
		}
	}
	return found, ok
}

// Recover spends a recovery code; ErrWrong.
func (f *Factors) Recover(ctx context.Context, subject, code string, events ...store.AuditEvent) error {
	raw, err := base32Text.DecodeString(strings.ToUpper(bare(code)))
	if err != nil || len(raw) != recoverySize {
		return ErrWrong
	}
	err = f.store.SpendRecoveryCode(ctx, subject, sha256.Sum256(raw), events...)
	if errors.Is(err, store.ErrNotFound) {
		return ErrWrong
	}
	return err
}

// newRecoveryCodes returns codes for people, and what is stored of them. They
// have 80 random bits, so their digests need no slow hash.
func newRecoveryCodes() (codes []string, digests []store.Digest) {
	for range recoveryCodes {
		var raw [recoverySize]byte
		rand.Read(raw[:]) // never fails
		text := strings.ToLower(base32Text.EncodeToString(raw[:]))
		codes = append(codes, text[:4]+"-"+text[4:8]+"-"+text[8:12]+"-"+text[12:])
		digests = append(digests, sha256.Sum256(raw[:]))
	}
	return codes, digests
}
