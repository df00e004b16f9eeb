// Package store is the authorization server's durable state as a set of verbs
// that are atomic by contract: one SQL statement or one short transaction each.
//
// It owns the contract and its types; sqlstore implements it over SQLite and
// PostgreSQL, storetest races every implementation. It does not own any rule
// of OAuth: who may call a verb, and with which lifetimes, is the caller's.
// Tokens, codes and secrets reach it as SHA-256 digests only.
package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// Errors that callers compare with errors.Is. Any other error means that the
// store could not answer; nothing is known about the verb's effect then.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrExpired  = errors.New("expired")
	ErrUsed     = errors.New("used already")
	ErrReuse    = errors.New("refresh token reuse")
	ErrMismatch = errors.New("presented by another client")
	ErrFull     = errors.New("the queue is full")
)

// Digest is the SHA-256 of a secret.
type Digest [32]byte

// Store is everything. Consumers declare the narrower interface they need.
//
// Verbs that end in events append these to the audit log in the transaction of
// their change: both are there or neither. An event keeps the Time it has; Seq
// and Hash are the store's.
type Store interface {
	Codes
	PushedRequests
	Devices
	Refreshes
	Revocations
	Keys
	Clients
	Registrations
	Users
	Sessions
	Logouts
	Consents
	Audits
	Factors
	Tickets
	Outbox
	Counters
	// Once records key until expires and reports whether it was new: replay
	// protection of `jti` and the like. Atomic over replicas.
	Once(ctx context.Context, key string, expires time.Time) (fresh bool, err error)
	// Tally counts one more of key and returns how many there were, this one
	// included, since the first one of the running window. Exact over replicas.
	Tally(ctx context.Context, key string, now time.Time, window time.Duration) (n int, err error)
	// Sweep deletes what expired before now; bounded work per call.
	Sweep(ctx context.Context, now time.Time) error
	// Ping tells whether the store can commit now.
	Ping(ctx context.Context) error
	Close() error
}

// Code is an authorization code with everything it is bound to.
type Code struct {
	Hash        Digest
	ClientID    string
	RedirectURI string
	Challenge   string // S256
	Nonce       string
	Scopes      []string
	Resources   []string
	Subject     string
	Session     string
	Grant       string // the grant that redemption opens
	ACR         string
	AuthTime    time.Time
	Expires     time.Time
	// DPoPKey is the thumbprint of the key that the redemption must prove, ""
	// for any or none.
	DPoPKey string
	// Attempts counts wrong redemptions; Used is when it was redeemed.
	Attempts int
	Used     time.Time
}

// Codes keeps authorization codes until the grant's last token has expired,
// so that a replay can revoke.
type Codes interface {
	// AddCode stores a code; ErrExpired when its session was ended meanwhile.
	AddCode(ctx context.Context, c Code) error
	// Code returns the code as it stands; ErrNotFound.
	Code(ctx context.Context, hash Digest) (Code, error)
	// ConsumeCode marks the code used. Exactly one caller ever succeeds:
	// ErrUsed for every later one (a revocation of the session, subject or
	// client spends waiting codes too), ErrExpired, ErrNotFound. When refresh
	// is not nil, its family is opened in the same transaction.
	ConsumeCode(ctx context.Context, hash Digest, now time.Time, refresh *Family) error
	// FailCode counts a wrong redemption and reports how many there were.
	FailCode(ctx context.Context, hash Digest) (attempts int, err error)
}

// Pushed is an authorization request that a client pushed (RFC 9126).
type Pushed struct {
	Hash     Digest // of the request_uri
	ClientID string
	// Query is the request's parameters as a query.
	Query string
	// Signed tells that they came in an object that the client signed.
	Signed  bool
	Expires time.Time
}

// PushedRequests keeps pushed requests until they are used or expire.
type PushedRequests interface {
	AddPushed(ctx context.Context, p Pushed) error
	// TakePushed removes the request and returns it, to exactly one caller ever;
	// ErrNotFound for any other, and, without removing it, for another client.
	TakePushed(ctx context.Context, hash Digest, clientID string, now time.Time) (Pushed, error)
}

