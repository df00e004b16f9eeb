package clients

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/jose"
	"github.com/gatehouse/gatehouse/authserver/oauth"
	"github.com/gatehouse/gatehouse/authserver/store"
)

// MinSecret is the least length of a secret that a person chose.
const MinSecret = 32

var grantTypes = []string{GrantCode, GrantRefresh, GrantClientCredentials, GrantDevice, GrantExchange}

// Validate reports everything that is wrong with a client. scopes tells which
// scopes exist.
func Validate(c store.Client, scopes func(string) bool) error {
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if !validID(c.ID) {
		add("the id must be 1 to 255 visible ASCII characters")
	}
	for _, g := range c.Grants {
		if !slices.Contains(grantTypes, g) {
			add("grant type %q does not exist (there are %s)", g, strings.Join(grantTypes, ", "))
		}
	}
	has := func(g string) bool { return slices.Contains(c.Grants, g) }
	public := (&Client{Client: c}).Public()
	if has(GrantClientCredentials) && public {
		add("client_credentials needs a secret, keys or a certificate: a public client cannot prove who it is")
	}
	if has(GrantRefresh) && !has(GrantCode) && !has(GrantDevice) {
		add("refresh_token needs authorization_code or the device grant: no other grant gives refresh tokens")
	}
	if has(GrantCode) && len(c.RedirectURIs) == 0 {
		add("authorization_code needs at least one redirect URI")
	}
	if has(GrantExchange) && public {
		add("token exchange needs a secret, keys or a certificate: a public client cannot prove who it is")
	}
	if has(GrantExchange) != (c.Exchange != nil) {
		add("the grant token exchange and its policy, exchange, go together")
	}
	if p := c.Exchange; p != nil {
		if len(p.SubjectTokensFrom) == 0 {
			add("exchange: subject_tokens_from is missing: the clients whose tokens may be exchanged, or *")
		}
		for _, s := range p.Scopes {
			if !slices.Contains(c.Scopes, s) {
				add("exchange: scope %q is not one of the client's", s)
			}
		}
	}
	if c.SkipConsent && public {
		add("a public client cannot skip consent: anybody can pretend to be it")
	}
	for _, s := range c.Scopes {
		if !scopes(s) {
			add("scope %q is not declared", s)
		}
	}
	for _, u := range c.RedirectURIs {
		if err := validateRedirect(u); err != nil {
			problems = append(problems, err)
		}
	}
	for _, u := range c.PostLogoutRedirectURIs {
		if err := validateRedirect(u); err != nil {
			problems = append(problems, err)
		}
	}
	if err := CheckClaims(c.Claims); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(append(problems, validateSettings(c)...)...)
}

// validateSettings checks what is about keys, certificates and addresses.
func validateSettings(c store.Client) (problems []error) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	method := (&Client{Client: c}).Method()
	switch method {
	case SecretBasic, SecretPost:
		if len(c.SecretHashes) == 0 {
			add("token_endpoint_auth_method %s needs a secret", method)
		}
	case None, PrivateKeyJWT, TLSClient, SelfSignedTLS:
		if len(c.SecretHashes) > 0 {
			add("a secret is of no use with token_endpoint_auth_method %s", method)
		}
	default:
		add("token_endpoint_auth_method %q does not exist (there are %s)", method,
			strings.Join(append(Methods[:], TLSMethods[:]...), ", "))
	}
	hasKeys := len(c.JWKS) > 0 || c.JWKSURI != ""
	if (method == PrivateKeyJWT || method == SelfSignedTLS || c.RequireSigned) && !hasKeys {
		add("jwks or jwks_uri is missing: there is no key to verify signatures with")
	}
	if len(c.JWKS) > 0 {
		if c.JWKSURI != "" {
			add("jwks and jwks_uri exclude each other")
		}
		if _, err := jose.ParseSet(c.JWKS); err != nil {
			add("jwks: %w", err)
		}
	}
	if c.JWKSURI != "" && !secureURL(c.JWKSURI) {
		add("jwks_uri must be an https URL")
	}
	if n := names(c.ClientSettings); method == TLSClient && n != 1 {
		add("%s needs exactly one of tls_client_auth_subject_dn, …_san_dns, …_san_uri, …_san_ip and …_san_email", method)
	} else if method != TLSClient && n > 0 {
		add("tls_client_auth_… is for token_endpoint_auth_method %s", TLSClient)
	}
	if c.TLSSANIP != "" {
		if _, err := netip.ParseAddr(c.TLSSANIP); err != nil {
			add("tls_client_auth_san_ip is not an address")
		}
	}
	for _, r := range c.Resources {
		// RFC 8707, 2.
		if u, err := url.Parse(r); err != nil || !u.IsAbs() || strings.Contains(r, "#") {
			add("resource %q must be an absolute URI without a fragment", r)
		}
	}
	switch {
	case c.BackchannelLogoutURI == "" && c.BackchannelLogoutSession:
		add("backchannel_logout_session_required is nothing without backchannel_logout_uri")
	case c.BackchannelLogoutURI != "" && !secureURL(c.BackchannelLogoutURI):
		add("backchannel_logout_uri must be an https URL without a fragment")
	}
	return problems
}

