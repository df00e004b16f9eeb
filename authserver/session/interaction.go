package session

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// ErrInteraction says that a handle is not ours, is too old, or was opened in
// another browser than the one that it was made for.
var ErrInteraction = errors.New("the interaction began in another browser or is over")

// ErrOver is the answer to whoever brings such a handle.
var ErrOver = oauth.Refuse(oauth.InteractionOver, "This sign-in began in another browser or session, was used already, or took too long. Begin again.")

// Interaction is an authorization request on its way through login and
// consent. It travels sealed, so it needs no storage and says nothing to who
// sees the handle.
type Interaction struct {
	// ID is there where the interaction can be spent once only; see Spend.
	ID string `json:"id,omitempty"`
	// Query is the authorization request, what it referred to put in, or the
	// query of the page that Return names.
	Query string `json:"q"`
	// Return is the page to go back to; empty: the authorization endpoint.
	Return string `json:"b,omitempty"`
	// Pushed and Signed tell that the client itself sent the request, or signed
	// it.
	Pushed bool `json:"p,omitempty"`
	Signed bool `json:"g,omitempty"`
	// ClientName and Redirect are what the pages show and allow.
	ClientID   string `json:"c,omitempty"`
	ClientName string `json:"n,omitempty"`
	Redirect   string `json:"r,omitempty"`
	// Scopes are those to consent to.
	Scopes []string `json:"s,omitempty"`
	// Locales are the languages that the application asked for.
	Locales string `json:"u,omitempty"`
	// Hint fills in the user name.
	Hint string `json:"h,omitempty"`
	// Session is the session that the consent page is for.
	Session string `json:"f,omitempty"`
	// Half is the subject whose password was right, while the second factor is
	// awaited.
	Half string `json:"half,omitempty"`
	// Next is the page of ours to go on with after the sign-in, where it is not
	// for an application.
	Next string `json:"next,omitempty"`
	// LoggedIn is the session in which the user signed in for this very
	// request; Consented the one in which the user allowed it.
	LoggedIn  string `json:"l,omitempty"`
	Consented string `json:"a,omitempty"`
	// Device is the user code's digest that the device page is for.
	Device []byte `json:"v,omitempty"`
	// Denied: the user said no.
	Denied bool `json:"d,omitempty"`
	// Expires is in Unix seconds.
	Expires int64 `json:"e"`
}

// Back is the endpoint that the browser goes back to.
func (i Interaction) Back() string {
	if i.Return == "" {
		return "authorize"
	}
	return i.Return
}

const (
	// pageLife is how long a page may lie open before it is sent.
	pageLife = 30 * time.Minute
	// answerLife is how long the answer of a page is worth something: it is
	// the time of one redirect.
	answerLife = time.Minute
	// halfLife is how long the second factor is awaited.
	halfLife = 10 * time.Minute
)

var encoding = base64.RawURLEncoding.Strict()

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("interaction key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal returns the handle of an interaction that only the browser with this
// mark can use.
func (m *Manager) Seal(browser string, i Interaction) (string, error) {
	life := pageLife
	if i.Consented != "" || i.Denied || i.LoggedIn != "" && i.Session == "" {
		life = answerLife
	}
	if i.Half != "" {
		life = halfLife
	}
	i.Expires = m.now().Add(life).Unix()
	if m.once != nil && i.ID == "" {
		i.ID = random()
	}
	plain, err := json.Marshal(i)
	if err != nil {
		return "", fmt.Errorf("seal interaction: %w", err)
	}
	bind := sha256.Sum256([]byte(browser))
	return encoding.EncodeToString(m.aead.Seal(nil, nil, plain, bind[:])), nil
}

// Open returns the interaction of a handle; ErrInteraction.
func (m *Manager) Open(browser, handle string) (Interaction, error) {
	var i Interaction
	sealed, err := encoding.DecodeString(handle)
	if err != nil || browser == "" {
		return i, ErrInteraction
	}
	bind := sha256.Sum256([]byte(browser))
	plain, err := m.aead.Open(nil, nil, sealed, bind[:])
	if err != nil || json.Unmarshal(plain, &i) != nil || m.now().Unix() > i.Expires {
		return Interaction{}, ErrInteraction
	}
	return i, nil
}

// Spend marks an interaction as used, just before what it is for is done;
// ErrOver where it was. Without Config.Once it may be used again: people press
// a button of a page twice.
func (m *Manager) Spend(ctx context.Context, i Interaction) error {
	if m.once == nil || i.ID == "" {
		return nil
	}
	fresh, err := m.once.Once(ctx, "interaction:"+i.ID, time.Unix(i.Expires, 0).Add(time.Minute))
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("use an interaction once: %w", err))
	}
	if !fresh {
		return ErrOver
	}
	return nil
}
