package routes

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// kekSize is the size of a key encryption key.
const kekSize = 32

// minSecret is the length of a client secret that cannot be guessed.
const minSecret = 32

// introspectScope lets a client, as a resource server, ask about tokens of
// others.
const introspectScope = "gatehouse:introspect"

// standardScopes are known without a declaration: those of OpenID Connect that
// the authorization server knows, and what opens parts of the server itself.
var standardScopes = []string{
	"openid", "profile", "email", "offline_access", "gatehouse:admin", "gatehouse:read", introspectScope,
}

func (c *checker) authServer(a *AuthServer) {
	if c.required(&a.Issuer, "authserver: issuer", a.Pos) {
		c.issuerURL(c.at(&a.Issuer, a.Pos), a.Issuer)
	}
	c.keyEncryptionKeys(a)
	c.oneOf(&a.Algorithm, "algorithm", a.Pos, "ES256", "EdDSA", "RS256")
	within(c, &a.AccessTokenTTL, "access_token_ttl", time.Minute, time.Hour)
	within(c, &a.CodeTTL, "code_ttl", time.Second, time.Minute)
	atLeast(c, &a.SessionTTL, "session_ttl", time.Minute)
	atLeast(c, &a.KeyRotation, "key_rotation", time.Hour)
	r := &a.RefreshToken
	atLeast(c, &r.TTL, "refresh_token: ttl", time.Minute)
	within(c, &r.Idle, "refresh_token: idle", time.Minute, max(r.TTL, time.Minute))
	within(c, r.Grace, "refresh_token: grace", 0, time.Minute)
	c.demands(&a.Demands)
	if a.Audit.Retention != 0 || c.written(&a.Audit.Retention) {
		atLeast(c, &a.Audit.Retention, "audit: retention", 24*time.Hour)
	}
	c.upstreams(a)
	if a.LDAP != nil && !c.broken(&a.LDAP) {
		c.ldap(a.LDAP)
	}
	for _, scope := range slices.Sorted(maps.Keys(a.Scopes)) {
		if !scopeToken(scope) {
			c.report(keyPos(c, &a.Scopes, scope), "the scope %q holds a character that scopes may not have (RFC 6749, 3.3)", scope)
		}
	}
	c.theme(a)
	c.interaction(a)
	c.unusual(a)
	c.mailing(&a.Mailing, a.Pos)
	c.clientRegistration(a)
	ids := map[string]Pos{}
	for i := range a.Clients {
		client := &a.Clients[i]
		if c.broken(client) {
			continue
		}
		if c.required(&client.ID, "id", client.Pos) {
			c.unique(ids, "client", &client.ID, client.Pos)
			if strings.ContainsFunc(client.ID, func(r rune) bool { return r < 0x21 || r > 0x7E }) {
				c.report(c.at(&client.ID, client.Pos), "the client id %q may have visible ASCII characters only", client.ID)
			}
		}
		c.client(client, a)
	}
	names := map[string]Pos{}
	for i := range a.Users {
		user := &a.Users[i]
		if c.broken(user) {
			continue
		}
		if c.required(&user.Name, "name", user.Pos) {
			c.unique(names, "user", &user.Name, user.Pos)
		}
		c.user(user)
	}
}

// theme puts the folder of the naming file before the path, and lets a watcher
// follow what is in it.
func (c *checker) theme(a *AuthServer) {
	if a.Theme == "" || c.broken(&a.Theme) {
		return
	}
	pos := c.at(&a.Theme, a.Pos)
	if !filepath.IsAbs(a.Theme) {
		a.Theme = filepath.Join(filepath.Dir(pos.File), a.Theme)
	}
	err := filepath.WalkDir(a.Theme, func(path string, _ fs.DirEntry, err error) error {
		c.sources(path)
		return err
	})
	if info, e := os.Stat(a.Theme); err != nil || e != nil || !info.IsDir() {
		c.report(pos, "theme: the folder %s is not there or cannot be read", a.Theme)
	}
}

