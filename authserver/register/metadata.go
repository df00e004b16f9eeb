package register

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/clients"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
	"github.com/gatehouse/gatehouse/authserver/web"
)

const (
	// maxList and maxText bound what a client may say about itself.
	maxList = 20
	maxText = 2048
)

// metadata is what a client says about itself (RFC 7591, 2, and OpenID Connect
// Registration, 2). What is not here is ignored, as the RFC has it.
type metadata struct {
	Name                     string   `json:"client_name,omitempty"`
	RedirectURIs             []string `json:"redirect_uris,omitempty"`
	PostLogoutRedirectURIs   []string `json:"post_logout_redirect_uris,omitempty"`
	Grants                   []string `json:"grant_types,omitempty"`
	ResponseTypes            []string `json:"response_types,omitempty"`
	Scope                    string   `json:"scope,omitempty"`
	AuthMethod               string   `json:"token_endpoint_auth_method,omitempty"`
	BackchannelLogoutURI     string   `json:"backchannel_logout_uri,omitempty"`
	BackchannelLogoutSession bool     `json:"backchannel_logout_session_required,omitempty"`

	JWKS       json.RawMessage `json:"jwks,omitempty"`
	JWKSURI    string          `json:"jwks_uri,omitempty"`
	DPoPBound  bool            `json:"dpop_bound_access_tokens,omitempty"`
	RequirePAR bool            `json:"require_pushed_authorization_requests,omitempty"`

	ApplicationType  string   `json:"application_type,omitempty"`
	ClientURI        string   `json:"client_uri,omitempty"`
	LogoURI          string   `json:"logo_uri,omitempty"`
	PolicyURI        string   `json:"policy_uri,omitempty"`
	TermsURI         string   `json:"tos_uri,omitempty"`
	SectorURI        string   `json:"sector_identifier_uri,omitempty"`
	SubjectType      string   `json:"subject_type,omitempty"`
	IDTokenAlgorithm string   `json:"id_token_signed_response_alg,omitempty"`
	Contacts         []string `json:"contacts,omitempty"`
	SoftwareID       string   `json:"software_id,omitempty"`
	SoftwareVersion  string   `json:"software_version,omitempty"`

	// Sent by clients, never kept.
	ClientID     string `json:"-"`
	ClientSecret string `json:"-"`
}

// secretMethod reports whether the client proves who it is with a secret.
func (m *metadata) secretMethod() bool {
	return m.AuthMethod == clients.SecretBasic || m.AuthMethod == clients.SecretPost
}

// readMetadata reads the request's JSON.
func readMetadata(r *http.Request) (m metadata, err error) {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return m, &oauth.Error{Status: http.StatusUnsupportedMediaType, Code: oauth.InvalidRequest, Description: "the content type must be application/json"}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, web.MaxBody+1))
	if err != nil || len(body) > web.MaxBody {
		return m, &oauth.Error{Status: http.StatusRequestEntityTooLarge, Code: oauth.InvalidRequest, Description: "the request could not be read, or is larger than 64 KiB"}
	}
	var sent struct {
		metadata
		ID        string `json:"client_id"`
		Secret    string `json:"client_secret"`
		Statement string `json:"software_statement"`
	}
	if err := json.Unmarshal(body, &sent); err != nil {
		return m, refuse("the content is not a JSON object with the types of RFC 7591")
	}
	if sent.Statement != "" {
		return m, oauth.Refuse(oauth.UnapprovedStatement, "software statements are not taken here")
	}
	m = sent.metadata
	m.ClientID, m.ClientSecret = sent.ID, sent.Secret
	for _, list := range [][]string{m.RedirectURIs, m.PostLogoutRedirectURIs, m.Grants, m.ResponseTypes, m.Contacts} {
		if len(list) > maxList {
			return m, refuse("a list has more than %d members", maxList)
		}
	}
	for _, text := range slices.Concat(m.RedirectURIs, m.PostLogoutRedirectURIs, m.Contacts, []string{
		m.Name, m.Scope, m.ClientURI, m.LogoURI, m.PolicyURI, m.TermsURI, m.SectorURI, m.SoftwareID, m.SoftwareVersion, m.BackchannelLogoutURI, m.JWKSURI,
	}) {
		if len(text) > maxText || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return m, refuse("a value is longer than %d bytes, or holds a control character", maxText)
		}
	}
	if m.AuthMethod == "" {
		m.AuthMethod = clients.SecretBasic // RFC 7591, 2
	}
	return m, nil
}

