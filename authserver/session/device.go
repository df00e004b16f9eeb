package session

import (
	"encoding/json"
	"net/http"
	"time"
)

const (
	deviceCookie = "gatehouse_device"
	deviceLife   = 180 * 24 * time.Hour
)

// device says that somebody signed in on a browser.
type device struct {
	Name string `json:"n"`
	ID   string `json:"i"`
}

var deviceLabel = []byte("device")

// Device returns the id of this browser if the user of this name signed in on
// it before, "" if not. It proves nothing but that.
func (m *Manager) Device(r *http.Request, name string) string {
	c, err := r.Cookie(m.prefix + deviceCookie)
	if err != nil {
		return ""
	}
	sealed, err := encoding.DecodeString(c.Value)
	if err != nil {
		return ""
	}
	plain, err := m.aead.Open(nil, nil, sealed, deviceLabel)
	var d device
	if err != nil || json.Unmarshal(plain, &d) != nil || d.Name != name {
		return ""
	}
	return d.ID
}

// MarkDevice remembers in the browser that the user of this name signed in.
func (m *Manager) MarkDevice(w http.ResponseWriter, r *http.Request, name string) error {
	if m.Device(r, name) != "" {
		return nil
	}
	plain, err := json.Marshal(device{name, random()})
	if err != nil {
		return err
	}
	m.set(w, deviceCookie, encoding.EncodeToString(m.aead.Seal(nil, nil, plain, deviceLabel)), deviceLife)
	return nil
}