// unique reports a name that was there before, naming both places.
func (c *checker) unique(seen map[string]Pos, what string, name *string, owner Pos) {
	pos := c.at(name, owner)
	if first, twice := seen[*name]; twice {
		c.report(pos, "the %s %q is defined twice, first at %v", what, *name, first)
		return
	}
	seen[*name] = pos
}

func (c *checker) issuerURL(pos Pos, issuer string) {
	u, ok := webURL(issuer)
	switch {
	case !ok || u.RawQuery != "" || u.ForceQuery:
		c.report(pos, "issuer: %q is not a URL such as https://api.example.com", issuer)
	case u.Scheme == "http" && !loopbackHost(u.Hostname()) && !c.insecure():
		c.report(pos, "issuer: http is allowed on loopback only; write https (or insecure: true on a listener, for a laboratory)")
	case strings.HasSuffix(issuer, "/"):
		c.suggest(pos, strings.TrimRight(issuer, "/"), "issuer: a / at the end makes it another issuer for most clients")
	case u.Host != strings.ToLower(u.Host):
		c.report(pos, "issuer: write the host in lower case")
	}
}

// insecure reports whether the operator asked for plain traffic outside of
// loopback.
func (c *checker) insecure() bool {
	return slices.ContainsFunc(c.file.Listeners, func(l Listener) bool { return l.Insecure })
}

func (c *checker) keyEncryptionKeys(a *AuthServer) {
	if len(a.KeyEncryptionKey) == 0 && !c.broken(&a.KeyEncryptionKey) {
		c.report(c.at(&a.KeyEncryptionKey, a.Pos), "authserver: key_encryption_key is missing; `gatehouse key new-kek` prints one")
	}
	for i := range a.KeyEncryptionKey {
		key := &a.KeyEncryptionKey[i]
		if c.broken(key) || c.broken(&a.KeyEncryptionKey) {
			continue
		}
		// The decoder's error would tell a part of the key.
		if raw, err := base64.StdEncoding.DecodeString(key.Reveal()); err != nil || len(raw) != kekSize {
			c.report(c.at(key, c.at(&a.KeyEncryptionKey, a.Pos)), "key_encryption_key is not %d bytes in base64; `gatehouse key new-kek` prints one", kekSize)
		}
	}
}

// scopeToken is RFC 6749, 3.3.
func scopeToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= 0x20 || c > 0x7E || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

var (
	grantTypes        = []string{"authorization_code", "client_credentials", "refresh_token", "device_code", "token-exchange"}
	unsupportedGrants = []string{
		"jwt_bearer", "jwt-bearer",
	}
)

// grantPrefix is that of grant types which are URIs; files may leave it out.
const grantPrefix = "urn:ietf:params:oauth:grant-type:"

