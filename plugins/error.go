package plugins

import "fmt"

// Error is a refusal or failure on its way to the client. Code and Detail are
// shown to the client; Err only reaches the log. Only gateway/server renders
// and logs it.
type Error struct {
	Status int
	// Code is the stable reason code; see the constants.
	Code string
	// Detail is one sentence for the caller; empty for the code's title.
	Detail string
	// Header holds further response fields as name and value.
	Header [][2]string
	// Err is the cause, for the log; may be nil.
	Err error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Code, e.Err)
	}
	if e.Detail != "" {
		return e.Code + ": " + e.Detail
	}
	return e.Code
}

func (e *Error) Unwrap() error { return e.Err }

// Reason codes. They are part of the product's interface: the same in
// responses, logs, metrics and documentation, and never renamed.
const (
	NoRoute           = "no_route"
	MethodNotAllowed  = "method_not_allowed"
	BadRequest        = "bad_request"
	HeaderTooLarge    = "header_too_large"
	URLTooLong        = "url_too_long"
	BodyTooLarge      = "body_too_large"
	ExpectationFailed = "expectation_failed"
	VersionNotAllowed = "version_not_supported"
	RequestTimeout    = "request_timeout"
	// RequestTooSlow: the content came below the minimum rate.
	RequestTooSlow = "request_too_slow"
	// Misdirected: the request came over a connection whose certificate is
	// not for its host (RFC 9110, 15.5.20).
	Misdirected = "misdirected_request"

	// AddressDenied: the route does not admit the client's address.
	AddressDenied = "address_denied"
	// OriginDenied answers a preflight of a page that may not call the route.
	OriginDenied = "origin_denied"

	TokenMissing     = "token_missing"
	TokenInvalid     = "token_invalid"
	TokenExpired     = "token_expired"
	TokenNotYetValid = "token_not_yet_valid"
	TokenRevoked     = "token_revoked"
	// ProofInvalid, ProofNonce and ProofRequired are about DPoP (RFC 9449);
	// BindingMismatch is about a token bound to another key or certificate than
	// the request has shown.
	ProofInvalid    = "dpop_proof_invalid"
	ProofNonce      = "dpop_nonce_required"
	ProofRequired   = "dpop_required"
	BindingMismatch = "token_binding_mismatch"
	ScopeMissing    = "scope_missing"
	ClaimMissing    = "claim_missing"
	// StepUpRequired: the user has to sign in again, or in another way.
	StepUpRequired   = "step_up_required"
	AudienceMismatch = "audience_mismatch"
	IssuerUntrusted  = "issuer_untrusted"
	// ConditionDenied: the route's condition does not hold, or has no answer.
	ConditionDenied = "condition_denied"
	APIKeyMissing   = "api_key_missing"
	APIKeyInvalid   = "api_key_invalid"
	APIKeyExpired   = "api_key_expired"
	// KeysUnavailable means that the issuer's keys cannot be had now, so its
	// tokens cannot be judged.
	KeysUnavailable = "keys_unavailable"
	// CertificateMissing means that the client showed no certificate in
	// the TLS handshake.
	CertificateMissing = "client_certificate_required"

	// ForwardAuthDenied is recorded where another service refused the request
	// and its answer was relayed; ForwardAuthSilent: it gave no answer.
	ForwardAuthDenied = "forward_auth_denied"
	ForwardAuthSilent = "forward_auth_unavailable"

	RateLimited        = "rate_limited"
	LimiterUnavailable = "limiter_unavailable"

	BreakerOpen       = "breaker_open"
	NoHealthyInstance = "no_healthy_instance"
	// TunnelLimit: there are as many tunnels as the gateway carries.
	TunnelLimit = "tunnel_limit"
	// StreamExpired is recorded when a stream reached its idle or longest time.
	StreamExpired   = "stream_expired"
	UpstreamBusy    = "upstream_busy"
	UpstreamConnect = "upstream_connect"
	UpstreamTimeout = "upstream_timeout"
	// UpstreamTooSlow: the service sent its answer below the minimum rate.
	UpstreamTooSlow = "upstream_too_slow"
	UpstreamReset   = "upstream_reset"
	UpstreamInvalid = "upstream_invalid"
	// ClientGone is recorded (499) when the client left first; nobody sees it.
	ClientGone = "client_gone"
	// ResponseTooSlow is recorded (499) when the client was cut off because it
	// took the answer below the minimum rate.
	ResponseTooSlow = "response_too_slow"

	// PrincipalMissing is the final gate's refusal: a protected route was
	// reached without an authorised principal, which is a defect of ours.
	PrincipalMissing = "principal_missing"
	Draining         = "draining"
	Internal         = "internal_error"
)