// Family is a grant with refresh tokens: one row, whose current generation is
// the only live token.
type Family struct {
	Grant     string
	ClientID  string
	Subject   string
	Session   string // empty for offline grants
	Scopes    []string
	Resources []string
	ACR       string
	Nonce     string
	AuthTime  time.Time
	Created   time.Time
	Expires   time.Time // absolute end
	// Generation counts rotations, from 1. Hash is the current token's digest,
	// Rotated when it became current; Previous is the digest before it.
	Generation int
	Hash       Digest
	Previous   Digest
	Rotated    time.Time
	IdleUntil  time.Time // a zero Expires or IdleUntil is in the past, not never
	Revoked    time.Time
	// DPoPKey and Certificate are the thumbprints that every use of the refresh
	// token must prove; "" for none.
	DPoPKey, Certificate string
}

// Rotation is one attempt to spend a refresh token. The caller has verified
// that the presented secret is the one derived for Grant and Generation: the
// store holds the digests of the last two generations only, and believes the
// caller about older ones. Without that check anybody could kill a family.
type Rotation struct {
	Grant     string
	ClientID  string
	Presented Digest
	// Next is the digest of the successor; it is a function of the grant and
	// the presented generation, so a retry computes the same one.
	Next       Digest
	Generation int // of the presented token
	Now        time.Time
	IdleUntil  time.Time
	Grace      time.Duration
	// TokenLife bounds how long access tokens of a family killed by reuse
	// must stay in the revocation log; the store adds a minute of leeway.
	TokenLife time.Duration
	// OnReuse are the events of the family's end by reuse.
	OnReuse []AuditEvent
}

// Refreshes keeps refresh token families.
type Refreshes interface {
	// AddFamily opens a family; ErrExists, ErrExpired when its session was
	// ended meanwhile.
	AddFamily(ctx context.Context, f Family) error
	// Family returns the family as it stands, revoked ones too; ErrNotFound.
	Family(ctx context.Context, grant string) (Family, error)
	// FamilyAndUser is Family with the row of its subject, both of one moment
	// where there is such a row; a zero User where there is none.
	FamilyAndUser(ctx context.Context, grant string) (Family, User, error)
	// RotateRefresh spends a refresh token. One winner advances the family.
	// Within the grace the immediately previous generation succeeds again
	// with replayed = true and changes nothing. ErrMismatch when another
	// client presents it (nothing changes); ErrExpired (idle or absolute
	// end); ErrUsed when the family is revoked already; ErrNotFound for an
	// unknown grant or a digest that never belonged to it; any other spent
	// generation is ErrReuse, and the family is revoked and the revocation of
	// its grant logged in the same transaction. Reuse counts for expired
	// families too. With ErrReuse, ErrUsed and ErrExpired f is the family, for
	// the audit; with other errors it is zero.
	RotateRefresh(ctx context.Context, r Rotation) (f Family, replayed bool, err error)
	// RevokeGrant revokes one family and logs it; unknown ones too, since a
	// grant may have access tokens only. Idempotent.
	RevokeGrant(ctx context.Context, grant string, now, expires time.Time, events ...AuditEvent) error
	// Families lists a subject's live families.
	Families(ctx context.Context, subject string, now time.Time) ([]Family, error)
}

// Revocations is the ordered revocation log.
type Revocations interface {
	// Revoke appends an entry and applies it to families, sessions and codes
	// that wait for redemption (every level but token) in the same transaction.
	// It returns the entry with its Seq. Seq order is commit order, without
	// gaps. An entry without NotBefore that the log holds already, for as long
	// at least, is returned as it stands. Expires must cover the leeway of
	// those who check tokens.
	Revoke(ctx context.Context, r oauth.Revocation, now time.Time, events ...AuditEvent) (oauth.Revocation, error)
	// RevokedSince returns up to limit entries with Seq > after in order, and
	// the log's head, both of one moment. Swept entries are missing: a reader
	// that got less than limit has seen everything up to head.
	RevokedSince(ctx context.Context, after uint64, limit int) (entries []oauth.Revocation, head uint64, err error)
	// Revoked reports whether any of the entries' (level, id) pairs is in the
	// log, for introspection. issued is compared with NotBefore.
	Revoked(ctx context.Context, pairs []oauth.Revocation, issued time.Time) (bool, error)
}

