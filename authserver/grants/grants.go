// Package grants is the token endpoint: who asks is established once, for all
// grants alike, and each grant type adds only what is its own.
//
// It owns the order of the checks and the form of the answer. It does not own
// how clients authenticate (clients), what tokens look like (tokens), nor how
// a code came to be (authorize).
//
//	mux.Handle("/oauth/token", api.Handler(grants.New(config).Serve, http.MethodPost))
package grants

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/authserver/audit"
	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/scopes"
	"github.com/gatehouse/gatehouse/authserver/sender"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/tokens"
	"github.com/gatehouse/gatehouse/authserver/unusual"
	"github.com/gatehouse/gatehouse/authserver/users"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Store is the state that grants need.
type Store interface {
	store.Codes
	store.Devices
	store.Refreshes
	store.Revocations
}

// Observer counts what the endpoint did.
type Observer interface {
	// TokenIssued counts an access token by grant type and by how the client
	// authenticated.
	TokenIssued(grant, clientAuth string)
	// RefreshReuse counts a family that was revoked because a spent token came
	// back.
	RefreshReuse()
}

// Config is what an Endpoint needs.
type Config struct {
	Issuer   string
	Clients  *clients.Registry
	Users    *users.Registry
	Scopes   *scopes.Catalogue
	Tokens   *tokens.Issuer
	Gate     *tokens.Gate
	Sender   *sender.Checker
	Limits   Limits
	Store    Store
	Audit    *audit.Log
	Observer Observer
	// Available returns an error while the store is known not to answer: no
	// token is issued then, also where none of its verbs would be needed.
	Available func() error
	Now       func() time.Time
	Unusual   *unusual.Watch
	// RefreshTTL and RefreshIdle end a family; within Grace the last spent
	// refresh token may come again.
	RefreshTTL, RefreshIdle, Grace time.Duration
}

// Endpoint is the token endpoint. It is safe for concurrent use.
type Endpoint struct {
	Config
	grants map[string]grant
}

// grant does what is particular to one grant type.
type grant func(ctx context.Context, q *request) (*answer, error)

// request is a token request by an authenticated client.
type request struct {
	client *clients.Client
	method string // of client authentication
	form   web.Form
	ip     string
	from   netip.Addr // ip, the zero one where there is none
	// key and certificate are the thumbprints of what the sender has proven to
	// hold and what its tokens will be bound to; "" for none.
	key, certificate string
}

// answer is a successful token response.
type answer struct {
	AccessToken, TokenType, Scope string
	ExpiresIn                     int64
	RefreshToken, IDToken         string
	// IssuedTokenType is of token exchange (RFC 8693, 2.2.1).
	IssuedTokenType string

	action string // of the audit
	access tokens.Access
}

// json is the answer as RFC 6749, 5.1 has it.
func (a *answer) json() []byte {
	const names = 160
	b := make([]byte, 0, names+len(a.AccessToken)+len(a.TokenType)+len(a.Scope)+len(a.RefreshToken)+len(a.IDToken)+len(a.IssuedTokenType))
	b = oauth.AppendString(append(b, `{"access_token":`...), a.AccessToken)
	b = oauth.AppendString(append(b, `,"token_type":`...), a.TokenType)
	b = strconv.AppendInt(append(b, `,"expires_in":`...), a.ExpiresIn, 10)
	b = oauth.AppendMember(b, `,"scope":`, a.Scope)
	b = oauth.AppendMember(b, `,"refresh_token":`, a.RefreshToken)
	b = oauth.AppendMember(b, `,"id_token":`, a.IDToken)
	b = oauth.AppendMember(b, `,"issued_token_type":`, a.IssuedTokenType)
	return append(b, '}')
}

// New returns the endpoint.
func New(c Config) *Endpoint {
	e := &Endpoint{Config: c}
	e.grants = map[string]grant{
		clients.GrantCode:              e.code,
		clients.GrantRefresh:           e.refresh,
		clients.GrantClientCredentials: e.clientCredentials,
		clients.GrantDevice:            e.device,
		clients.GrantExchange:          e.exchange,
	}
	return e
}

// Serve answers a token request.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request) error {
	// 1. The form of the request. Credentials in a query would be logged by
	// everything on the way (RFC 6749, 2.3.1).
	if r.URL.RawQuery != "" {
		return oauth.Refuse(oauth.InvalidRequest, "parameters belong into the request's content")
	}
	form, err := web.ParseBody(r)
	if err != nil {
		return err
	}
	// 2. The client.
	q := &request{form: form, ip: web.ClientAddress(r), from: web.ClientIP(r)}
	if err := take(e.Limits.Address, q.ip); err != nil {
		return err
	}
	client, attempt, err := e.Clients.Authenticate(r, form)
	if err != nil {
		return e.refused(r.Context(), q, attempt.ClientID, err)
	}
	q.client, q.method = client, attempt.Method
	if err := e.Limits.client(client.ID); err != nil {
		return err
	}
	if err := e.bind(w, r, q); err != nil {
		return e.refused(r.Context(), q, client.ID, err)
	}
	// 3. The grant.
	ans, err := e.dispatch(r.Context(), q)
	if err != nil {
		return e.refused(r.Context(), q, client.ID, err)
	}
	// 4. The record.
	e.Audit.Queue(r.Context(), store.AuditEvent{
		Action: ans.action, Outcome: audit.Success, Actor: audit.Client(client.ID), Client: client.ID,
		Subject: ans.access.Subject, Grant: ans.access.Grant, Session: ans.access.Session, IP: q.ip,
	})
	e.Observer.TokenIssued(form.Value("grant_type"), q.method)
	// 5. The answer.
	web.WriteBody(w, http.StatusOK, ans.json())
	return nil
}

