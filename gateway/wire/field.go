// Package wire reads HTTP/1.1 heads strictly: one pass over the raw bytes
// validates, classifies and marks what must not travel further.
//
// It owns the grammar (RFC 9110, 5; RFC 9112) and the hop-by-hop and identity
// rules that hold in both directions. It does not own sockets, bodies, or what
// a violation is answered with.
//
//	var head wire.Request
//	err := wire.ScanRequest(raw, &head, fields[:0], 100)
package wire

import "bytes"

// Field IDs of names that the gateway treats specially; 0 is any other name.
const (
	Other uint8 = iota
	Authorization
	ClientCert // Client-Cert and Client-Cert-Chain (RFC 9440) in any spelling
	Connection
	ContentLength
	ContentType
	Cookie
	Date
	Expect
	Forwarded
	Host
	HTTP2Settings
	KeepAlive
	MethodOverride // X-HTTP-Method-Override and X-HTTP-Method, X-Method-Override
	OriginalURL    // X-Original-URL, X-Rewrite-URL
	ProxyAuthenticate
	ProxyAuthorization
	ProxyConnection
	RealIP
	RequestID
	TE
	Traceparent
	Tracestate
	Trailer
	TransferEncoding
	Upgrade
	Via
	XForwarded // X-Forwarded-* except For
	XForwardedFor
	Identity // X-Auth-* in any spelling
)

type known struct {
	name string
	id   uint8
}

// byLength finds the candidates for a name of a given length.
var byLength = func() (t [25][]known) {
	for _, k := range []known{
		{"authorization", Authorization}, {"connection", Connection}, {"content-length", ContentLength},
		{"content-type", ContentType}, {"cookie", Cookie}, {"date", Date}, {"expect", Expect},
		{"forwarded", Forwarded}, {"host", Host}, {"http2-settings", HTTP2Settings}, {"keep-alive", KeepAlive},
		{"x-http-method-override", MethodOverride}, {"x-http-method", MethodOverride}, {"x-method-override", MethodOverride},
		{"x-original-url", OriginalURL}, {"x-rewrite-url", OriginalURL},
		{"proxy-authenticate", ProxyAuthenticate}, {"proxy-authorization", ProxyAuthorization},
		{"proxy-connection", ProxyConnection}, {"x-real-ip", RealIP}, {"x-request-id", RequestID},
		{"te", TE}, {"traceparent", Traceparent}, {"tracestate", Tracestate},
		{"trailer", Trailer}, {"transfer-encoding", TransferEncoding}, {"upgrade", Upgrade},
		{"via", Via}, {"x-forwarded-for", XForwardedFor},
	} {
		t[len(k.name)] = append(t[len(k.name)], k)
	}
	return t
}()

// classify returns the ID of a valid field name. Names are compared without
// regard to case; for the names that a backend trusts, '_' and '.' count as
// '-' too, because servers behind us fold them (EDGE: S40).
func classify(name []byte) uint8 {
	if len(name) > 2 && name[0]|0x20 == 'x' {
		if hasFoldedPrefix(name, "x-auth-") {
			return Identity
		}
		if hasFoldedPrefix(name, "x-forwarded-") {
			if foldedEqual(name, "x-forwarded-for") {
				return XForwardedFor
			}
			return XForwarded
		}
		if len(name) < len(byLength) {
			for _, k := range byLength[len(name)] {
				if foldedEqual(name, k.name) {
					return k.id
				}
			}
		}
		return Other
	}
	if len(name) > 10 && name[0]|0x20 == 'c' && (foldedEqual(name, "client-cert") || foldedEqual(name, "client-cert-chain")) {
		return ClientCert
	}
	if len(name) < len(byLength) {
		for _, k := range byLength[len(name)] {
			if k.name[0] == name[0]|0x20 && EqualFold(name, k.name) {
				return k.id
			}
		}
	}
	return Other
}

// hopByHop reports whether a field belongs to one connection only (RFC 9110,
// 7.6.1) and is never forwarded.
func hopByHop(id uint8) bool {
	switch id {
	case Connection, KeepAlive, ProxyConnection, ProxyAuthenticate, ProxyAuthorization,
		TE, Trailer, TransferEncoding, Upgrade, HTTP2Settings:
		return true
	}
	return false
}

// EqualFold compares a name with its lower-case form.
func EqualFold(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := 0; i < len(lower); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

func foldByte(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c | 0x20
	case c == '_' || c == '.':
		return '-'
	}
	return c
}

func hasFoldedPrefix(name []byte, prefix string) bool {
	if len(name) < len(prefix) {
		return false
	}
	for i := 0; i < len(prefix); i++ {
		if foldByte(name[i]) != prefix[i] {
			return false
		}
	}
	return true
}

func foldedEqual(name []byte, lower string) bool {
	return len(name) == len(lower) && hasFoldedPrefix(name, lower)
}

// token is the set of tchar (RFC 9110, 5.6.2).
var token = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-0x20] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

// Token reports whether b is a token (RFC 9110, 5.6.2), as methods are.
func Token(b []byte) bool {
	ok, _ := validName(b)
	return ok
}

// ValidName reports whether name is a field name, and whether it holds '_'.
func validName(name []byte) (ok, underscore bool) {
	if len(name) == 0 {
		return false, false
	}
	for _, c := range name {
		if !token[c] {
			return false, false
		}
		if c == '_' {
			underscore = true
		}
	}
	return true, underscore
}

// validValue reports whether v holds no control character but HTAB.
// obs-text (0x80–0xFF) is allowed (EDGE: S12).
func validValue(v []byte) bool {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(v); i += 8 {
		w := uint64(v[i]) | uint64(v[i+1])<<8 | uint64(v[i+2])<<16 | uint64(v[i+3])<<24 |
			uint64(v[i+4])<<32 | uint64(v[i+5])<<40 | uint64(v[i+6])<<48 | uint64(v[i+7])<<56
		// A byte below 0x20 or equal to 0x7F sets its high bit; borrows can
		// only add false alarms, which the loop below settles.
		del := w ^ (ones * 0x7f)
		if ((w-ones*0x20)&^w|(del-ones)&^del)&high != 0 {
			for _, c := range v[i : i+8] {
				if c < 0x20 && c != '\t' || c == 0x7f {
					return false
				}
			}
		}
	}
	for _, c := range v[i:] {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func trimOWS(v []byte) []byte {
	for len(v) > 0 && (v[0] == ' ' || v[0] == '\t') {
		v = v[1:]
	}
	for n := len(v); n > 0 && (v[n-1] == ' ' || v[n-1] == '\t'); n = len(v) {
		v = v[:n-1]
	}
	return v
}

// EachToken calls f for each non-empty element of a comma separated list,
// trimmed; it stops when f returns false.
func EachToken(list []byte, f func(element []byte) bool) {
	for len(list) > 0 {
		i := bytes.IndexByte(list, ',')
		element := list
		if i >= 0 {
			element, list = list[:i], list[i+1:]
		} else {
			list = nil
		}
		if element = trimOWS(element); len(element) > 0 && !f(element) {
			return
		}
	}
}