var titles = map[string]string{
	NoRoute:            "No route matches this request",
	MethodNotAllowed:   "The method is not allowed here",
	BadRequest:         "The request is malformed or ambiguous",
	HeaderTooLarge:     "The request header is too large",
	URLTooLong:         "The URL is too long",
	BodyTooLarge:       "The request body is too large",
	ExpectationFailed:  "The expectation cannot be met",
	VersionNotAllowed:  "The HTTP version is not supported",
	RequestTimeout:     "The request did not arrive in time",
	RequestTooSlow:     "The request arrived too slowly",
	AddressDenied:      "Requests from this address are not allowed here",
	OriginDenied:       "Pages of this origin may not call this",
	Misdirected:        "This connection is not for the request's host",
	TokenMissing:       "An access token is required",
	TokenInvalid:       "The access token is not valid",
	TokenExpired:       "The access token has expired",
	TokenNotYetValid:   "The access token is not valid yet",
	TokenRevoked:       "The access token has been revoked",
	ProofInvalid:       "A DPoP proof is missing or not valid",
	ProofNonce:         "The DPoP proof needs a fresh nonce",
	ProofRequired:      "The access token must be bound to a key",
	BindingMismatch:    "The access token is bound to another key or certificate",
	ScopeMissing:       "The access token lacks a required scope",
	StepUpRequired:     "The user's sign-in is too old, or of another kind than this needs",
	ClaimMissing:       "The access token lacks a required claim",
	AudienceMismatch:   "The access token is meant for another audience",
	IssuerUntrusted:    "The access token's issuer is not trusted here",
	ConditionDenied:    "The caller may not do this",
	APIKeyMissing:      "An API key is required",
	APIKeyInvalid:      "The API key is not valid",
	APIKeyExpired:      "The API key has expired",
	KeysUnavailable:    "The access token cannot be verified now",
	CertificateMissing: "A client certificate is required",
	ForwardAuthDenied:  "The request was refused by another service",
	ForwardAuthSilent:  "It cannot be decided now whether the request may pass",
	RateLimited:        "Too many requests",
	LimiterUnavailable: "The rate limit cannot be checked now",
	BreakerOpen:        "The service is failing and is given time to recover",
	NoHealthyInstance:  "No instance of the service is available",
	TunnelLimit:        "The gateway is at its limit of tunnels",
	StreamExpired:      "The stream reached its time limit",
	UpstreamBusy:       "The service is at its connection limit",
	UpstreamConnect:    "The service cannot be reached",
	UpstreamTimeout:    "The service did not answer in time",
	UpstreamTooSlow:    "The service answered too slowly",
	UpstreamReset:      "The service closed the connection before it answered",
	UpstreamInvalid:    "The service sent an invalid answer",
	ClientGone:         "The client closed the connection",
	ResponseTooSlow:    "The client took the answer too slowly",
	PrincipalMissing:   "The request was not authorised",
	Draining:           "The gateway is shutting down",
	Internal:           "Internal error",
}

// Title returns the sentence that explains code to a person, and "" for a
// code that is not one of the constants.
func Title(code string) string { return titles[code] }

// AccessReason reports whether code refuses access: the caller's token or its
// absence is the reason.
func AccessReason(code string) bool {
	switch code {
	case TokenMissing, TokenInvalid, TokenExpired, TokenNotYetValid, TokenRevoked, ProofInvalid,
		ProofNonce, ProofRequired, BindingMismatch, ScopeMissing, StepUpRequired, ClaimMissing,
		AudienceMismatch, IssuerUntrusted, ConditionDenied, APIKeyMissing, APIKeyInvalid, APIKeyExpired, KeysUnavailable, CertificateMissing,
		PrincipalMissing:
		return true
	}
	return false
}