func (c *checker) client(client *Client, a *AuthServer) {
	for i := range client.Grants { // the full names are known, too
		client.Grants[i] = strings.TrimPrefix(client.Grants[i], grantPrefix)
	}
	has := func(grant string) bool { return slices.Contains(client.Grants, grant) }
	// A resource server gets no tokens; it asks about those of others.
	asks := slices.Contains(client.Scopes, introspectScope)
	if len(client.Grants) == 0 && !asks && !c.broken(&client.Grants) && !c.broken(&client.Scopes) {
		c.report(c.at(&client.Grants, client.Pos), "grants is missing: some of %s", strings.Join(grantTypes, ", "))
	}
	for i := range client.Grants {
		grant := &client.Grants[i]
		if slices.Contains(unsupportedGrants, *grant) {
			c.report(c.at(grant, client.Pos), "grants: %s is not supported by this version", *grant)
			continue
		}
		c.oneOf(grant, "grants", client.Pos, grantTypes...)
	}
	secret := client.Secret.Reveal()
	switch {
	case c.broken(&client.Secret):
	case secret == "" && c.written(&client.Secret):
		c.report(c.at(&client.Secret, client.Pos), "secret is empty; leave it out for a public client")
	case secret != "" && len(secret) < minSecret:
		c.report(c.at(&client.Secret, client.Pos), "secret is shorter than %d characters", minSecret)
	case !client.provesItself() && asks:
		c.report(client.Pos, "the client %q needs a secret for introspection", client.ID)
	case !client.provesItself() && has("client_credentials"):
		c.report(client.Pos, "the client %q needs a secret for client_credentials", client.ID)
	case !client.provesItself() && client.SkipConsent:
		c.report(c.at(&client.SkipConsent, client.Pos), "skip_consent: the client %q has no secret, so anybody could pretend to be it", client.ID)
	}
	c.clientProof(client, a)
	c.exchange(client, a, has("token-exchange"))
	c.backchannel(client)
	if has("authorization_code") && len(client.RedirectURIs) == 0 && !c.broken(&client.RedirectURIs) {
		c.report(client.Pos, "the client %q needs redirect_uris for authorization_code", client.ID)
	}
	if !has("authorization_code") && !c.broken(&client.Grants) {
		if len(client.RedirectURIs) > 0 {
			c.report(c.at(&client.RedirectURIs, client.Pos), "redirect_uris are for the grant authorization_code, which the client %q does not have", client.ID)
		}
		if has("refresh_token") && !has("device_code") {
			c.report(client.Pos, "the client %q gets refresh tokens only with the grant authorization_code or device_code", client.ID)
		}
	}
	for _, uris := range [][]string{client.RedirectURIs, client.PostLogoutRedirectURIs} {
		for i := range uris {
			if wrong := redirectProblem(uris[i]); wrong != "" && !c.broken(&uris[i]) {
				c.report(c.at(&uris[i], client.Pos), "the redirect URI %q %s", uris[i], wrong)
			}
		}
	}
	for i := range client.Scopes {
		c.declaredScope(&client.Scopes[i], client.Pos, a)
	}
	c.claims(client)
}

// registrationGrants are those that clients may register themselves for.
var registrationGrants = []string{"authorization_code", "refresh_token", "device_code", "client_credentials"}

func (c *checker) clientRegistration(a *AuthServer) {
	r := a.ClientRegistration
	if r == nil || c.broken(r) {
		return
	}
	for i := range r.Tokens {
		if token := &r.Tokens[i]; len(token.Reveal()) < minSecret && !c.broken(token) && !c.broken(&r.Tokens) {
			c.report(c.at(token, c.at(&r.Tokens, r.Pos)), "client_registration: a token is shorter than %d characters", minSecret)
		}
	}
	for i := range r.Scopes {
		s := &r.Scopes[i]
		if c.declaredScope(s, r.Pos, a) && strings.HasPrefix(*s, "gatehouse:") {
			c.report(c.at(s, r.Pos), "client_registration: the scope %q opens the server itself, and is given to declared clients and by commands only", *s)
		}
	}
	for i := range r.Grants {
		r.Grants[i] = strings.TrimPrefix(r.Grants[i], grantPrefix)
		c.oneOf(&r.Grants[i], "client_registration: grants", r.Pos, registrationGrants...)
	}
}

func (c *checker) backchannel(client *Client) {
	uri := &client.BackchannelLogoutURI
	switch {
	case c.broken(uri):
	case *uri == "" && client.BackchannelLogoutSessionRequired:
		c.report(c.at(&client.BackchannelLogoutSessionRequired, client.Pos), "backchannel_logout_session_required is nothing without backchannel_logout_uri")
	case *uri != "":
		if _, ok := secureURL(*uri); !ok || strings.Contains(*uri, "#") {
			c.report(c.at(uri, client.Pos), "backchannel_logout_uri is not an https URL without a fragment (http is allowed on loopback only)")
		}
	}
}

