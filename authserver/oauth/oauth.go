// Package oauth holds the few words that the authorization server and the
// gateway's enforcement both use: revocation entries, token claim names and
// error codes. It depends on nothing of gatehouse and does no I/O.
package oauth

import "time"

// Level says what a Revocation revokes. The values are stored and sent over
// the wire: never renumber.
type Level string

const (
	// LevelIssuer revokes every token that the issuer issued before NotBefore.
	LevelIssuer Level = "issuer"
	// LevelClient revokes the tokens of a client, by client id.
	LevelClient Level = "client"
	// LevelSubject revokes the tokens of a subject.
	LevelSubject Level = "subject"
	// LevelSession revokes the tokens of a login session, by `sid`.
	LevelSession Level = "session"
	// LevelGrant revokes one grant: a refresh family and its access tokens.
	LevelGrant Level = "grant"
	// LevelToken revokes a single access token, by `jti`.
	LevelToken Level = "token"
)

// Revocation is one entry of the ordered revocation log. Seq numbers have no
// gaps and are in commit order.
type Revocation struct {
	Seq   uint64
	Level Level
	// ID is the issuer, client id, subject, sid, grant or jti.
	ID string
	// NotBefore: for the levels issuer, client and subject, tokens issued at or
	// before this whole second are revoked; the server mints no token for them
	// in the same second afterwards. Zero for the other levels: every token.
	NotBefore time.Time
	// Expires is when the last token that the entry can concern has expired.
	Expires time.Time
}

// Claim names of our access tokens (RFC 9068 and ours).
const (
	ClaimSession = "sid"
	ClaimGrant   = "grant"
)

// Values of the JOSE `typ` header. Each is for one purpose, so that no signed
// statement passes for another.
const (
	TypeAccessToken   = "at+jwt"
	TypeIdentity      = "gatehouse-identity+jwt"
	TypeIntrospection = "token-introspection+jwt"
	TypeLogout        = "logout+jwt"
)

// EventLogout is what a logout token tells of (OpenID Connect Back-Channel
// Logout, 2.4).
const EventLogout = "http://schemas.openid.net/event/backchannel-logout"

// Error codes of RFC 6749, 6750, 7009 and OpenID Connect Core.
const (
	InvalidRequest          = "invalid_request"
	InvalidClient           = "invalid_client"
	InvalidGrant            = "invalid_grant"
	InvalidScope            = "invalid_scope"
	InvalidToken            = "invalid_token"
	InsufficientScope       = "insufficient_scope"
	UnauthorizedClient      = "unauthorized_client"
	UnsupportedGrantType    = "unsupported_grant_type"
	UnsupportedResponseType = "unsupported_response_type"
	AccessDenied            = "access_denied"
	ServerError             = "server_error"
	TemporarilyUnavailable  = "temporarily_unavailable"
	LoginRequired           = "login_required"
	ConsentRequired         = "consent_required"
	InteractionRequired     = "interaction_required"
	InvalidTarget           = "invalid_target"
	InvalidRedirectURI      = "invalid_redirect_uri"
	// Of RFC 7591, 3.2.2.
	InvalidClientMetadata = "invalid_client_metadata"
	UnapprovedStatement   = "unapproved_software_statement"

	// What a protected resource wants (RFC 9470, 3), and what the user could not
	// do (OpenID Connect Core Error Code unmet_authentication_requirements).
	InsufficientAuthentication = "insufficient_user_authentication"
	UnmetAuthentication        = "unmet_authentication_requirements"

	// Of RFC 8628, 3.5.
	AuthorizationPending = "authorization_pending"
	SlowDown             = "slow_down"
	ExpiredToken         = "expired_token"
)
