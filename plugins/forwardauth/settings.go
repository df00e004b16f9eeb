package forwardauth

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// URL is where questions go.
type URL url.URL

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *URL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	switch {
	case err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https":
		return errors.New("wants a URL such as http://127.0.0.1:9091/check")
	case parsed.User != nil || parsed.Fragment != "":
		return errors.New("the URL has user information or a fragment")
	}
	*u = URL(*parsed)
	return nil
}

// FieldName is the name of a field that may be asked with or taken over, in
// lower case.
type FieldName string

// UnmarshalText implements encoding.TextUnmarshaler.
func (n *FieldName) UnmarshalText(text []byte) error {
	lower := strings.ToLower(string(text))
	switch {
	case lower == "" || strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("%q is not a name of letters, digits and '-'", text)
	case strings.HasPrefix(lower, "x-auth-"), strings.HasPrefix(lower, "x-forwarded-"), private(lower), lower == "host", lower == "expect",
		lower == "x-request-id", lower == "x-real-ip", lower == "forwarded":
		return fmt.Errorf("%s is written by the gateway", text)
	}
	*n = FieldName(lower)
	return nil
}

func (n FieldName) is(name []byte) bool {
	return len(name) == len(n) && strings.EqualFold(string(name), string(n))
}

// folds compares names as services may read them, '_' and '.' as '-' (EDGE: S40).
func (n FieldName) folds(name []byte) bool {
	return len(name) == len(n) && strings.EqualFold(separators.Replace(string(name)), string(n))
}

var separators = strings.NewReplacer("_", "-", ".", "-")

// private reports fields of one connection and of framing, and those whose
// meaning ends with the answer.
func private(lower string) bool {
	switch lower {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
		"transfer-encoding", "upgrade", "http2-settings", "content-length", "date":
		return true
	}
	return strings.HasPrefix(lower, "x-auth-")
}
