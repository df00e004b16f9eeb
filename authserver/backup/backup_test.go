package backup

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

const (
	passphrase = "a passphrase for testing"
	little     = 10 // of work
)

func made(t *testing.T, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, passphrase, little, func(w io.Writer) error { _, err := io.WriteString(w, content); return err }); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(file []byte, passphrase string) (content string, err error) {
	err = Read(bytes.NewReader(file), passphrase, func(r io.Reader) error {
		raw, err := io.ReadAll(r)
		content = string(raw)
		return err
	})
	return content, err
}

func TestBackupIsReadWithItsPassphraseOnly(t *testing.T) {
	content := strings.Repeat("a line of state\n", 20000)
	file := made(t, content)
	if bytes.Contains(file, []byte("line of state")) {
		t.Error("the content is in the open")
	}
	if have, err := read(file, passphrase); err != nil || have != content {
		t.Errorf("%d bytes, %v", len(have), err)
	}
	if _, err := read(file, passphrase+"!"); !errors.Is(err, ErrFile) {
		t.Errorf("another passphrase: %v", err)
	}
	if _, err := read(file[:len(file)-1], passphrase); err == nil {
		t.Error("a file that was cut off is read")
	}
	changed := bytes.Clone(file)
	changed[len(changed)-20] ^= 1
	if _, err := read(changed, passphrase); err == nil {
		t.Error("a changed file is read")
	}
	if _, err := read([]byte("nonsense"), passphrase); !errors.Is(err, ErrFile) {
		t.Errorf("nonsense: %v", err)
	}
	if err := Write(io.Discard, "short", little, nil); !errors.Is(err, ErrPassphrase) {
		t.Errorf("a short passphrase: %v", err)
	}
	refused := errors.New("refused")
	if err := Write(io.Discard, passphrase, little, func(io.Writer) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("a failed dump: %v", err)
	}
}