// apply gives the client what it asked for as far as the policy and bound, nil
// for none, allow it. What it did not ask for it gets by the RFC's defaults,
// scopes by the policy's list.
func (e *Endpoint) apply(ctx context.Context, c *store.Client, m metadata, p *Policy, bound []string) error {
	if m.AuthMethod != clients.None && m.AuthMethod != clients.PrivateKeyJWT && !m.secretMethod() {
		return refuse("token_endpoint_auth_method: there are client_secret_basic, client_secret_post, private_key_jwt and none")
	}
	c.AuthMethod, c.JWKS, c.JWKSURI = m.AuthMethod, m.JWKS, m.JWKSURI
	c.DPoPBound, c.RequirePAR = m.DPoPBound, m.RequirePAR
	c.Name, c.RedirectURIs, c.PostLogoutRedirectURIs = m.Name, m.RedirectURIs, m.PostLogoutRedirectURIs
	c.BackchannelLogoutURI, c.BackchannelLogoutSession = m.BackchannelLogoutURI, m.BackchannelLogoutSession
	c.Grants = m.Grants
	if len(c.Grants) == 0 {
		c.Grants = []string{clients.GrantCode}
	}
	for _, g := range c.Grants {
		if !slices.Contains(p.Grants, g) {
			return refuse("grant_types: a registered client may have %s", strings.Join(p.Grants, ", "))
		}
	}
	code := slices.Contains(c.Grants, clients.GrantCode)
	for _, t := range m.ResponseTypes {
		if t != "code" || !code {
			return refuse("response_types: there is only code, with the grant authorization_code")
		}
	}
	asked := p.Scopes
	if m.Scope != "" {
		asked = strings.Fields(m.Scope)
	}
	c.Scopes = nil
	for _, s := range asked {
		if slices.Contains(p.Scopes, s) && e.Known(s) && !slices.Contains(c.Scopes, s) && (bound == nil || slices.Contains(bound, s)) {
			c.Scopes = append(c.Scopes, s)
		}
	}
	if err := m.checkApplication(); err != nil {
		return err
	}
	switch {
	case m.SubjectType != "" && m.SubjectType != "public":
		return refuse("subject_type: there is only public")
	case m.IDTokenAlgorithm != "" && m.IDTokenAlgorithm != e.Algorithm:
		return refuse("id_token_signed_response_alg: there is only %s", e.Algorithm)
	}
	return e.checkURIs(ctx, m)
}

// checkApplication holds a client to the kind that it says it is (OpenID
// Connect Registration, 2). One that does not say may be either.
func (m *metadata) checkApplication() error {
	switch m.ApplicationType {
	case "", "native":
		return nil
	case "web":
		for _, u := range m.RedirectURIs {
			if !strings.HasPrefix(u, "https://") || strings.HasPrefix(u, "https://localhost") {
				return oauth.Refuse(oauth.InvalidRedirectURI, "a web application has https redirect URIs, and none on localhost")
			}
		}
		return nil
	}
	return refuse("application_type: there are web and native")
}

// checkURIs refuses addresses that only this server could reach. The document
// about the sector is the only one that is fetched: it has to name the redirect
// URIs (OpenID Connect Registration, 5).
func (e *Endpoint) checkURIs(ctx context.Context, m metadata) error {
	for name, uri := range map[string]string{
		"client_uri": m.ClientURI, "logo_uri": m.LogoURI, "policy_uri": m.PolicyURI, "tos_uri": m.TermsURI,
		"sector_identifier_uri": m.SectorURI, "jwks_uri": m.JWKSURI, "backchannel_logout_uri": m.BackchannelLogoutURI,
	} {
		if uri == "" {
			continue
		}
		if err := e.Fetch.Check(uri); err != nil {
			return refuse("%s is %v", name, err)
		}
	}
	if m.SectorURI == "" {
		return nil
	}
	body, _, err := e.Fetch.Get(ctx, m.SectorURI)
	if err != nil {
		return refuse("sector_identifier_uri cannot be fetched") // no word about what is there
	}
	var listed []string
	if json.Unmarshal(body, &listed) != nil {
		return refuse("sector_identifier_uri does not lead to a JSON array of URIs")
	}
	for _, u := range m.RedirectURIs {
		if !slices.Contains(listed, u) {
			return refuse("the document at sector_identifier_uri does not name every redirect URI")
		}
	}
	return nil
}