// exchange checks the policy of token exchange. None is allowed by default.
func (c *checker) exchange(client *Client, a *AuthServer, has bool) {
	x := client.Exchange
	switch {
	case c.broken(&client.Exchange) || c.broken(&client.Grants):
		return
	case x == nil && has:
		c.report(client.Pos, "the client %q has the grant token-exchange, so it needs exchange: {subject_tokens_from: […]}", client.ID)
		return
	case x == nil:
		return
	case !has:
		c.report(x.Pos, "exchange is for the grant token-exchange, which the client %q does not have", client.ID)
	case !client.provesItself() && !c.broken(&client.Secret):
		c.report(client.Pos, "the client %q needs a secret for token-exchange", client.ID)
	}
	if len(x.SubjectTokensFrom) == 0 && !c.broken(&x.SubjectTokensFrom) {
		c.report(x.Pos, "exchange: subject_tokens_from is missing: the ids of the clients whose tokens may be exchanged, or \"*\"")
	}
	for i := range x.Scopes {
		if s := &x.Scopes[i]; c.declaredScope(s, x.Pos, a) && !slices.Contains(client.Scopes, *s) && !c.broken(s) && !c.broken(&client.Scopes) {
			c.report(c.at(s, x.Pos), "exchange: the scope %q is not one of the client's scopes", *s)
		}
	}
	c.knownResources("exchange: ", x.Audiences, x.Pos, a)
}

var (
	claimSources = []string{"user.roles", "user.groups", "user.permissions"}
	// takenClaims have a meaning of their own in access tokens, or say something
	// about a person, which access tokens never do.
	takenClaims = []string{
		"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "sid", "grant", "acr", "amr", "auth_time", "cnf", "act",
		"may_act", "azp", "nonce", "at_hash", "c_hash", "s_hash", "typ", "events", "name", "given_name", "family_name", "middle_name",
		"nickname", "preferred_username", "profile", "picture", "website", "email", "email_verified", "gender", "birthdate", "zoneinfo",
		"locale", "phone_number", "phone_number_verified", "address", "updated_at", "username", "password",
	}
)

// claims checks the rules which claims the client's access tokens have.
func (c *checker) claims(client *Client) {
	for _, name := range slices.Sorted(maps.Keys(client.Claims)) {
		pos, source := keyPos(c, &client.Claims, name), client.Claims[name]
		switch {
		case slices.Contains(takenClaims, name):
			c.report(pos, "claims: %q has a meaning of its own; choose another name", name)
		case len(name) > 128 || !scopeToken(name):
			c.report(pos, "claims: %q cannot be the name of a claim", name)
		case !slices.Contains(claimSources, source):
			c.suggest(pos, nearest(source, claimSources), "claims: unknown source %q; there are %s", source, strings.Join(claimSources, ", "))
		}
	}
}

// redirectProblem says what is wrong with a redirect URI, empty for nothing.
// URIs are compared as they stand (RFC 9700, 4.1.3), so none has a pattern.
func redirectProblem(uri string) string {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Scheme == "":
		return "is not absolute"
	case strings.Contains(uri, "#"):
		return "has a fragment (RFC 6749, 3.1.2)"
	case strings.Contains(uri, "*"):
		return "has a wildcard; list every URI"
	case u.User != nil:
		return "has user information"
	case strings.ContainsFunc(uri, func(r rune) bool { return r <= 0x20 || r > 0x7E || r == '\\' }):
		return "has a character that URIs may not have"
	}
	switch u.Scheme {
	case "https", "http":
		if _, ok := secureURL(uri); !ok {
			return "must be https with a host name, or http on loopback"
		}
	default:
		// Private-use schemes are reversed domain names (RFC 8252, 7.1), which
		// keeps javascript:, data: and the like out.
		if !strings.Contains(u.Scheme, ".") {
			return "must be https, http on loopback, or have a private scheme such as com.example.app"
		}
	}
	return ""
}

