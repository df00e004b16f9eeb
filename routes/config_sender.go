package routes

import (
	"net/netip"
	"time"
)

// ClientProof is how a client proves who it is, and what it has to do besides.
// The names are those of RFC 7591 where it has one.
type ClientProof struct {
	// AuthMethod is a method of client authentication; empty: by the secret, or
	// none where there is none.
	AuthMethod string `yaml:"token_endpoint_auth_method"`
	// JWKS is a JWK set of public keys, JWKSURI a place of one.
	JWKS    map[string]any `yaml:"jwks"`
	JWKSURI string         `yaml:"jwks_uri"`
	// One of these is in the certificate of tls_client_auth.
	TLSSubjectDN string `yaml:"tls_client_auth_subject_dn"`
	TLSSANDNS    string `yaml:"tls_client_auth_san_dns"`
	TLSSANURI    string `yaml:"tls_client_auth_san_uri"`
	TLSSANIP     string `yaml:"tls_client_auth_san_ip"`
	TLSSANEmail  string `yaml:"tls_client_auth_san_email"`
	// CertificateBound and DPoPBound demand bound tokens.
	CertificateBound bool `yaml:"tls_client_certificate_bound_access_tokens"`
	DPoPBound        bool `yaml:"dpop_bound_access_tokens"`
	// RequirePAR, RequireSigned and RequireState are about authorization
	// requests: pushed, signed, with a state.
	RequirePAR    bool `yaml:"require_par"`
	RequireSigned bool `yaml:"require_signed_request_object"`
	RequireState  bool `yaml:"require_state"`
	// Resources are the audiences that the client may ask for; empty: any.
	Resources []string `yaml:"resources"`
}

// Demands are what the authorization server wants of all clients.
type Demands struct {
	RequirePAR       bool `yaml:"require_par"`
	RequireDPoPNonce bool `yaml:"require_dpop_nonce"`
	// FetchNetworks are networks, besides public addresses, that what clients
	// publish may be fetched from.
	FetchNetworks []netip.Prefix `yaml:"fetch_networks"`
	TokenLimits   TokenLimits    `yaml:"token_limits"`
}

// TokenLimits bound the requests to the token endpoint.
type TokenLimits struct {
	Address TokenLimit `yaml:"address"` // every request; default 200 per 1s, burst 1000
	Client  TokenLimit `yaml:"client"`  // of a client that proved who it is; default the same
	User    TokenLimit `yaml:"user"`    // for tokens of one user; default 20 per 1s, burst 200
}

// TokenLimit is so many requests in a time; a Limit of 0 is none.
type TokenLimit struct {
	Limit int           `yaml:"limit"`
	Per   time.Duration `yaml:"per"`
	Burst int           `yaml:"burst"` // default: limit
}