func (e *Endpoint) dispatch(ctx context.Context, q *request) (*answer, error) {
	name := q.form.Value("grant_type")
	g, ok := e.grants[name]
	switch {
	case name == "":
		return nil, oauth.Refuse(oauth.InvalidRequest, "grant_type is missing")
	case !ok:
		return nil, oauth.Refuse(oauth.UnsupportedGrantType, "this grant type does not exist here")
	case !q.client.MayUse(name):
		return nil, oauth.Refuse(oauth.UnauthorizedClient, "this grant type is not allowed to the client")
	}
	if err := e.Available(); err != nil {
		return nil, oauth.Unavailable(err)
	}
	return g(ctx, q)
}

// bind finds what the tokens will be bound to. A proof binds whoever sends one,
// a certificate only the clients that are registered so: others may use one
// for the connection alone.
func (e *Endpoint) bind(w http.ResponseWriter, r *http.Request, q *request) (err error) {
	if q.key, err = e.Sender.Proof(w, r, e.Issuer+"/oauth/token", ""); err != nil {
		return err
	}
	if q.key == "" && q.client.DPoPBound {
		return oauth.Refuse(oauth.InvalidDPoPProof, "the client's tokens are bound to a key: the DPoP field is missing")
	}
	if !q.client.CertificateBound {
		return nil
	}
	if q.certificate = sender.Certificate(r); q.certificate == "" {
		return oauth.Refuse(oauth.InvalidRequest, "the client's tokens are bound to its certificate, which the connection does not have")
	}
	return nil
}

// hold binds the refresh tokens of a public client to what it proved now. Other
// clients prove with every refresh who they are (RFC 9449, 5), and may change
// their keys.
func (q *request) hold(f *store.Family) {
	if q.client.Public() {
		f.DPoPKey, f.Certificate = q.key, q.certificate
	}
}

// refused records a refusal and returns err.
func (e *Endpoint) refused(ctx context.Context, q *request, client string, err error) error {
	reason := oauth.TemporarilyUnavailable
	var refusal *oauth.Error
	if errors.As(err, &refusal) {
		reason = refusal.Code
	}
	actor := audit.Unknown
	if q.client != nil {
		actor = audit.Client(client)
	}
	switch reason {
	case oauth.InvalidClient, oauth.InvalidGrant, oauth.InvalidDPoPProof: // guesses look like these
		e.Unusual.ClientFailed(ctx, client, q.from)
	}
	e.Audit.Queue(ctx, store.AuditEvent{
		Action: audit.TokenRefused, Outcome: audit.Failure, Actor: actor, Client: client, IP: q.ip, Reason: reason,
	})
	return err
}

// mint makes the access token and the answer around it.
func (e *Endpoint) mint(ctx context.Context, q *request, action string, a tokens.Access) (*answer, error) {
	if err := e.claims(ctx, q, &a); err != nil {
		return nil, err
	}
	a.DPoPKey, a.Certificate = q.key, q.certificate
	kind := "Bearer"
	if q.key != "" {
		kind = "DPoP" // RFC 9449, 5
	}
	token, err := e.Tokens.Mint(&a)
	if err != nil {
		return nil, oauth.Failed(err)
	}
	return &answer{
		AccessToken: token, TokenType: kind, ExpiresIn: int64(a.Expires.Sub(a.Issued.Truncate(time.Second)) / time.Second),
		Scope: a.Scope, action: action, access: a,
	}, nil
}

// addID adds the ID token where the scope asks for one.
func (e *Endpoint) addID(ans *answer, t tokens.ID) error {
	if !tokens.HasScope(ans.Scope, scopes.OpenID) {
		return nil
	}
	t.AccessToken = ans.AccessToken
	var err error
	if ans.IDToken, err = e.Tokens.MintID(t); err != nil {
		return oauth.Failed(err)
	}
	return nil
}

// mintTime is when a token for client and subject may be minted: now, unless a
// revocation covers this very second.
func (e *Endpoint) mintTime(ctx context.Context, client, subject string) (time.Time, error) {
	now, err := e.Gate.Wait(ctx, e.Issuer, client, subject)
	if err != nil {
		return now, oauth.Unavailable(fmt.Errorf("wait for the second after a revocation: %w", err))
	}
	return now, nil
}

func join(list []string) string { return strings.Join(list, " ") }
