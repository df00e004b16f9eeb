// Package metadata says where the endpoints are and what they can do (RFC 8414
// and OpenID Connect Discovery), and publishes the keys.
//
// It owns the list of what is advertised, which is exactly what works. It does
// not own anything that the list is about.
//
//	mux.Handle(places.OpenID(), api.Handler(metadata.New(config).Document, http.MethodGet))
package metadata

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/web"
)

// Places are the paths of an issuer.
type Places struct {
	// Base is the issuer's own path, "" where it has none.
	Base string
}

// PlacesOf returns the paths of an issuer, which must be a URL.
func PlacesOf(issuer string) (Places, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return Places{}, err
	}
	return Places{Base: u.Path}, nil
}

// OpenID is the document of OpenID Connect Discovery, 4: after the issuer.
func (p Places) OpenID() string { return p.Base + "/.well-known/openid-configuration" }

// OAuth is the document of RFC 8414, 3: before the issuer's path.
func (p Places) OAuth() string { return "/.well-known/oauth-authorization-server" + p.Base }

// Endpoints is the prefix of everything else.
func (p Places) Endpoints() string { return p.Base + "/oauth/" }

// document is both documents in one: they must agree.
type document struct {
	Issuer               string   `json:"issuer"`
	Authorization        string   `json:"authorization_endpoint"`
	Token                string   `json:"token_endpoint"`
	JWKS                 string   `json:"jwks_uri"`
	Userinfo             string   `json:"userinfo_endpoint"`
	Revocation           string   `json:"revocation_endpoint"`
	Introspection        string   `json:"introspection_endpoint"`
	EndSession           string   `json:"end_session_endpoint"`
	Device               string   `json:"device_authorization_endpoint"`
	Registration         string   `json:"registration_endpoint,omitempty"`
	Scopes               []string `json:"scopes_supported"`
	ResponseTypes        []string `json:"response_types_supported"`
	ResponseModes        []string `json:"response_modes_supported"`
	Grants               []string `json:"grant_types_supported"`
	Subjects             []string `json:"subject_types_supported"`
	IDTokenAlgorithms    []string `json:"id_token_signing_alg_values_supported"`
	TokenMethods         []string `json:"token_endpoint_auth_methods_supported"`
	RevocationMethods    []string `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectionMethods []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectionAlgs    []string `json:"introspection_signing_alg_values_supported"`
	Challenges           []string `json:"code_challenge_methods_supported"`
	Claims               []string `json:"claims_supported"`
	ACRs                 []string `json:"acr_values_supported"`
	Prompts              []string `json:"prompt_values_supported"`
	BackchannelLogout    bool     `json:"backchannel_logout_supported"`
	BackchannelSession   bool     `json:"backchannel_logout_session_supported"`
	IssParameter         bool     `json:"authorization_response_iss_parameter_supported"`
	ClaimsParameter      bool     `json:"claims_parameter_supported"`
	RequestParameter     bool     `json:"request_parameter_supported"`
	RequestURIParameter  bool     `json:"request_uri_parameter_supported"`
	RequestAlgorithms    []string `json:"request_object_signing_alg_values_supported"`
	AssertionAlgorithms  []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	RevocationAlgs       []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
	IntrospectionAuth    []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
	Pushed               string   `json:"pushed_authorization_request_endpoint"`
	RequirePAR           bool     `json:"require_pushed_authorization_requests"`
	DPoPAlgorithms       []string `json:"dpop_signing_alg_values_supported"`
	CertificateBound     bool     `json:"tls_client_certificate_bound_access_tokens,omitempty"`
}

// JWKS is the public key set as it is sent.
type JWKS interface {
	JWKS() (body []byte, etag string)
}

// Config is what an Endpoint needs.
type Config struct {
	Issuer    string
	Algorithm string // of ID tokens
	Keys      JWKS
	// KeysMaxAge is how long the key set may be cached: no longer than a new
	// key is published before it signs.
	KeysMaxAge time.Duration
	RequirePAR bool
	// MutualTLS: some listener verifies client certificates.
	MutualTLS bool
}

// Endpoint serves the documents. It is safe for concurrent use.
type Endpoint struct {
	Config
	sent   atomic.Pointer[sent]
	maxAge string // Cache-Control of the key set
}

// sent is the document as it is sent.
type sent struct {
	body []byte
	etag string
}

// New returns the endpoint.
func New(c Config) *Endpoint {
	e := &Endpoint{Config: c, maxAge: "public, max-age=" + strconv.Itoa(int(c.KeysMaxAge/time.Second))}
	e.Advertise(nil, false)
	return e
}

// Advertise sets the scopes that the documents list, and whether clients can
// register themselves.
func (e *Endpoint) Advertise(scopes []string, registration bool) {
	register := ""
	if registration {
		register = e.Issuer + "/oauth/register"
	}
	at := e.Issuer + "/oauth/"
	methods := slices.Clone(clients.Methods[:])
	if e.MutualTLS {
		methods = append(methods, clients.TLSMethods[:]...)
	}
	proving := slices.DeleteFunc(slices.Clone(methods), func(m string) bool { return m == clients.None })
	signed := jose.Algorithms[:]
	body, err := json.Marshal(document{
		Issuer:        e.Issuer,
		Authorization: at + "authorize", Token: at + "token", JWKS: at + "jwks", Userinfo: at + "userinfo",
		Revocation: at + "revoke", Introspection: at + "introspect", EndSession: at + "logout",
		Device: at + "device_authorization", Registration: register,
		Scopes:        scopes,
		ResponseTypes: []string{"code"}, ResponseModes: []string{"query"},
		Grants:            []string{clients.GrantCode, clients.GrantRefresh, clients.GrantClientCredentials, clients.GrantDevice, clients.GrantExchange},
		Subjects:          []string{"public"},
		IDTokenAlgorithms: []string{e.Algorithm},
		TokenMethods:      methods, RevocationMethods: methods,
		IntrospectionMethods: proving,
		IntrospectionAlgs:    []string{e.Algorithm},
		Challenges:           []string{"S256"},
		Claims: []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash",
			"name", "preferred_username", "email", "email_verified"},
		ACRs:         []string{oauth.ACRPassword, oauth.ACROTP, oauth.ACRSecondPasskey, oauth.ACRPasskey},
		Prompts:      []string{"none", "login", "consent", "select_account"},
		IssParameter: true, RequestParameter: true, RequestAlgorithms: signed,
		AssertionAlgorithms: signed, RevocationAlgs: signed, IntrospectionAuth: signed, DPoPAlgorithms: signed,
		Pushed: at + "par", RequirePAR: e.RequirePAR, CertificateBound: e.MutualTLS,
		BackchannelLogout: true, BackchannelSession: true,
	})
	if err != nil {
		panic("metadata: strings do not encode: " + err.Error())
	}
	sum := sha256.Sum256(body)
	e.sent.Store(&sent{body, `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`})
}

// Document serves both well-known documents.
func (e *Endpoint) Document(w http.ResponseWriter, r *http.Request) error {
	d := e.sent.Load()
	serve(w, r, d.body, d.etag, "public, max-age=300")
	return nil
}

// KeySet serves the keys.
func (e *Endpoint) KeySet(w http.ResponseWriter, r *http.Request) error {
	body, etag := e.Keys.JWKS()
	serve(w, r, body, etag, e.maxAge)
	return nil
}

// serve sends a document that caches may keep, unless the client has it.
func serve(w http.ResponseWriter, r *http.Request, body []byte, etag, cacheControl string) {
	h := w.Header()
	h.Set("Cache-Control", cacheControl)
	h.Del("Pragma")
	h.Set("ETag", etag)
	if has(r.Header["If-None-Match"], etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	web.WriteBody(w, http.StatusOK, body)
}

// has reports whether If-None-Match names etag, which holds no comma (RFC 9110,
// 13.1.2: weak comparison).
func has(fields []string, etag string) bool {
	for _, field := range fields {
		for tag := range strings.SplitSeq(field, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
