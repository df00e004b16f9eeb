package routes

import (
	"bytes"
	"net/netip"
	"unsafe"
)

// maxHost is the length of the longest name of DNS in its text form.
const maxHost = 253

// hostByte maps the bytes of a host name to their lower case, all others to 0.
var hostByte = func() (t [256]byte) {
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = c, c
	}
	for c := byte('0'); c <= '9'; c++ {
		t[c] = c
	}
	t['-'], t['_'], t['.'] = '-', '_', '.'
	return t
}()

// CanonicalHost splits the value of a Host field into host and port. The host
// is in lower case, without a final dot; an IPv6 literal keeps its brackets and
// is written in the form of RFC 5952. port is empty where there is none.
//
// It refuses (false) an empty host, user information, empty labels, ports
// outside 1…65535 and every byte that is not of a name: letters, digits,
// '-', '_', '.'. An internationalised name must come in its ASCII form.
//
// host is a part of raw, not copied, where that is canonical already; otherwise
// it is appended to dst[:0], which must not overlap raw. It does not allocate
// when dst has len(raw) of room. port is a part of raw.
func CanonicalHost(dst, raw []byte) (host, port []byte, ok bool) {
	if len(raw) > 0 && raw[0] == '[' {
		return literalHost(dst[:0], raw)
	}
	name, port, hasPort := bytes.Cut(raw, []byte{':'})
	if hasPort && !validPort(port) {
		return nil, nil, false
	}
	if n := len(name); n > 1 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if len(name) == 0 || len(name) > maxHost || name[0] == '.' || name[len(name)-1] == '.' {
		return nil, nil, false
	}
	lower := true
	for i, c := range name {
		l := hostByte[c]
		if l == 0 || l == '.' && name[i-1] == '.' {
			return nil, nil, false
		}
		lower = lower && l == c
	}
	if lower {
		return name, port, true
	}
	dst = dst[:0]
	for _, c := range name {
		dst = append(dst, hostByte[c])
	}
	return dst, port, true
}

// literalHost is CanonicalHost of "[::1]:8080".
func literalHost(dst, raw []byte) (host, port []byte, ok bool) {
	end := bytes.IndexByte(raw, ']')
	if end < 3 || bytes.IndexByte(raw[:end], '%') >= 0 {
		return nil, nil, false
	}
	// The string lives only during this call, so it may share raw's bytes:
	// a copy would be an allocation per request.
	addr, err := netip.ParseAddr(unsafe.String(&raw[1], end-1))
	if err != nil || !addr.Is6() {
		return nil, nil, false
	}
	if rest := raw[end+1:]; len(rest) > 0 {
		if rest[0] != ':' || !validPort(rest[1:]) {
			return nil, nil, false
		}
		port = rest[1:]
	}
	dst = append(dst, '[')
	dst = addr.AppendTo(dst)
	return append(dst, ']'), port, true
}

func validPort(p []byte) bool {
	if len(p) == 0 || len(p) > 5 {
		return false
	}
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n >= 1 && n <= 65535
}
