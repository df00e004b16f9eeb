package oauth

import (
	"net/http"
	"time"
)

// Codes of further documents that an Error may carry.
const (
	// RequestURINotSupported, InvalidRequestObject and InvalidRequestURI are of
	// OpenID Connect Core, 3.1.2.6, and RFC 9101, 7: ignoring the parameters
	// would mean that what the client signed is not what is done.
	RequestURINotSupported = "request_uri_not_supported"
	InvalidRequestObject   = "invalid_request_object"
	InvalidRequestURI      = "invalid_request_uri"
	// InvalidDPoPProof and UseDPoPNonce are of RFC 9449, 12.2.
	InvalidDPoPProof = "invalid_dpop_proof"
	UseDPoPNonce     = "use_dpop_nonce"
	// InteractionOver is of no standard: what a page or its stand-in brings back
	// was made for another browser or session, is too old, or was used.
	InteractionOver = "interaction_over"
)

// Error is a refusal in the words of RFC 6749. Code and Description are sent
// to the client and so hold nothing that it sent; Err only reaches the log.
type Error struct {
	Status      int
	Code        string
	Description string
	// Retry is sent as Retry-After where it is not zero.
	Retry time.Duration
	// Basic asks for a Basic challenge, because the client tried that scheme.
	Basic bool
	// DPoP asks for a DPoP challenge instead of a Bearer one.
	DPoP bool
	Err  error
}

func (e *Error) Error() string {
	text := e.Code
	if e.Description != "" {
		text += ": " + e.Description
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *Error) Unwrap() error { return e.Err }

// Refuse is an Error with the status that its code has by RFC 6749, 5.2.
func Refuse(code, description string) *Error {
	status := http.StatusBadRequest
	switch code {
	case InvalidClient, InvalidToken:
		status = http.StatusUnauthorized
	case InsufficientScope:
		status = http.StatusForbidden
	case ServerError:
		status = http.StatusInternalServerError
	case TemporarilyUnavailable:
		status = http.StatusServiceUnavailable
	}
	return &Error{Status: status, Code: code, Description: description}
}

// Unavailable says that something the answer depends on could not be reached:
// nothing was granted, and the client may try again.
func Unavailable(err error) *Error {
	return &Error{
		Status: http.StatusServiceUnavailable, Code: TemporarilyUnavailable,
		Description: "the authorization server cannot decide this now; try again",
		Retry:       time.Second, Err: err,
	}
}

// Failed says that the server itself did not do its work.
func Failed(err error) *Error {
	return &Error{Status: http.StatusInternalServerError, Code: ServerError, Description: "internal error", Err: err}
}
