package routes

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// KeyHash is the SHA-256 of a key, in the file as 64 hexadecimal digits.
type KeyHash [32]byte

// UnmarshalText implements encoding.TextUnmarshaler. The error does not hold
// the text: it could be a key.
func (h *KeyHash) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(h) {
		return fmt.Errorf("the SHA-256 of a key is 64 hexadecimal digits, as `printf %%s \"$KEY\" | sha256sum` prints them")
	}
	copy(h[:], raw)
	return nil
}

// apiKeys checks the named sets.
func (c *checker) apiKeys() {
	for _, name := range slices.Sorted(maps.Keys(c.file.APIKeys)) {
		c.validName(keyPos(c, &c.file.APIKeys, name), "api_keys", name)
		seen := map[KeyHash]Pos{}
		for _, key := range c.file.APIKeys[name] {
			c.apiKey(key, seen)
		}
	}
}

func (c *checker) apiKey(key *APIKey, seen map[KeyHash]Pos) {
	if c.required(&key.Owner, "owner", key.Pos) && !visible(key.Owner) {
		c.report(c.at(&key.Owner, key.Pos), "owner: %q may have visible ASCII characters only", key.Owner)
	}
	if c.written(&key.ClientID) && !visible(key.ClientID) && !c.broken(&key.ClientID) {
		c.report(c.at(&key.ClientID, key.Pos), "client_id: %q may have visible ASCII characters only", key.ClientID)
	}
	if key.ClientID == "" {
		key.ClientID = key.Owner
	}
	for i := range key.Scopes {
		if !scopeToken(key.Scopes[i]) && !c.broken(&key.Scopes[i]) {
			c.report(c.at(&key.Scopes[i], key.Pos), "the scope %q holds a character that scopes may not have (RFC 6749, 3.3)", key.Scopes[i])
		}
	}
	switch {
	case c.broken(&key.SHA256):
	case !c.written(&key.SHA256):
		c.report(key.Pos, "sha256 is missing")
	default:
		pos := c.at(&key.SHA256, key.Pos)
		if first, twice := seen[key.SHA256]; twice {
			c.report(pos, "the same key is there twice, first at %v", first)
			return
		}
		seen[key.SHA256] = pos
	}
}

// visible reports whether s is visible ASCII, at least one and at most 255
// characters.
func visible(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r < 0x21 || r > 0x7E })
}

// routeAPIKey resolves the sets of a route.
func (c *checker) routeAPIKey(r *Route) {
	k := r.APIKey
	if k == nil || c.broken(&r.APIKey) {
		return
	}
	if len(k.Keys) == 0 && !c.broken(&k.Keys) {
		c.report(k.Pos, "api_key: keys is missing: names of sets under api_keys")
	}
	for i := range k.Keys {
		set, known := c.file.APIKeys[k.Keys[i]]
		if !known && !c.broken(&k.Keys[i]) && !c.broken(&c.file.APIKeys) {
			names := slices.Collect(maps.Keys(c.file.APIKeys))
			c.suggest(c.at(&k.Keys[i], k.Pos), nearest(k.Keys[i], names), "unknown set of keys %q; declared: %s", k.Keys[i], declared(names))
		}
		for _, key := range set {
			if slices.ContainsFunc(k.Accepted, func(other *APIKey) bool { return other.SHA256 == key.SHA256 }) {
				c.report(c.at(&k.Keys[i], k.Pos), "a key of %q is in another set of this route too", k.Keys[i])
			}
		}
		k.Accepted = append(k.Accepted, set...)
	}
	for i := range k.Scopes {
		if !scopeToken(k.Scopes[i]) && !c.broken(&k.Scopes[i]) {
			c.report(c.at(&k.Scopes[i], k.Pos), "the scope %q holds a character that scopes may not have (RFC 6749, 3.3)", k.Scopes[i])
		}
	}
	if k.Header != "" && !c.broken(&k.Header) {
		c.fieldName(&k.Header, "header", k.Pos)
	}
	switch {
	case c.broken(&k.Query) || !c.written(&k.Query):
	case c.written(&k.Header):
		c.report(c.at(&k.Query, k.Pos), "api_key: has header and query; keep one")
	case strings.Trim(k.Query, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" || k.Query == "":
		c.report(c.at(&k.Query, k.Pos), "query: %q may have letters, digits, '-', '_' and '.' only", k.Query)
	}
}

// fieldName checks the name of a request field that callers send. Names that
// the gate removes could never arrive.
func (c *checker) fieldName(name *string, key string, owner Pos) {
	lower := strings.ToLower(*name)
	switch {
	case lower == "" || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		c.report(c.at(name, owner), "%s: %q is not a name of letters, digits and '-'", key, *name)
	case strings.HasPrefix(lower, "x-auth-") || strings.HasPrefix(lower, "x-forwarded-") || lower == "authorization" || lower == "cookie" || lower == "host":
		c.report(c.at(name, owner), "%s: %s has a meaning of its own", key, *name)
	}
}