// secureURL reports whether a URL is https, or http on loopback.
func secureURL(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && u.Host != "" && u.User == nil && u.Fragment == "" &&
		(u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()))
}

// validID allows what can be said in every header and log (VSCHAR, no space).
func validID(id string) bool {
	if id == "" || len(id) > 255 {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// validateRedirect accepts https, http on loopback, and private-use schemes in
// reverse domain form (RFC 8252, 7.1). The error is an *oauth.Error with
// invalid_redirect_uri (RFC 7591, 3.2.2).
func validateRedirect(raw string) error {
	refuse := func(why string) error {
		return oauth.Refuse(oauth.InvalidRedirectURI, fmt.Sprintf("redirect URI %q %s", raw, why))
	}
	for i := range len(raw) {
		// RFC 3986 has no place for these; '*' is one but means a pattern to
		// whoever writes it here.
		if c := raw[i]; c <= ' ' || c > '~' || strings.IndexByte("\"<>\\^`{|}*", c) >= 0 {
			return refuse("holds a character that is not allowed: spaces, quotes, wildcards and the like")
		}
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return refuse("is not a URI")
	case strings.Contains(raw, "#"):
		return refuse("has a fragment")
	case u.User != nil:
		return refuse("has user information")
	case slices.ContainsFunc(strings.Split(u.EscapedPath(), "/"), dots):
		return refuse("has a dot segment")
	}
	switch scheme, _, found := strings.Cut(raw, ":"); {
	case !found || scheme != u.Scheme: // it must be in lower case
	case scheme == "https" || scheme == "http":
		return validateWeb(u, refuse)
	case strings.Contains(scheme, "."):
		return nil
	}
	return refuse("must be https, http on loopback, or have a private-use scheme with a dot, such as com.example.app:/cb")
}

func dots(segment string) bool {
	s := strings.ReplaceAll(strings.ToLower(segment), "%2e", ".")
	return s == "." || s == ".."
}

func validateWeb(u *url.URL, refuse func(string) error) error {
	host := u.Hostname()
	if u.Opaque != "" || host == "" {
		return refuse("has no host")
	}
	for i := range len(host) {
		// Hosts get into a Content-Security-Policy.
		if c := host[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != ':' {
			return refuse("has a host that is not a lower-case name or address")
		}
	}
	if p := u.Port(); p == "" && strings.HasSuffix(u.Host, ":") {
		return refuse("has an empty port")
	}
	if u.Scheme == "http" && !loopback(host) {
		return refuse("uses http outside loopback: the code would travel in the open")
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Redirect returns the redirect URI to use for what a request asked for: by
// exact comparison of strings (RFC 9700, 4.1.3); the only registered one where
// the request has none; any port for a registered http URI on a loopback IP
// literal (RFC 8252, 7.3).
func (c *Client) Redirect(asked string) (uri string, ok bool) {
	if asked == "" {
		if len(c.RedirectURIs) != 1 {
			return "", false
		}
		return c.RedirectURIs[0], true
	}
	for _, registered := range c.RedirectURIs {
		if asked == registered || sameButPort(registered, asked) {
			return asked, true
		}
	}
	return "", false
}

// PostLogoutRedirect reports whether the URI is registered for after logout.
func (c *Client) PostLogoutRedirect(asked string) bool {
	return slices.Contains(c.PostLogoutRedirectURIs, asked)
}

// sameButPort compares text, so that no two ways to read a URI can differ.
func sameButPort(registered, asked string) bool {
	host, _, rest, ok := splitLoopback(registered)
	if !ok {
		return false
	}
	askedHost, _, askedRest, ok := splitLoopback(asked)
	return ok && host == askedHost && rest == askedRest
}

// splitLoopback splits http://127.0.0.1:PORT/REST; not ok for all else.
func splitLoopback(uri string) (host, port, rest string, ok bool) {
	for _, host := range []string{"127.0.0.1", "[::1]"} {
		after, found := strings.CutPrefix(uri, "http://"+host)
		if !found {
			continue
		}
		end := strings.IndexAny(after, "/?")
		if end < 0 {
			end = len(after)
		}
		port, rest = after[:end], after[end:]
		if port == "" {
			return host, "", rest, true
		}
		if port[0] != ':' || !validPort(port[1:]) {
			return "", "", "", false
		}
		return host, port[1:], rest, true
	}
	return "", "", "", false
}

func validPort(p string) bool {
	if p == "" || len(p) > 5 || p[0] == '0' {
		return false
	}
	n := 0
	for i := range len(p) {
		if p[i] < '0' || p[i] > '9' {
			return false
		}
		n = n*10 + int(p[i]-'0')
	}
	return n <= 65535
}

// origin is the web origin of a redirect URI, "" where it has none.
func origin(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return ""
	}
	host := u.Host
	if name, port, err := net.SplitHostPort(host); err == nil &&
		(u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80") {
		host = name
	}
	return u.Scheme + "://" + host
}
