// Package routes is the configuration file as plain data with positions, and
// the route table made of it.
//
// It owns reading (Load: includes, strict decoding, substitution, every problem
// at once), the rules of the file, Route, Table and Match. It does no I/O but
// reading files, starts nothing and knows no other package of gatehouse.
//
//	file, err := routes.Load("gatehouse.yaml", routes.Options{})
//	table, err := routes.NewTable(file.Routes)
//	m := table.Match([]byte("api.example.com"), []byte("GET"), []byte("/orders/1"))
package routes

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Pos is a place in a configuration file; Line 0 is the file as a whole. The
// zero Pos is "nowhere".
type Pos struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

func (p Pos) String() string {
	if p.File == "" {
		return ""
	}
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// File is the whole configuration, includes merged, variables put in, defaults
// applied.
type File struct {
	// Path is the file that was given to Load; Sources are all files read,
	// included ones, secrets and certificates too, and the folders where new
	// files may match an include, for whoever watches them.
	Path    string   `yaml:"-"`
	Sources []string `yaml:"-"`
	// Warnings are remarks that do not make the file invalid.
	Warnings []Problem `yaml:"-"`

	Listeners      []Listener            `yaml:"listeners"`
	Admin          *Admin                `yaml:"admin"`
	Store          Secret                `yaml:"store"` // sqlite:PATH or postgres://…
	Redis          Secret                `yaml:"redis"` // redis:// or rediss://; empty: in-process
	Consul         *Consul               `yaml:"consul"`
	Replicas       string                `yaml:"replicas"` // one (default) | many
	AuthServer     *AuthServer           `yaml:"authserver"`
	Issuers        []Issuer              `yaml:"issuers"`
	Services       map[string]*Service   `yaml:"services"`
	Routes         []*Route              `yaml:"routes"`
	Limits         map[string]*RateLimit `yaml:"limits"`
	APIKeys        map[string][]*APIKey  `yaml:"api_keys"`
	TrustedProxies []netip.Prefix        `yaml:"trusted_proxies"`
	Server         Server                `yaml:"server"`
	AccessLog      AccessLog             `yaml:"access_log"`
	Tests          []Test                `yaml:"tests"`
}

// Listener is one address on which clients are served.
type Listener struct {
	Pos     Pos    `yaml:"-"`
	Address string `yaml:"address"`
	TLS     *TLS   `yaml:"tls"`
	// Protocol is http (default; with TLS also HTTP/2, which clients choose by
	// ALPN), or h2c: HTTP/2 without TLS, which they must know.
	Protocol string `yaml:"protocol"`
	// HTTP3 serves HTTP/3 too, on the UDP port of the same number.
	HTTP3 bool `yaml:"http3"`
	// Insecure allows a plain listener outside loopback.
	Insecure bool `yaml:"insecure"`
	// ProxyProtocol is nil where connections begin with the client's bytes.
	ProxyProtocol *ProxyProtocol `yaml:"proxy_protocol"`
}

// Admin is the operators' listener.
type Admin struct {
	Pos     Pos    `yaml:"-"`
	Address string `yaml:"address"`
	// Token is the static token of the admin API; empty: there is none.
	Token Secret `yaml:"token"`
	// Insecure allows the listener, which is plain, outside loopback.
	Insecure bool `yaml:"insecure"`
}

// Consul is where backends are registered.
type Consul struct {
	Pos     Pos    `yaml:"-"`
	Address string `yaml:"address"`
	Token   Secret `yaml:"token"`
	// Snapshot is the file of the last good sets; empty: none is kept.
	Snapshot string `yaml:"snapshot"`
}

// Server bounds what clients may use of the gateway.
type Server struct {
	MaxConnections int  `yaml:"max_connections"`  // default 65536
	MaxTunnels     int  `yaml:"max_tunnels"`      // default 16384
	MaxHeaderBytes Size `yaml:"max_header_bytes"` // default 16KiB
	MaxURLBytes    Size `yaml:"max_url_bytes"`    // default 8KiB
	// MaxConnectionsPerAddress bounds the connections of one address that is not
	// among the trusted proxies; default 0: as many as there may be in all.
	MaxConnectionsPerAddress int           `yaml:"max_connections_per_address"`
	MaxHeaders               int           `yaml:"max_headers"`        // default 100
	MaxBodyBytes             Size          `yaml:"max_body_bytes"`     // default 0: unlimited, streamed
	HeaderTimeout            time.Duration `yaml:"header_timeout"`     // default 10s, from the first byte
	IdleTimeout              time.Duration `yaml:"idle_timeout"`       // default 60s
	BodyIdleTimeout          time.Duration `yaml:"body_idle_timeout"`  // default 30s, between two bytes
	WriteIdleTimeout         time.Duration `yaml:"write_idle_timeout"` // default 30s, between two bytes
	// UnderscoreHeaders is what becomes of fields with '_' in their name: drop
	// (default), or reject, of the whole request.
	UnderscoreHeaders string `yaml:"underscore_headers"`
	// MinRequestRate and MinResponseRate are how many bytes of content a second
	// clients must send and take while they are waited for; default 240, 0: any.
	// RateGrace is how long they may be slower at first; default 5s.
	MinRequestRate  Size          `yaml:"min_request_rate"`
	MinResponseRate Size          `yaml:"min_response_rate"`
	RateGrace       time.Duration `yaml:"rate_grace"`
	MaxStreams      int           `yaml:"max_streams"`   // default 100: requests at once on an HTTP/2 or HTTP/3 connection
	DrainDelay      time.Duration `yaml:"drain_delay"`   // default 5s: not ready, still serving
	DrainTimeout    time.Duration `yaml:"drain_timeout"` // default 30s
	// TicketSecret is one secret or a list, newest first, from which the keys
	// of TLS session tickets are derived; default: the key encryption keys,
	// else random.
	TicketSecret Secrets `yaml:"ticket_secret"`
}

// AccessLog says where one line per request goes.
type AccessLog struct {
	Pos     Pos    `yaml:"-"`
	Enabled bool   `yaml:"enabled"`
	Path    string `yaml:"path"` // default: standard output
}

// AuthServer is the built-in authorization server.
type AuthServer struct {
	Pos      Pos    `yaml:"-"`
	Issuer   string `yaml:"issuer"`
	Audience string `yaml:"audience"` // default: the issuer
	// KeyEncryptionKey is one key or a list, newest first, each 32 bytes in base64.
	KeyEncryptionKey Secrets           `yaml:"key_encryption_key"`
	Algorithm        string            `yaml:"algorithm"`        // ES256 (default) | EdDSA | RS256
	AccessTokenTTL   time.Duration     `yaml:"access_token_ttl"` // default 15m, 1m…60m
	CodeTTL          time.Duration     `yaml:"code_ttl"`         // default 60s, at most 60s
	SessionTTL       time.Duration     `yaml:"session_ttl"`      // default 12h
	KeyRotation      time.Duration     `yaml:"key_rotation"`     // default 720h
	RefreshToken     RefreshToken      `yaml:"refresh_token"`
	Scopes           map[string]string `yaml:"scopes"` // name to description
	Clients          []Client          `yaml:"clients"`
	// ClientRegistration lets clients register themselves; absent: they cannot.
	ClientRegistration *ClientRegistration `yaml:"client_registration"`
	Users              []User              `yaml:"users"`
	Permissions        map[string][]string `yaml:"permissions"` // role to permissions
	// LDAP lets people of a directory sign in; absent: there is none.
	LDAP     *LDAP      `yaml:"ldap"`
	Upstream []Upstream `yaml:"upstream"`
	Mailing
	Demands
	// Theme is a folder that changes how pages look, relative to the file.
	Theme       string      `yaml:"theme"`
	Interaction Interaction `yaml:"interaction"`
	Unusual     Unusual     `yaml:"unusual"`
	Audit       Audit       `yaml:"audit"`
}

// Audit is how long the audit log of the authorization server is kept.
type Audit struct {
	Retention time.Duration `yaml:"retention"` // default: for ever
}

// RefreshToken bounds the life of refresh tokens.
type RefreshToken struct {
	TTL   time.Duration  `yaml:"ttl"`   // default 720h
	Idle  time.Duration  `yaml:"idle"`  // default 168h
	Grace *time.Duration `yaml:"grace"` // default 10s, 0…60s
}

// ClientRegistration is what clients may do that register themselves.
type ClientRegistration struct {
	Pos    Pos      `yaml:"-"`
	Open   bool     `yaml:"open"`   // anybody may; else an initial access token is needed
	Tokens Secrets  `yaml:"tokens"` // initial access tokens, besides those made by the admin API
	Scopes []string `yaml:"scopes"`
	Grants []string `yaml:"grants"` // default authorization_code, refresh_token
}

// Client is a declared OAuth client.
type Client struct {
	Pos                    Pos      `yaml:"-"`
	ID                     string   `yaml:"id"`
	Name                   string   `yaml:"name"`
	Secret                 Secret   `yaml:"secret"` // empty: a public client
	Grants                 []string `yaml:"grants"`
	Scopes                 []string `yaml:"scopes"`
	RedirectURIs           []string `yaml:"redirect_uris"`
	PostLogoutRedirectURIs []string `yaml:"post_logout_redirect_uris"`
	// SkipConsent is for first-party confidential clients.
	SkipConsent bool `yaml:"skip_consent"`
	// BackchannelLogoutURI is told when a session ends in which the client took
	// part.
	BackchannelLogoutURI             string `yaml:"backchannel_logout_uri"`
	BackchannelLogoutSessionRequired bool   `yaml:"backchannel_logout_session_required"`
	// Exchange goes with the grant token-exchange.
	Exchange *Exchange `yaml:"exchange"`
	ClientProof
	// Claims are what access tokens of its users say besides: claim to
	// user.roles, user.groups or user.permissions.
	Claims map[string]string `yaml:"claims"`
}

// Exchange is what a client may exchange tokens of others for.
type Exchange struct {
	Pos               Pos      `yaml:"-"`
	SubjectTokensFrom []string `yaml:"subject_tokens_from"` // client ids, or "*"
	Audiences         []string `yaml:"audiences"`           // default: those of the token presented
	Scopes            []string `yaml:"scopes"`              // default: the client's
	Delegation        bool     `yaml:"delegation"`
}

// User is a declared user. Exactly one of Password and PasswordHash is set.
type User struct {
	Pos          Pos      `yaml:"-"`
	Name         string   `yaml:"name"`
	Password     Secret   `yaml:"password"`
	PasswordHash Secret   `yaml:"password_hash"` // argon2id in PHC form
	Email        string   `yaml:"email"`
	DisplayName  string   `yaml:"display_name"`
	Roles        []string `yaml:"roles"`
}

// Issuer is a further trusted issuer.
type Issuer struct {
	Pos        Pos      `yaml:"-"`
	Issuer     string   `yaml:"issuer"`
	JWKSURI    string   `yaml:"jwks_uri"` // empty: from the discovery document
	Audiences  []string `yaml:"audiences"`
	Algorithms []string `yaml:"algorithms"` // default RS256, ES256
	// TokenTypes are the accepted `typ` values; default at+jwt and, because
	// many issuers do not follow RFC 9068 yet, JWT.
	TokenTypes []string `yaml:"token_types"`
	// ScopeClaim is the claim that holds the scopes; default scope, else scp.
	ScopeClaim string `yaml:"scope_claim"`
}

// Service is a backend and how it is called.
type Service struct {
	Pos     Pos            `yaml:"-"`
	Name    string         `yaml:"-"`
	Consul  *ConsulService `yaml:"consul"`
	Targets []string       `yaml:"targets"`
	// Protocol is http (default), https, h2c (HTTP/2 without TLS) or grpc
	// (HTTP/2, with TLS where the targets are https).
	Protocol string      `yaml:"protocol"`
	Balance  string      `yaml:"balance"` // p2c (default) | round_robin | hash
	Timeouts Timeouts    `yaml:"timeouts"`
	Retries  *Retries    `yaml:"retries"` // never nil once loaded
	Breaker  *Breaker    `yaml:"breaker"` // nil once loaded: breaker: off
	Identity Identity    `yaml:"identity"`
	TLS      *ServiceTLS `yaml:"tls"` // of protocol: https or grpc
	// MaxConnections bounds the connections to one instance; default 1024.
	MaxConnections int `yaml:"max_connections"`
	// MaxPending bounds how many requests wait because all connections are in
	// use; default 256, 0: none waits.
	MaxPending int `yaml:"max_pending"`
	// MinResponseRate is how many bytes a second of an announced length an
	// instance must send; default 240, 0: any. RateGrace: see Server.
	MinResponseRate Size          `yaml:"min_response_rate"`
	RateGrace       time.Duration `yaml:"rate_grace"`
}

// Encrypted reports whether the service is called over TLS.
func (s *Service) Encrypted() bool {
	return s.Protocol == "https" ||
		s.Protocol == "grpc" && (s.TLS != nil || len(s.Targets) > 0 && strings.HasPrefix(s.Targets[0], "https:"))
}

// ConsulService names a service in Consul.
type ConsulService struct {
	Pos     Pos    `yaml:"-"`
	Service string `yaml:"service"`
	Tag     string `yaml:"tag"`
}

// Timeouts of calls to a service.
type Timeouts struct {
	Connect time.Duration `yaml:"connect"` // default 1s
	Request time.Duration `yaml:"request"` // default 30s: until the response head, each attempt within it
	Idle    time.Duration `yaml:"idle"`    // default 60s: between two bytes of content
	Pending time.Duration `yaml:"pending"` // default 10ms: until a connection is free
}

// Retries of replay-safe requests.
type Retries struct {
	Attempts int     `yaml:"attempts"` // tries in all, default 2; 1: none
	Budget   Percent `yaml:"budget"`   // of the service's requests, default 20%
}

// Breaker of a service.
type Breaker struct {
	Failures    Percent       `yaml:"failures"`     // default 50%
	MinRequests int           `yaml:"min_requests"` // default 50
	Window      time.Duration `yaml:"window"`       // default 10s
	Open        time.Duration `yaml:"open"`         // default 2s

	off bool // breaker: off, until defaults are filled in
}

// Identity says what a service learns about the caller besides the headers.
type Identity struct {
	// JWT adds X-Auth-Identity, signed by the gateway for this service.
	JWT bool `yaml:"jwt"`
	// ClientCert adds Client-Cert (RFC 9440), where the client showed one.
	ClientCert bool `yaml:"client_cert"`
}

// Route is one rule: which requests, to which service, under which conditions.
// It is immutable once loaded.
type Route struct {
	Pos     Pos      `yaml:"-"`
	Name    string   `yaml:"name"` // default: made of methods and path
	Hosts   []string `yaml:"hosts"`
	Path    string   `yaml:"path"`
	Methods []string `yaml:"methods"`
	Service string   `yaml:"service"`
	Public  bool     `yaml:"public"`
	Auth    *Auth    `yaml:"auth"`
	Mode    string   `yaml:"mode"` // enforce (default) | shadow
	// RateLimits are the route's limits, shared ones resolved.
	RateLimits []*RateLimit `yaml:"rate_limit"`
	Rewrite    *Rewrite     `yaml:"rewrite"`
	// APIKey admits callers by a key instead of a token; nil: it does not.
	APIKey *RouteAPIKey `yaml:"api_key"`
	// Canary sends a share of the requests to another service; may be nil.
	Canary *Canary `yaml:"canary"`
	// Mirror copies requests to another service; may be nil.
	Mirror *Mirror `yaml:"mirror"`
	// Timeout takes the place of the service's timeouts.request; 0: it does not.
	Timeout time.Duration `yaml:"timeout"`
	// Streams are the bounds of answers that go on for long: tunnels and event
	// streams. Load fills it in.
	Streams Streams `yaml:"streams"`
	// AllowEncodedSlash lets %2F pass in the path of this route.
	AllowEncodedSlash bool `yaml:"allow_encoded_slash"`

	// Index is the route's place in File.Routes, Upstream its service, with
	// the route's own timeout; nil for a route that redirects every request.
	Index    int      `yaml:"-"`
	Upstream *Service `yaml:"-"`

	settings map[string]Node
}

// Auth is what a protected route demands of a token.
type Auth struct {
	Pos       Pos                 `yaml:"-"`
	Scopes    []string            `yaml:"scopes"`     // all of them
	AnyScopes []string            `yaml:"any_scopes"` // one of them
	Audience  string              `yaml:"audience"`   // default: authserver.audience, for its own tokens
	Issuers   []string            `yaml:"issuers"`    // default: every trusted one
	Claims    map[string][]string `yaml:"claims"`     // each claim has one of the values
	// Condition is an expression in CEL over the token and the request, for
	// plugins/condition.
	Condition Node `yaml:"condition"`
	// MTLS is "required" where the client must have shown a certificate.
	MTLS string `yaml:"mtls"`
	// DPoP is "required" where only tokens that are bound to a key are good
	// (RFC 9449), and empty where bearer tokens are too.
	DPoP string `yaml:"dpop"`
	// ACRValues are the ways of signing in that will do, MaxAge is how long ago
	// it may have been (RFC 9470).
	ACRValues []string      `yaml:"acr_values"`
	MaxAge    time.Duration `yaml:"max_age"`
	// ForwardToken passes the Authorization field on to the service.
	ForwardToken bool `yaml:"forward_token"`
}

// RateLimit is one limit of a route, or a shared one.
type RateLimit struct {
	Pos   Pos           `yaml:"-"`
	Name  string        `yaml:"-"` // of a shared limit
	Limit int           `yaml:"limit"`
	Per   time.Duration `yaml:"per"`
	Burst int           `yaml:"burst"` // default: limit
	// By is client (default), subject, ip, claim:NAME or route; the default of
	// a limit that stands on a public route is ip.
	By   string `yaml:"by"`
	Mode string `yaml:"mode"` // leased (default) | exact | local
	Cost int    `yaml:"cost"` // default 1
	// OnStoreFailure is local (default), open or closed.
	OnStoreFailure string `yaml:"on_store_failure"`

	ref string // the name of a shared limit, until it is resolved
}

// Streams bounds WebSocket tunnels and event streams (text/event-stream).
type Streams struct {
	Pos Pos `yaml:"-"`
	// WebSocket lets clients open tunnels; else their wish for one is removed.
	WebSocket bool `yaml:"websocket"`
	// IdleTimeout ends a stream on which nothing was sent in any direction.
	IdleTimeout time.Duration `yaml:"idle_timeout"` // default 5m
	// MaxLifetime ends a stream however busy it is.
	MaxLifetime time.Duration `yaml:"max_lifetime"` // default 24h
	// TokenGrace is how long a stream outlives the token that opened it.
	TokenGrace time.Duration `yaml:"token_grace"` // default 0
}

// Rewrite changes the path before it is forwarded, in the order of its fields.
type Rewrite struct {
	Pos         Pos    `yaml:"-"`
	StripPrefix string `yaml:"strip_prefix"`
	// Regex matches the whole path; To is what it becomes, with {1} or {name}
	// for what a group matched.
	Regex     string `yaml:"regex"`
	To        string `yaml:"to"`
	AddPrefix string `yaml:"add_prefix"`
}

// APIKey is a key that callers may show, known by its hash.
type APIKey struct {
	Pos Pos `yaml:"-"`
	// Owner is whom the key speaks for; several keys may have one owner.
	Owner  string  `yaml:"owner"`
	SHA256 KeyHash `yaml:"sha256"`
	// ClientID is what limits and services know the caller by; default: Owner.
	ClientID string    `yaml:"client_id"`
	Scopes   []string  `yaml:"scopes"`
	Expires  time.Time `yaml:"expires"` // zero: never
}

// RouteAPIKey says which keys a route admits, and where callers show them.
type RouteAPIKey struct {
	Pos    Pos      `yaml:"-"`
	Keys   []string `yaml:"keys"`   // names of api_keys
	Header string   `yaml:"header"` // default X-API-Key, unless Query is given
	Query  string   `yaml:"query"`
	Scopes []string `yaml:"scopes"` // all of them

	// Accepted are the keys of all the sets.
	Accepted []*APIKey `yaml:"-"`
}

// Canary sends some requests of a route to another service.
type Canary struct {
	Pos     Pos     `yaml:"-"`
	Service string  `yaml:"service"`
	Weight  Percent `yaml:"weight"` // of the callers
	// By tells callers apart: subject (default; ip on public routes), client or ip.
	By string `yaml:"by"`
	// Header and Cookie let a caller choose with true or false; may be empty.
	Header string `yaml:"header"`
	Cookie string `yaml:"cookie"`

	// Route is the route with the other service.
	Route *Route `yaml:"-"`
}

// Mirror copies a share of the requests of a route to another service.
type Mirror struct {
	Pos         Pos     `yaml:"-"`
	Service     string  `yaml:"service"`
	Share       Percent `yaml:"share"`         // default 100%
	MaxInFlight int     `yaml:"max_in_flight"` // default 64

	// Route is the route with the other service.
	Route *Route `yaml:"-"`
}

// Test is one expectation of the file about itself.
type Test struct {
	Pos     Pos    `yaml:"-"`
	As      TestAs `yaml:"as"`
	Request string `yaml:"request"` // "GET https://host/path"
	Expect  string `yaml:"expect"`  // allow, or a reason code
}

// TestAs is who makes the test's request: a declared client with all its
// scopes, or a set of claims, or nobody.
type TestAs struct {
	Client string         `yaml:"client"`
	Claims map[string]any `yaml:"claims"`
	// ClientCert says that the caller showed a client certificate.
	ClientCert bool `yaml:"client_cert"`
}

// Plugin returns the settings that stand on the route under the name of a
// plugin; the zero Node where there are none.
func (r *Route) Plugin(name string) Node { return r.settings[name] }
