// Package register lets software register itself as a client, and look after
// its registration (RFC 7591, RFC 7592).
//
// It owns who may register, what of the things asked for is given, and the two
// tokens that go with it. It does not own what a sound client is (clients), nor
// the tokens' administration (admin). A client can give itself no scope that
// the operator's list does not have, no grant beyond it, and never skip consent.
//
//	e := register.New(config)
//	mux.Handle("/oauth/register", api.Handler(e.Create, http.MethodPost))
//	mux.Handle("/oauth/register/{id}", api.Handler(e.Manage, "GET", "PUT", "DELETE"))
package register

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Policy is what the operator allows to clients that register themselves.
type Policy struct {
	// Open lets anybody register; else an initial access token is needed.
	Open bool
	// Tokens are digests of initial access tokens that the configuration has,
	// good for any number of clients.
	Tokens []store.Digest
	// Scopes and Grants are those that a registered client may have.
	Scopes, Grants []string
}

// grants are those that clients may register for: every one whose tokens a
// user or the operator has to allow besides.
var grants = []string{clients.GrantCode, clients.GrantRefresh, clients.GrantDevice, clients.GrantClientCredentials}

// Check reports what is wrong with a policy, which may be nil. known tells which
// scopes exist.
func (p *Policy) Check(known func(string) bool) error {
	if p == nil {
		return nil
	}
	var problems []error
	for _, s := range p.Scopes {
		if !known(s) || len(scopes.Personal([]string{s})) == 0 {
			problems = append(problems, fmt.Errorf("client registration: scope %q does not exist, or is not one to give away", s))
		}
	}
	for _, g := range p.Grants {
		if !slices.Contains(grants, g) {
			problems = append(problems, fmt.Errorf("client registration: grant type %q is not one of %s", g, strings.Join(grants, ", ")))
		}
	}
	return errors.Join(problems...)
}

// Store is the state that the endpoints need.
type Store interface {
	store.Registrations
	Client(ctx context.Context, id string) (store.Client, error)
	RemoveClient(ctx context.Context, id string, events ...store.AuditEvent) error
	UpdateClient(ctx context.Context, c store.Client, events ...store.AuditEvent) error
	Tally(ctx context.Context, key string, now time.Time, window time.Duration) (int, error)
}

// Revoker logs revocations.
type Revoker interface {
	Revoke(ctx context.Context, level oauth.Level, id string, events ...store.AuditEvent) (oauth.Revocation, error)
}

// Fetcher gets documents that clients publish.
type Fetcher interface {
	// Check reports what is wrong with a URL as far as its text tells.
	Check(url string) error
	// Get returns the document at a URL.
	Get(ctx context.Context, url string) ([]byte, http.Header, error)
}

// Config is what an Endpoint needs.
type Config struct {
	Issuer  string
	Store   Store
	Revoker Revoker
	Fetch   Fetcher
	// Known tells which scopes exist.
	Known func(scope string) bool
	// Algorithm is that of ID tokens.
	Algorithm string
	Audit     *audit.Log
	Now       func() time.Time
}

// Endpoint is both endpoints. It is safe for concurrent use.
type Endpoint struct {
	Config
	policy atomic.Pointer[Policy]
}

// New returns endpoints at which nobody can register: see Declare.
func New(c Config) *Endpoint { return &Endpoint{Config: c} }

// Declare sets the policy; nil: nobody can register.
func (e *Endpoint) Declare(p *Policy) { e.policy.Store(p) }

const (
	// An address may try to register so often within window.
	perAddress = 100
	window     = 10 * time.Minute
)

// Create registers a client.
func (e *Endpoint) Create(w http.ResponseWriter, r *http.Request) error {
	ctx, now := r.Context(), e.Now()
	policy := e.policy.Load()
	if policy == nil {
		return &oauth.Error{Status: http.StatusNotFound, Code: oauth.InvalidRequest, Description: "clients cannot register themselves here"}
	}
	n, err := e.Store.Tally(ctx, "register:"+web.ClientAddress(r), now, window)
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("count registrations: %w", err))
	}
	if n > perAddress {
		return &oauth.Error{Status: http.StatusTooManyRequests, Code: oauth.TemporarilyUnavailable, Retry: window, Description: "too many registrations"}
	}
	allowed, initial, err := e.initial(r, policy)
	if err != nil {
		return err
	}
	m, err := readMetadata(r)
	if err != nil {
		return err
	}
	c := store.Client{ID: "dyn_" + random(16), Created: now}
	if err := e.apply(ctx, &c, m, policy, allowed); err != nil {
		return err
	}
	var secret string
	if m.secretMethod() {
		var hash store.Digest
		secret, hash = clients.NewSecret()
		c.SecretHashes = []store.Digest{hash}
	}
	if err := e.validate(c); err != nil {
		return err
	}
	token, registration := newRegistration(m)
	event := store.AuditEvent{
		Action: audit.ClientRegistered, Outcome: audit.Success, Actor: audit.Unknown, Client: c.ID, IP: web.ClientAddress(r),
	}
	err = e.Audit.With(ctx, event, func(event store.AuditEvent) error {
		return e.Store.Register(ctx, c, registration, initial, now, event)
	})
	if errors.Is(err, store.ErrNotFound) { // another one was faster with the last use
		return errInitial
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("store the client: %w", err))
	}
	web.WriteJSON(w, http.StatusCreated, e.information(c, m, token, secret))
	return nil
}

