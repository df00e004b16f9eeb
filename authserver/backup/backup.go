// Package backup encrypts what a store dumps under a passphrase.
//
// It owns the file: age encryption (scrypt and ChaCha20-Poly1305, which also
// notices a file that was changed or cut off) around gzip. It does not own what
// is in it (the store's dump), and the key encryption key is not part of it:
// private keys stay sealed under that one.
//
//	err := backup.Write(file, passphrase, backup.Work, func(w io.Writer) error { return st.Dump(ctx, w) })
//	err := backup.Read(file, passphrase, func(r io.Reader) error { return sqlstore.Restore(ctx, dsn, r) })
package backup

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// MinPassphrase is the least length of a passphrase, in bytes.
const MinPassphrase = 16

// Errors of this package.
var (
	ErrPassphrase = fmt.Errorf("a passphrase has at least %d bytes", MinPassphrase)
	ErrFile       = errors.New("the passphrase is wrong, or this is no whole, unchanged backup")
)

// Work is what scrypt costs whoever tries a passphrase, as a power of two; a
// file that asks for more than maxWork is refused.
const (
	Work    = 18
	maxWork = 20
)

// Write writes a backup of what dump writes, of which it costs work to try a
// passphrase. After an error the file is worthless.
func Write(w io.Writer, passphrase string, work int, dump func(io.Writer) error) error {
	if len(passphrase) < MinPassphrase {
		return ErrPassphrase
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	recipient.SetWorkFactor(work)
	sealed, err := age.Encrypt(w, recipient)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	packed := gzip.NewWriter(sealed)
	if err := dump(packed); err != nil {
		return err
	}
	if err := errors.Join(packed.Close(), sealed.Close()); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// Read gives load what Write's dump wrote. load reads nothing that is not
// authentic, but may read the beginning of a file that turns out to be cut off:
// it must undo its work when reading fails.
func Read(r io.Reader, passphrase string, load func(io.Reader) error) error {
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return ErrPassphrase
	}
	identity.SetMaxWorkFactor(maxWork)
	opened, err := age.Decrypt(r, identity)
	if err != nil {
		return ErrFile
	}
	packed, err := gzip.NewReader(opened)
	if err != nil {
		return ErrFile
	}
	return load(packed)
}
