// Package session keeps browsers signed in, and carries an authorization
// request through the pages that it needs.
//
// It owns the cookies, login sessions and the sealed interaction that travels
// from page to page. It does not own the pages (login, consent, logout) nor
// what they decide.
//
//	s, err := sessions.Current(ctx, r)      // store.ErrNotFound: not signed in
//	handle, err := sessions.Seal(r, interaction)
package session

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// Manager is safe for concurrent use.
type Manager struct {
	store store.Sessions
	now   func() time.Time
	ttl   time.Duration
	// prefix is "__Host-", which binds cookies to this host and to TLS, or
	// nothing on http loopback.
	prefix string
	aead   cipher.AEAD
	once   Once // nil: interactions may be used again
}

// Once is replay protection (store.Store).
type Once interface {
	Once(ctx context.Context, key string, expires time.Time) (fresh bool, err error)
}

// Config is what a Manager needs.
type Config struct {
	Store store.Sessions
	Now   func() time.Time
	// TTL is the life of a session.
	TTL time.Duration
	// Plain leaves Secure and the __Host- prefix out; for http on loopback.
	Plain bool
	// Key seals interactions; 32 bytes, shared by replicas.
	Key []byte
	// Once makes every interaction good for one use; nil: they are for more.
	Once Once
}

// New returns a manager.
func New(c Config) (*Manager, error) {
	aead, err := newAEAD(c.Key)
	if err != nil {
		return nil, err
	}
	m := &Manager{store: c.Store, now: c.Now, ttl: c.TTL, prefix: "__Host-", aead: aead, once: c.Once}
	if c.Plain {
		m.prefix = ""
	}
	return m, nil
}

const (
	sessionCookie = "gatehouse_session"
	browserCookie = "gatehouse_browser"
	cookieLength  = 43 // 32 bytes in base64url
	browserLife   = 400 * 24 * time.Hour
)

// Cookie returns the value of the session cookie, "" where there is none.
func (m *Manager) Cookie(r *http.Request) string { return m.cookie(r, sessionCookie) }

// Browser returns the value that marks this browser, "" where there is none.
func (m *Manager) Browser(r *http.Request) string { return m.cookie(r, browserCookie) }

func (m *Manager) cookie(r *http.Request, name string) string {
	c, err := r.Cookie(m.prefix + name)
	if err != nil || len(c.Value) != cookieLength {
		return ""
	}
	return c.Value
}

// EnsureBrowser returns the value that marks this browser, and sets one where
// there is none yet.
func (m *Manager) EnsureBrowser(w http.ResponseWriter, r *http.Request) string {
	if v := m.Browser(r); v != "" {
		return v
	}
	v := random()
	m.set(w, browserCookie, v, browserLife)
	return v
}

// Current returns the live session of the request's cookie; store.ErrNotFound
// where there is none.
func (m *Manager) Current(ctx context.Context, r *http.Request) (store.Session, error) {
	v := m.Cookie(r)
	if v == "" {
		return store.Session{}, store.ErrNotFound
	}
	return m.store.SessionByCookie(ctx, sha256.Sum256([]byte(v)), m.now())
}

// Start begins a session under a new cookie, whatever cookie the browser had
// (session fixation), and returns the cookie's value for Remember. previous is the browser's session before: where it is
// the same subject's it goes on with its id, so that a second sign-in does not
// end what the first one gave. Ending another subject's is the caller's. event
// is stored with the session, whose id it gets.
func (m *Manager) Start(ctx context.Context, r *http.Request, previous store.Session, subject, acr string, event *store.AuditEvent) (s store.Session, cookie string, err error) {
	value, now := random(), m.now()
	s = store.Session{
		ID: newID(), Cookie: sha256.Sum256([]byte(value)), Subject: subject, ACR: acr,
		AuthTime: now, Created: now, Expires: now.Add(m.ttl), Agent: shorten(r.UserAgent()),
	}
	err = store.ErrNotFound
	if previous.Subject == subject && subject != "" {
		renewed := s
		renewed.ID, renewed.Created = previous.ID, previous.Created
		event.Session = renewed.ID
		if err = m.store.RenewSession(ctx, renewed, now, *event); err == nil {
			s = renewed
		}
	}
	if errors.Is(err, store.ErrNotFound) { // none to renew, or it ended meanwhile
		event.Session = s.ID
		err = m.store.AddSession(ctx, s, *event)
	}
	if err != nil {
		return store.Session{}, "", err
	}
	return s, value, nil
}

// Remember gives the browser its session cookie, until it is closed; when the
// session really ends the store knows.
func (m *Manager) Remember(w http.ResponseWriter, cookie string) { m.set(w, sessionCookie, cookie, 0) }

// Forget makes the browser drop its session cookie.
func (m *Manager) Forget(w http.ResponseWriter) { m.set(w, sessionCookie, "", -time.Second) }

func (m *Manager) set(w http.ResponseWriter, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: m.prefix + name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: m.prefix != "", HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

func random() string {
	var b [32]byte
	rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return "ses_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// shorten keeps a user agent fit for a list, in visible ASCII.
func shorten(agent string) string {
	b := make([]byte, 0, 128)
	for i := 0; i < len(agent) && len(b) < 128; i++ {
		if c := agent[i]; ' ' <= c && c <= '~' {
			b = append(b, c)
		}
	}
	return string(b)
}
