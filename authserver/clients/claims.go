package clients

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Sources of claims. There is none for names, addresses and the like: they are
// userinfo's, and never in an access token.
const (
	ClaimRoles       = "user.roles"
	ClaimGroups      = "user.groups"
	ClaimPermissions = "user.permissions"
)

var claimSources = []string{ClaimRoles, ClaimGroups, ClaimPermissions}

// reservedClaims have a meaning of their own in tokens (RFC 7519, RFC 9068,
// OpenID Connect Core), or say something about a person.
var reservedClaims = []string{
	"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "sid", "grant", "acr", "amr", "auth_time", "cnf", "act", "may_act",
	"azp", "nonce", "at_hash", "c_hash", "s_hash", "typ", "events", "name", "given_name", "family_name", "middle_name", "nickname",
	"preferred_username", "profile", "picture", "website", "email", "email_verified", "gender", "birthdate", "zoneinfo", "locale",
	"phone_number", "phone_number_verified", "address", "updated_at", "username", "password",
}

// CheckClaims reports what is wrong with the rules which claims a client's
// access tokens have besides the standard ones.
func CheckClaims(rules map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		source := rules[name]
		switch {
		case slices.Contains(reservedClaims, name):
			return fmt.Errorf("claims: %q has a meaning of its own", name)
		case name == "" || len(name) > 128 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }):
			return fmt.Errorf("claims: %q cannot be the name of a claim", name)
		case !slices.Contains(claimSources, source):
			return fmt.Errorf("claims: %q comes from %q, but there are only %s", name, source, strings.Join(claimSources, ", "))
		}
	}
	return nil
}
