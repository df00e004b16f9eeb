package cors

import (
	"bytes"
	"fmt"
	"net/url"
	"strings"
)

// Origin is one allowed origin: scheme and host, with a port or not; with a
// wildcard for everything below a name; or "*".
type Origin struct {
	any bool
	// exact is the whole origin. Where it is empty, prefix and suffix stand
	// around at least one label.
	exact, prefix, suffix string
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Origin) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "*" {
		*o = Origin{any: true}
		return nil
	}
	if s == "null" {
		return fmt.Errorf("null is the origin of every page in a sandbox; it cannot be allowed")
	}
	plain := strings.Replace(s, "://*.", "://", 1)
	u, err := url.Parse(plain)
	if err != nil || u.Host == "" || u.Scheme == "" || u.Scheme+"://"+u.Host != plain || u.User != nil ||
		strings.ToLower(plain) != plain || strings.ContainsAny(plain, "*?#\\ ") {
		return fmt.Errorf("%q is not an origin such as https://app.example.com or https://*.example.com, in lower case and without a path", s)
	}
	if u.Scheme == "https" && u.Port() == "443" || u.Scheme == "http" && u.Port() == "80" {
		return fmt.Errorf("%q: browsers leave the usual port out; so do it here", s)
	}
	if plain == s {
		*o = Origin{exact: s}
		return nil
	}
	if strings.Count(u.Hostname(), ".") == 0 {
		return fmt.Errorf("%q allows a whole top-level domain", s)
	}
	*o = Origin{prefix: u.Scheme + "://", suffix: "." + u.Host}
	return nil
}

// matches compares bytes: browsers write origins in one form only.
func (o *Origin) matches(origin []byte) bool {
	if o.exact != "" {
		return string(origin) == o.exact
	}
	n := len(origin) - len(o.prefix) - len(o.suffix)
	if o.any || n < 1 || !bytes.HasPrefix(origin, []byte(o.prefix)) || !bytes.HasSuffix(origin, []byte(o.suffix)) {
		return o.any
	}
	// What stands for the wildcard is a name: nothing in it can end the host.
	for _, c := range origin[len(o.prefix) : len(o.prefix)+n] {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.') {
			return false
		}
	}
	return true
}

// Word is a method or the name of a field, or "*".
type Word string

// UnmarshalText implements encoding.TextUnmarshaler.
func (w *Word) UnmarshalText(text []byte) error {
	if !isName(text) {
		return fmt.Errorf("%q is not a name", text)
	}
	*w = Word(text)
	return nil
}

// isName reports whether b is a token (RFC 9110, 5.6.2).
func isName(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c > '~' || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return len(b) > 0
}
