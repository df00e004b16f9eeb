package session

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"
)

// sealed is a value with its end.
type sealed struct {
	Value   json.RawMessage `json:"v"`
	Expires int64           `json:"e"`
}

// SealValue returns v as text that only this server can read, for a page to
// carry: it opens under the same purpose, for the browser or session of the
// same cookie, for as long as life.
func (m *Manager) SealValue(purpose, cookie string, life time.Duration, v any) (string, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", purpose, err)
	}
	plain, err := json.Marshal(sealed{value, m.now().Add(life).Unix()})
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", purpose, err)
	}
	return encoding.EncodeToString(m.aead.Seal(nil, nil, plain, binding(purpose, cookie))), nil
}

// OpenValue reads what SealValue returned into v; ErrInteraction.
func (m *Manager) OpenValue(purpose, cookie, text string, v any) error {
	raw, err := encoding.DecodeString(text)
	if err != nil || cookie == "" {
		return ErrInteraction
	}
	var s sealed
	plain, err := m.aead.Open(nil, nil, raw, binding(purpose, cookie))
	if err != nil || json.Unmarshal(plain, &s) != nil || m.now().Unix() > s.Expires || json.Unmarshal(s.Value, v) != nil {
		return ErrInteraction
	}
	return nil
}

func binding(purpose, cookie string) []byte {
	sum := sha256.Sum256([]byte(purpose + "\x00" + cookie))
	return sum[:]
}