// Key is a signing key; Sealed is its private part under the key encryption key.
type Key struct {
	ID        string // kid
	Use       string // "token" or "identity"
	Algorithm string
	Public    []byte // JWK as JSON
	Sealed    []byte
	State     string // next | active | retired
	Created   time.Time
	Activates time.Time // next → active not before
	Retired   time.Time
	Gone      time.Time // retired → deleted not before
}

// Keys keeps signing keys, shared by replicas.
type Keys interface {
	Keys(ctx context.Context) ([]Key, error)
	// RotateKeys runs plan on the current keys inside one transaction that
	// excludes every other RotateKeys over all replicas, and stores what it
	// returns as the whole new set. plan returning nil changes nothing and
	// appends no event. It returns the set as stored then. plan must not use the
	// store.
	RotateKeys(ctx context.Context, plan func([]Key) ([]Key, error), events ...AuditEvent) ([]Key, error)
	// Envelope returns the sealed value stored under name, or stores value if
	// there is none yet, atomically over replicas.
	Envelope(ctx context.Context, name string, value []byte) ([]byte, error)
	// ReplaceEnvelope stores value if old is still what is stored; ErrMismatch.
	ReplaceEnvelope(ctx context.Context, name string, old, value []byte) error
}

// Client is a stored OAuth client.
type Client struct {
	ID                     string
	Name                   string
	SecretHashes           []Digest // newest first; empty: public
	Grants                 []string
	Scopes                 []string
	RedirectURIs           []string
	PostLogoutRedirectURIs []string
	SkipConsent            bool
	Disabled               bool
	Created                time.Time
	ClientSettings
}

// ClientSettings are what a client is besides: no query asks for them, so they
// are stored as one JSON value. A field that is not there is the zero one.
type ClientSettings struct {
	// BackchannelLogoutURI is told when a session that the client took part in
	// ends; BackchannelLogoutSession: the client cannot do without the `sid`.
	BackchannelLogoutURI     string `json:"backchannel_logout_uri,omitempty"`
	BackchannelLogoutSession bool   `json:"backchannel_logout_session_required,omitempty"`
	// Exchange is what the client may do with tokens of others; nil: nothing.
	Exchange *ExchangePolicy `json:"exchange,omitempty"`

	// AuthMethod is how the client proves who it is; "" means by its secret,
	// in either form, or not at all where it has none.
	AuthMethod string `json:"token_endpoint_auth_method,omitempty"`
	// JWKS, a JSON object, or JWKSURI has the client's public keys.
	JWKS    json.RawMessage `json:"jwks,omitempty"`
	JWKSURI string          `json:"jwks_uri,omitempty"`
	// One of these identifies the certificate of tls_client_auth (RFC 8705, 2.1.2).
	TLSSubjectDN string `json:"tls_client_auth_subject_dn,omitempty"`
	TLSSANDNS    string `json:"tls_client_auth_san_dns,omitempty"`
	TLSSANURI    string `json:"tls_client_auth_san_uri,omitempty"`
	TLSSANIP     string `json:"tls_client_auth_san_ip,omitempty"`
	TLSSANEmail  string `json:"tls_client_auth_san_email,omitempty"`
	// CertificateBound and DPoPBound demand that every token is bound so.
	CertificateBound bool `json:"tls_client_certificate_bound_access_tokens,omitempty"`
	DPoPBound        bool `json:"dpop_bound_access_tokens,omitempty"`
	// RequirePAR, RequireSigned and RequireState refuse authorization requests
	// that were not pushed, are not signed, or have no state.
	RequirePAR    bool `json:"require_par,omitempty"`
	RequireSigned bool `json:"require_signed_request_object,omitempty"`
	RequireState  bool `json:"require_state,omitempty"`
	// Resources are the audiences that the client may ask for; empty: any.
	Resources []string `json:"resources,omitempty"`
	// Claims are what access tokens of its users say besides, by claim:
	// user.roles, user.groups or user.permissions.
	Claims map[string]string `json:"claims,omitempty"`
}

