package factors

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/gatehouse/gatehouse/authserver/store"
)

const (
	// CeremonyLife is how long the answer to a challenge is awaited.
	CeremonyLife = 10 * time.Minute
	maxPasskeys  = 20
	maxAnswer    = 32 << 10
)

// ErrTooMany says that a person has as many passkeys as there may be.
var ErrTooMany = errors.New("no more passkeys")

// Ceremony is a challenge: Options go to the browser, State comes back to us
// unseen and unchanged.
type Ceremony struct {
	Options []byte // JSON
	State   []byte
}

// owner is a person as the library wants to see one.
type owner struct {
	subject, name, title string
	passkeys             []webauthn.Credential
}

func (o *owner) WebAuthnID() []byte                         { return []byte(o.subject) }
func (o *owner) WebAuthnName() string                       { return o.name }
func (o *owner) WebAuthnDisplayName() string                { return o.title }
func (o *owner) WebAuthnCredentials() []webauthn.Credential { return o.passkeys }

// Passkeys reports whether there can be any.
func (f *Factors) Passkeys() bool { return f.keys != nil }

func (f *Factors) owner(ctx context.Context, u store.User) (*owner, []store.Passkey, error) {
	list, err := f.store.Passkeys(ctx, u.Subject)
	if err != nil {
		return nil, nil, err
	}
	o := &owner{subject: u.Subject, name: u.Name, title: u.DisplayName}
	if o.title == "" {
		o.title = u.Name
	}
	for _, p := range list {
		var c webauthn.Credential
		if err := json.Unmarshal(p.Credential, &c); err != nil {
			return nil, nil, fmt.Errorf("a stored passkey: %w", err)
		}
		o.passkeys = append(o.passkeys, c)
	}
	return o, list, nil
}

// BeginPasskey asks the browser for a new passkey; ErrTooMany.
func (f *Factors) BeginPasskey(ctx context.Context, u store.User) (Ceremony, error) {
	o, list, err := f.owner(ctx, u)
	if err != nil {
		return Ceremony{}, err
	}
	if len(list) >= maxPasskeys {
		return Ceremony{}, ErrTooMany
	}
	options, state, err := f.keys.BeginRegistration(o,
		webauthn.WithExclusions(webauthn.Credentials(o.passkeys).CredentialDescriptors()))
	if err != nil {
		return Ceremony{}, fmt.Errorf("ask for a passkey: %w", err)
	}
	return ceremony(options, state)
}

func ceremony(options, state any) (c Ceremony, err error) {
	if c.Options, err = json.Marshal(options); err != nil {
		return c, err
	}
	c.State, err = json.Marshal(state)
	return c, err
}

// AddPasskey stores the passkey of a browser's answer; ErrWrong.
func (f *Factors) AddPasskey(ctx context.Context, u store.User, name string, state, answer []byte, events ...store.AuditEvent) error {
	o, _, err := f.owner(ctx, u)
	if err != nil {
		return err
	}
	session, err := f.spend(ctx, state, answer)
	if err != nil {
		return err
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return ErrWrong
	}
	c, err := f.keys.CreateCredential(o, session, parsed)
	if err != nil {
		return ErrWrong
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	err = f.store.AddPasskey(ctx, store.Passkey{
		ID: c.ID, Subject: u.Subject, Name: name, Credential: raw, Count: c.Authenticator.SignCount, Created: f.now(),
	}, events...)
	if errors.Is(err, store.ErrExists) {
		return ErrWrong
	}
	return err
}

// RemovePasskey removes one; store.ErrNotFound.
func (f *Factors) RemovePasskey(ctx context.Context, subject string, id []byte, events ...store.AuditEvent) error {
	return f.store.RemovePasskey(ctx, subject, id, events...)
}

// BeginSignIn asks the browser for any passkey of this server, or for one of u
// where u is not nil.
func (f *Factors) BeginSignIn(ctx context.Context, u *store.User) (Ceremony, error) {
	if u == nil {
		options, state, err := f.keys.BeginDiscoverableLogin()
		if err != nil {
			return Ceremony{}, fmt.Errorf("ask for a passkey: %w", err)
		}
		return ceremony(options, state)
	}
	o, _, err := f.owner(ctx, *u)
	if err != nil {
		return Ceremony{}, err
	}
	options, state, err := f.keys.BeginLogin(o)
	if err != nil {
		return Ceremony{}, fmt.Errorf("ask for a passkey: %w", err)
	}
	return ceremony(options, state)
}

// Find returns a live user by subject, as the registry of users does.
type Find func(ctx context.Context, subject string) (store.User, error)

// SignIn verifies a browser's answer and returns whose passkey it is; ErrWrong,
// for a wrong origin, challenge, relying party or signature, and where the
// counter did not go forward.
func (f *Factors) SignIn(ctx context.Context, find Find, u *store.User, state, answer []byte) (store.User, error) {
	if f.keys == nil {
		return store.User{}, ErrWrong
	}
	session, err := f.spend(ctx, state, answer)
	if err != nil {
		return store.User{}, err
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return store.User{}, ErrWrong
	}
	var who store.User
	if u != nil {
		who = *u
	} else if who, err = find(ctx, string(parsed.Response.UserHandle)); errors.Is(err, store.ErrNotFound) {
		return store.User{}, ErrWrong
	} else if err != nil {
		return store.User{}, err
	}
	o, list, err := f.owner(ctx, who)
	if err != nil {
		return store.User{}, err
	}
	var c *webauthn.Credential
	if u != nil {
		c, err = f.keys.ValidateLogin(o, session, parsed)
	} else {
		_, c, err = f.keys.ValidatePasskeyLogin(func(_, _ []byte) (webauthn.User, error) { return o, nil }, session, parsed)
	}
	if err != nil || c.Authenticator.CloneWarning {
		return who, ErrWrong
	}
	for _, p := range list {
		if string(p.ID) != string(c.ID) {
			continue
		}
		if p.Credential, err = json.Marshal(c); err != nil {
			return who, err
		}
		p.Count, p.Used = c.Authenticator.SignCount, f.now()
		err = f.store.UsePasskey(ctx, p)
		if errors.Is(err, store.ErrReuse) || errors.Is(err, store.ErrNotFound) {
			return who, ErrWrong
		}
		return who, err
	}
	return who, ErrWrong
}

// spend reads the state of a ceremony, which is good for one answer.
func (f *Factors) spend(ctx context.Context, state, answer []byte) (webauthn.SessionData, error) {
	var session webauthn.SessionData
	if f.keys == nil || len(answer) > maxAnswer || json.Unmarshal(state, &session) != nil || session.Challenge == "" {
		return session, ErrWrong
	}
	fresh, err := f.store.Once(ctx, "webauthn:"+session.Challenge, f.now().Add(CeremonyLife+time.Minute))
	if err != nil {
		return session, err
	}
	if !fresh {
		return session, ErrWrong
	}
	return session, nil
}