// declaredScope reports a scope that the authorization server does not know.
func (c *checker) declaredScope(scope *string, owner Pos, a *AuthServer) bool {
	if _, ok := a.Scopes[*scope]; ok || slices.Contains(standardScopes, *scope) || c.broken(scope) || c.broken(&a.Scopes) {
		return true
	}
	names := slices.Collect(maps.Keys(a.Scopes))
	c.suggest(c.at(scope, owner), nearest(*scope, append(slices.Clone(standardScopes), names...)),
		"unknown scope %q; declared: %s", *scope, declared(names))
	return false
}

func (c *checker) user(u *User) {
	password, hash := u.Password != "", u.PasswordHash != ""
	switch {
	case c.broken(&u.Password) || c.broken(&u.PasswordHash):
	case password && hash:
		c.report(c.at(&u.Password, u.Pos), "the user %q has password and password_hash; keep the hash", u.Name)
	case password:
		c.warn(c.at(&u.Password, u.Pos), "the user %q has a password in clear text; password_hash is safer", u.Name)
	case !hash:
		c.report(u.Pos, "the user %q needs password_hash", u.Name)
	case !argon2idHash(u.PasswordHash.Reveal()):
		c.report(c.at(&u.PasswordHash, u.Pos), "password_hash is not argon2id in PHC form: $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")
	}
	if u.Email != "" && !strings.Contains(u.Email, "@") {
		c.report(c.at(&u.Email, u.Pos), "email: %q is not an address", u.Email)
	}
}

func argon2idHash(hash string) bool {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v=19" {
		return false
	}
	var memory, time, lanes uint32
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &time, &lanes); n != 3 || err != nil || time == 0 || lanes == 0 {
		return false
	}
	salt, saltErr := base64.RawStdEncoding.DecodeString(parts[4])
	sum, sumErr := base64.RawStdEncoding.DecodeString(parts[5])
	return saltErr == nil && sumErr == nil && len(salt) >= 8 && len(sum) >= 16
}

var (
	algorithms = []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
	symmetric = []string{"HS256", "HS384", "HS512", "none"}
)

func (c *checker) issuers() {
	seen := map[string]Pos{}
	if a := c.file.AuthServer; a != nil && a.Issuer != "" {
		seen[a.Issuer] = c.at(&a.Issuer, a.Pos)
	}
	for i := range c.file.Issuers {
		issuer := &c.file.Issuers[i]
		if c.broken(issuer) {
			continue
		}
		if c.required(&issuer.Issuer, "issuer", issuer.Pos) {
			c.unique(seen, "issuer", &issuer.Issuer, issuer.Pos)
			if _, ok := secureURL(issuer.Issuer); !ok {
				c.report(c.at(&issuer.Issuer, issuer.Pos), "issuer: %q is not an https URL (http is allowed on loopback only)", issuer.Issuer)
			}
		}
		if issuer.JWKSURI != "" {
			if _, ok := secureURL(issuer.JWKSURI); !ok {
				c.report(c.at(&issuer.JWKSURI, issuer.Pos), "jwks_uri is not an https URL (http is allowed on loopback only)")
			}
		}
		if len(issuer.Audiences) == 0 && !c.broken(&issuer.Audiences) {
			c.report(c.at(&issuer.Audiences, issuer.Pos), "audiences is missing: a token of another issuer is accepted only where it was meant for this gateway")
		}
		if len(issuer.Algorithms) == 0 && !c.broken(&issuer.Algorithms) {
			c.report(c.at(&issuer.Algorithms, issuer.Pos), "algorithms: an empty list accepts nothing")
		}
		for j := range issuer.Algorithms {
			algorithm := &issuer.Algorithms[j]
			if slices.Contains(symmetric, *algorithm) {
				c.report(c.at(algorithm, issuer.Pos), "algorithms: %s is never accepted: whoever can verify such a token can make one", *algorithm)
				continue
			}
			c.oneOf(algorithm, "algorithms", issuer.Pos, algorithms...)
		}
	}
}