// ExchangePolicy is what a client may exchange tokens for (RFC 8693).
type ExchangePolicy struct {
	// SubjectTokensFrom are the clients whose tokens it may present; "*": all.
	SubjectTokensFrom []string `json:"subject_tokens_from"`
	// Audiences are those that it may ask for; empty: the token's own.
	Audiences []string `json:"audiences,omitempty"`
	// Scopes bound what it gets, besides the client's own; nil: those alone.
	Scopes []string `json:"scopes,omitempty"`
	// Delegation makes the client visible in the token as who acts.
	Delegation bool `json:"delegation,omitempty"`
}

// Clients keeps clients that were not declared in the configuration.
type Clients interface {
	AddClient(ctx context.Context, c Client, events ...AuditEvent) error // ErrExists
	Client(ctx context.Context, id string) (Client, error)
	Clients(ctx context.Context) ([]Client, error)
	UpdateClient(ctx context.Context, c Client, events ...AuditEvent) error // ErrNotFound
	// RemoveClient removes the client, its registration and the consents given
	// to it;
	// ErrNotFound. Its tokens live on: Revoke is a verb of its own.
	RemoveClient(ctx context.Context, id string, events ...AuditEvent) error
}

// User is a user and the account's state. Declared users have a row too: it
// holds their Subject, which is random, persisted and never reused.
type User struct {
	Subject      string
	Name         string // login name, unique
	PasswordHash string // empty for declared users: the file has it
	Email        string
	// EmailVerified: the user proved to read this address.
	EmailVerified bool
	DisplayName   string
	Declared      bool
	Disabled      bool
	Created       time.Time
	Roles         []string // its own; see Identity too
}

// Identity is who a user is at another provider: a directory, or an upstream
// login. Provider and ID together are unique.
type Identity struct {
	Provider, ID string
	Subject      string
	// Linked: the user was there before. One who came with the identity has its
	// e-mail address and display name from there.
	Linked bool
	// Roles and Groups are what the provider said at the last sign-in, mapped.
	Roles, Groups []string
	Created, Seen time.Time
}

// Users keeps users.
type Users interface {
	AddUser(ctx context.Context, u User, events ...AuditEvent) error // ErrExists by name, or by a subject that ever was
	UserByName(ctx context.Context, name string) (User, error)
	UserBySubject(ctx context.Context, subject string) (User, error)
	Users(ctx context.Context) ([]User, error)
	UpdateUser(ctx context.Context, u User, events ...AuditEvent) error // ErrNotFound, ErrExists by name
	// UsersByEmail lists those with this address, whatever its case.
	UsersByEmail(ctx context.Context, email string) ([]User, error)
	// SetPassword changes nothing but the hash; ErrNotFound.
	SetPassword(ctx context.Context, subject, hash string, events ...AuditEvent) error
	// SignInIdentity returns the user of id, after storing what id says now. If
	// there is none, u is added as its user, with events, or, where id is Linked,
	// u is the stored user that it belongs to from now on. ErrExists when the
	// name of a new user is taken.
	SignInIdentity(ctx context.Context, id Identity, u User, events ...AuditEvent) (user User, added bool, err error)
	// Identities returns those of a subject.
	Identities(ctx context.Context, subject string) ([]Identity, error)
	// RemoveUser removes the user, what it signs in with, its identities and the
	// consents it gave; ErrNotFound. Its
	// tokens and sessions live on: Revoke is a verb of its own.
	RemoveUser(ctx context.Context, subject string, events ...AuditEvent) error
	// SubjectFor returns the persisted subject of name, storing a declared user
	// with candidate if there is none yet; atomic over replicas.
	SubjectFor(ctx context.Context, name, candidate string) (string, error)
}