var errInitial = oauth.Refuse(oauth.InvalidToken, "an initial access token is needed, and this is none that can be used")

// initial checks the initial access token. It returns the scopes that it
// is for, nil for no bound, and its digest where a use of it is to be spent.
func (e *Endpoint) initial(r *http.Request, p *Policy) (bound []string, spend *store.Digest, err error) {
	token := bearer(r)
	if token == "" {
		if p.Open {
			return nil, nil, nil
		}
		return nil, nil, errInitial
	}
	hash := store.Digest(sha256.Sum256([]byte(token)))
	declared := 0
	for _, d := range p.Tokens {
		declared |= subtle.ConstantTimeCompare(hash[:], d[:])
	}
	if declared == 1 {
		return nil, nil, nil
	}
	t, err := e.Store.InitialToken(r.Context(), hash, e.Now())
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, errInitial
	}
	if err != nil {
		return nil, nil, oauth.Unavailable(fmt.Errorf("look up the initial access token: %w", err))
	}
	return t.Scopes, &hash, nil
}

// bearer returns the one bearer token of a request, "" where there is none.
func bearer(r *http.Request) string {
	fields := r.Header["Authorization"]
	if len(fields) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(fields[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// newRegistration makes a registration access token.
func newRegistration(m metadata) (token string, r store.Registration) {
	token = "ghg_" + random(32)
	about, err := json.Marshal(m)
	if err != nil {
		panic("register: metadata does not encode: " + err.Error()) // strings and lists of them
	}
	return token, store.Registration{Hash: sha256.Sum256([]byte(token)), Metadata: about}
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

// validate turns what clients knows into an answer of RFC 7591, 3.2.2.
func (e *Endpoint) validate(c store.Client) error {
	err := clients.Validate(c, e.Known)
	if err == nil {
		return nil
	}
	var refusal *oauth.Error
	if errors.As(err, &refusal) {
		return refusal
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return refuse("%s", first)
}

func refuse(format string, args ...any) error {
	return oauth.Refuse(oauth.InvalidClientMetadata, fmt.Sprintf(format, args...))
}

// information is the client information response (RFC 7591, 3.2.1).
func (e *Endpoint) information(c store.Client, m metadata, token, secret string) any {
	m.Name, m.RedirectURIs, m.PostLogoutRedirectURIs = c.Name, c.RedirectURIs, c.PostLogoutRedirectURIs
	m.Grants, m.Scope = c.Grants, strings.Join(c.Scopes, " ")
	m.ResponseTypes = nil
	for _, g := range c.Grants {
		if g == clients.GrantCode {
			m.ResponseTypes = []string{"code"}
		}
	}
	answer := struct {
		ID      string `json:"client_id"`
		Issued  int64  `json:"client_id_issued_at"`
		Secret  string `json:"client_secret,omitempty"`
		Expires *int64 `json:"client_secret_expires_at,omitempty"`
		Token   string `json:"registration_access_token"`
		URI     string `json:"registration_client_uri"`
		metadata
	}{ID: c.ID, Issued: c.Created.Unix(), Secret: secret, Token: token, URI: e.Issuer + "/oauth/register/" + c.ID, metadata: m}
	if len(c.SecretHashes) > 0 {
		answer.Expires = new(int64) // never
	}
	return answer
}

// Manage shows, changes or removes the client of the path (RFC 7592).
func (e *Endpoint) Manage(w http.ResponseWriter, r *http.Request) error {
	token := bearer(r)
	c, registration, err := e.own(r.Context(), r.PathValue("id"), token)
	if err != nil {
		return err
	}
	switch r.Method {
	case http.MethodPut:
		return e.change(w, r, c, registration)
	case http.MethodDelete:
		return e.remove(w, r, c)
	}
	var m metadata
	if err := json.Unmarshal(registration.Metadata, &m); err != nil {
		return oauth.Failed(fmt.Errorf("read the registration of %s: %w", c.ID, err))
	}
	web.WriteJSON(w, http.StatusOK, e.information(c, m, token, ""))
	return nil
}

var errRegistration = oauth.Refuse(oauth.InvalidToken, "the registration access token is not the client's")

// own returns the client if the token is its registration access token. It
// does not tell whether the client exists (RFC 7592, 2).
func (e *Endpoint) own(ctx context.Context, id, token string) (store.Client, store.Registration, error) {
	presented := sha256.Sum256([]byte(token))
	registration, err := e.Store.Registration(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Client{}, registration, oauth.Unavailable(fmt.Errorf("look up the registration: %w", err))
	}
	same := subtle.ConstantTimeCompare(presented[:], registration.Hash[:]) == 1
	if err != nil || !same || token == "" {
		return store.Client{}, registration, errRegistration
	}
	c, err := e.Store.Client(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && c.Disabled {
		return c, registration, errRegistration
	}
	if err != nil {
		return c, registration, oauth.Unavailable(fmt.Errorf("look up the client: %w", err))
	}
	return c, registration, nil
}

// change replaces what the client says about itself; what it leaves out is
// gone (RFC 7592, 2.2). The registration access token is replaced, too.
func (e *Endpoint) change(w http.ResponseWriter, r *http.Request, c store.Client, old store.Registration) error {
	policy := e.policy.Load()
	if policy == nil {
		return &oauth.Error{Status: http.StatusForbidden, Code: oauth.AccessDenied, Description: "clients cannot register themselves any more"}
	}
	m, err := readMetadata(r)
	if err != nil {
		return err
	}
	secret := store.Digest(sha256.Sum256([]byte(m.ClientSecret)))
	switch {
	case m.ClientID != c.ID:
		return refuse("client_id must be the client's own")
	case m.ClientSecret != "" && !clientSecret(c, secret):
		return refuse("client_secret must be the client's own")
	case m.secretMethod() != (len(c.SecretHashes) > 0):
		return refuse("token_endpoint_auth_method cannot change to a secret or from one: register anew")
	}
	// It keeps at most the scopes that it was registered with: its initial
	// access token may have had a bound of its own.
	if err := e.apply(r.Context(), &c, m, policy, append([]string{}, c.Scopes...)); err != nil {
		return err
	}
	if err := e.validate(c); err != nil {
		return err
	}
	token, registration := newRegistration(m)
	err = e.Audit.With(r.Context(), e.event(r, audit.ClientUpdated, c), func(event store.AuditEvent) error {
		return e.Store.ChangeRegistered(r.Context(), c, old.Hash, registration, event)
	})
	if errors.Is(err, store.ErrMismatch) || errors.Is(err, store.ErrNotFound) {
		return errRegistration
	}
	if err != nil {
		return oauth.Unavailable(fmt.Errorf("change the client: %w", err))
	}
	web.WriteJSON(w, http.StatusOK, e.information(c, m, token, ""))
	return nil
}

func clientSecret(c store.Client, presented store.Digest) bool {
	match := 0
	for _, h := range c.SecretHashes {
		match |= subtle.ConstantTimeCompare(h[:], presented[:])
	}
	return match == 1
}

// remove first disables the client and revokes what it has, so that nothing
// is left behind if the removal does not come through.
func (e *Endpoint) remove(w http.ResponseWriter, r *http.Request, c store.Client) error {
	ctx := r.Context()
	c.Disabled = true
	if err := e.Store.UpdateClient(ctx, c); err != nil && !errors.Is(err, store.ErrNotFound) {
		return oauth.Unavailable(fmt.Errorf("disable the client: %w", err))
	}
	if _, err := e.Revoker.Revoke(ctx, oauth.LevelClient, c.ID); err != nil {
		return oauth.Unavailable(err)
	}
	err := e.Audit.With(ctx, e.event(r, audit.ClientRemoved, c), func(event store.AuditEvent) error {
		return e.Store.RemoveClient(ctx, c.ID, event)
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return oauth.Unavailable(fmt.Errorf("remove the client: %w", err))
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (e *Endpoint) event(r *http.Request, action string, c store.Client) store.AuditEvent {
	return store.AuditEvent{
		Action: action, Outcome: audit.Success, Actor: audit.Client(c.ID), Client: c.ID, IP: web.ClientAddress(r),
	}
}
