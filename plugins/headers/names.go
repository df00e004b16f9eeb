package headers

import (
	"slices"
	"strings"
)

// connection are fields of one connection or of the message's framing: what
// rests on them was decided before a step runs.
var connection = []string{
	"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
	"transfer-encoding", "upgrade", "http2-settings", "content-length", "host", "expect",
}

// trust are fields that tell a service about the client, by the trust rules.
var trust = []string{
	"forwarded", "x-real-ip", "x-request-id", "traceparent", "tracestate", "x-original-url", "x-rewrite-url",
	"x-http-method-override", "x-http-method", "x-method-override", "client-cert", "client-cert-chain",
}

// forbiddenInRequests says why a name may not be touched, empty if it may.
func forbiddenInRequests(folded string) string {
	switch {
	case strings.HasPrefix(folded, "x-auth-"):
		return "tells the service who calls; only the gateway writes it"
	case slices.Contains(connection, folded):
		return "belongs to the connection or the framing of the message"
	case slices.Contains(trust, folded), strings.HasPrefix(folded, "x-forwarded-"):
		return "is written by the rules of forwarding; see trusted_proxies"
	}
	return ""
}

func forbiddenInResponses(folded string) string {
	switch {
	case slices.Contains(connection, folded):
		return "belongs to the connection or the framing of the message"
	case strings.HasPrefix(folded, "x-auth-"):
		return "would tell clients what services are told"
	case strings.HasPrefix(folded, "access-control-"):
		return "is what cors: is for"
	case folded == "date":
		return "is the server's"
	}
	return ""
}

// invalidName says what is wrong with a name, empty for nothing. In requests
// only one spelling of a name is safe: services may read '_' and '.' as '-'.
func invalidName(name string, request bool) string {
	others := "_.!#$%&'*+^`|~"
	if request {
		others = ""
	}
	if name == "" || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-"+others) != "" {
		if request {
			return "is not a name of letters, digits and '-'"
		}
		return "is not the name of a field"
	}
	return ""
}

// fold is the form in which names are compared.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '.' {
			return '-'
		}
		return r
	}, strings.ToLower(name))
}

func foldedEqual(name []byte, folded string) bool {
	if len(name) != len(folded) {
		return false
	}
	for i := range name {
		c := name[i]
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case c == '_' || c == '.':
			c = '-'
		}
		if c != folded[i] {
			return false
		}
	}
	return true
}