// Session is a login session of a browser.
type Session struct {
	ID       string // `sid` in tokens; not the cookie
	Cookie   Digest
	Subject  string
	ACR      string
	AuthTime time.Time
	Created  time.Time
	Expires  time.Time
	Ended    time.Time
	Agent    string // user agent, shortened, for the session list
}

// Sessions keeps login sessions.
type Sessions interface {
	AddSession(ctx context.Context, s Session, events ...AuditEvent) error
	// SessionByCookie returns a live session; ErrNotFound when unknown, ended
	// or expired at now.
	SessionByCookie(ctx context.Context, cookie Digest, now time.Time) (Session, error)
	Sessions(ctx context.Context, subject string, now time.Time) ([]Session, error)
	// LiveSessions returns up to limit live sessions of everybody, in the order
	// of their ids, from the one after an id on.
	LiveSessions(ctx context.Context, after string, limit int, now time.Time) ([]Session, error)
	// RenewSession gives the live session s.ID of s.Subject the cookie,
	// AuthTime, ACR, Expires and Agent of s, after the user signed in again:
	// `sid` stays, the old cookie is worth nothing. ErrNotFound when there is
	// no such live session at now.
	RenewSession(ctx context.Context, s Session, now time.Time, events ...AuditEvent) error
}

// Consent is what a user allowed a client.
type Consent struct {
	Subject, ClientID string
	Scopes            []string
	Granted           time.Time
}

// Consents keeps remembered consents.
type Consents interface {
	// PutConsent adds scopes to what was consented before.
	PutConsent(ctx context.Context, c Consent, events ...AuditEvent) error
	Consent(ctx context.Context, subject, clientID string) (Consent, error)
	// ConsentsOf returns what a subject allowed, by client.
	ConsentsOf(ctx context.Context, subject string) ([]Consent, error)
	RemoveConsent(ctx context.Context, subject, clientID string, events ...AuditEvent) error // ErrNotFound
	// WithdrawConsent removes a consent, if there is one, spends the codes that
	// wait for redemption under it, and returns the grants whose tokens may
	// still live: revoking them is a verb of its own.
	WithdrawConsent(ctx context.Context, subject, clientID string, now time.Time, events ...AuditEvent) (grants []string, err error)
}

// AuditEvent is one line of the audit log. It holds no secret and no token.
type AuditEvent struct {
	Seq     int64
	Time    time.Time
	Action  string // token.issued, token.refreshed, refresh.reuse, login.failed, …
	Outcome string // success | failure
	Actor   string // client:ID, user:SUBJECT, static-token, system
	Client  string
	Subject string
	Grant   string
	Session string
	IP      string
	Reason  string
	// Hash covers this event and all before it; set by the store. It is zero
	// in events from before there was a chain.
	Hash Digest
}

// AuditQuery selects events. Zero fields select everything.
type AuditQuery struct {
	After                          int64 // events with a higher Seq
	Limit                          int
	Newest                         bool // the newest first
	Action, Client, Subject, Grant string
	From, Until                    time.Time
}

// Audits keeps audit events: append-only, numbered in commit order without
// gaps, and chained by their hashes.
type Audits interface {
	// AppendAudit stores the events of one call all or not at all.
	AppendAudit(ctx context.Context, events []AuditEvent) error
	AuditSince(ctx context.Context, after int64, limit int) ([]AuditEvent, error)
	// Audit returns the events that q selects.
	Audit(ctx context.Context, q AuditQuery) ([]AuditEvent, error)
	// AuditChain returns what the chain's first event follows and its head.
	// They are the same while there is no event.
	AuditChain(ctx context.Context) (base, head Link, err error)
	// PruneAudit deletes up to limit of the oldest events, as far as all of
	// them are from before then, and makes the last one the chain's base. In
	// the same transaction it appends event with that Link as Reason. It
	// returns how many it deleted.
	PruneAudit(ctx context.Context, before time.Time, limit int, event AuditEvent) (int, error)
}
