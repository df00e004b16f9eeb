package routes

import "bytes"

// Classes of bytes in a raw path.
const (
	refused    uint8 = 0            // never in a path: controls, space, #, ?, \, 0x7F–0xFF
	special    uint8 = 1            // '/', '.', '%' and ';': the scanner looks closer
	ordinary   uint8 = 2            // flag: stands for itself
	reserved         = ordinary     // %XX of it stays escaped
	unreserved       = ordinary | 4 // %XX of it is the same (RFC 3986, 2.3)
)

var pathClass = func() (t [256]uint8) {
	for c := byte('!'); c < 0x7F; c++ {
		t[c] = reserved
	}
	for c := byte('a'); c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = unreserved, unreserved
	}
	for c := byte('0'); c <= '9'; c++ {
		t[c] = unreserved
	}
	t['-'], t['_'], t['~'] = unreserved, unreserved, unreserved
	t['/'], t['.'], t['%'], t[';'] = special, special, special, special
	t['#'], t['?'], t['\\'] = refused, refused, refused
	return t
}()

const upperHex = "0123456789ABCDEF"

// hexValue is the value of a hexadecimal digit, 0xFF for any other byte.
var hexValue = func() (t [256]uint8) {
	for i := range t {
		t[i] = 0xFF
	}
	for i := range uint8(16) {
		t[upperHex[i]] = i
		if i >= 10 {
			t[upperHex[i]-'A'+'a'] = i
		}
	}
	return t
}()

// CanonicalPath returns the one form of a raw path (no query) in which it is
// routed, authorised, limited and forwarded. It decodes escapes of unreserved
// characters, writes the hexadecimal digits of all others in upper case, and
// only then merges slashes and removes dot segments; so %2e%2e is "..".
//
// It refuses (false) what servers read in different ways: a path that does not
// start with '/', controls, space, '#', '?', '\', bytes from 0x7F on, broken
// escapes, and the escapes %00 %23 %25 %2F %3B %3F %5C and of other controls.
// allowEncodedSlash admits %2F, but not where the backend's decoding it would
// make a dot segment ("..%2F"). A raw ';' is an ordinary character: it never
// ends a segment, and "..;x" is refused because some servers cut it to "..".
//
// The result is raw itself, not copied, where it is canonical already;
// otherwise it is appended to dst[:0], which must not overlap raw. It does not
// allocate when dst has len(raw) of room.
func CanonicalPath(dst, raw []byte, allowEncodedSlash bool) (path []byte, ok bool) {
	if len(raw) == 0 || raw[0] != '/' {
		return nil, false
	}
	canonical, ok := scanPath(raw, allowEncodedSlash)
	if !ok || canonical {
		return raw, ok
	}
	return rewritePath(dst[:0], raw, allowEncodedSlash)
}

// EncodedSlash reports whether a canonical path holds %2F, which only routes
// with AllowEncodedSlash may see.
func EncodedSlash(path []byte) bool { return bytes.Contains(path, encodedSlash) }

var (
	encodedSlash = []byte("%2F")
	semicolon    = []byte(";")
)

// scanPath reports whether raw is canonical as it is. ok is false when it has
// to be refused; true with canonical false means that only rewritePath knows.
func scanPath(raw []byte, allowEncodedSlash bool) (canonical, ok bool) {
	for i := 1; i < len(raw); i++ {
		c := raw[i]
		switch class := pathClass[c]; {
		case class&ordinary != 0:
			continue
		case class == refused:
			return false, false
		}
		switch c {
		case ';': // whether a dot segment stands before it is for rewritePath
			return false, true
		case '/':
			if raw[i-1] == '/' {
				return false, true
			}
		case '.':
			if raw[i-1] == '/' && dotSegment(raw[i:]) {
				return false, true
			}
		case '%':
			c, ok := unescape(raw[i:])
			if !ok || !mayEscape(c, allowEncodedSlash) {
				return false, false
			}
			if pathClass[c] == unreserved || c == '.' || c == '/' || raw[i+1] >= 'a' || raw[i+2] >= 'a' {
				return false, true
			}
			i += 2
		}
	}
	return true, true
}

// dotSegment reports whether s starts with "." or ".." as a whole segment.
func dotSegment(s []byte) bool {
	if len(s) > 1 && s[1] == '.' {
		s = s[1:]
	}
	return len(s) == 1 || s[1] == '/'
}

// unescape reads %XX at the start of s.
func unescape(s []byte) (c byte, ok bool) {
	if len(s) < 3 {
		return 0, false
	}
	hi, lo := hexValue[s[1]], hexValue[s[2]]
	return hi<<4 | lo&0x0F, hi < 16 && lo < 16
}

// mayEscape reports whether %XX of c may stand in a path.
func mayEscape(c byte, allowEncodedSlash bool) bool {
	switch {
	case c < 0x20 || c == 0x7F:
		return false
	case c == '#' || c == '%' || c == ';' || c == '?' || c == '\\':
		return false
	case c == '/':
		return allowEncodedSlash
	}
	return true
}

// rewritePath appends the canonical form of raw to out.
func rewritePath(out, raw []byte, allowEncodedSlash bool) ([]byte, bool) {
	for i := 0; i < len(raw); {
		for i < len(raw) && raw[i] == '/' {
			i++
		}
		start := len(out)
		out = append(out, '/')
		for i < len(raw) && raw[i] != '/' {
			c := raw[i]
			if c != '%' {
				if pathClass[c] == refused {
					return nil, false
				}
				out = append(out, c)
				i++
				continue
			}
			c, ok := unescape(raw[i:])
			if !ok || !mayEscape(c, allowEncodedSlash) {
				return nil, false
			}
			if pathClass[c] == unreserved || c == '.' {
				out = append(out, c)
			} else {
				out = append(out, '%', upperHex[c>>4], upperHex[c&0x0F])
			}
			i += 3
		}
		switch segment := out[start+1:]; {
		case len(segment) == 1 && segment[0] == '.':
			out = out[:start]
		case len(segment) == 2 && segment[0] == '.' && segment[1] == '.':
			out = out[:max(0, bytes.LastIndexByte(out[:start], '/'))]
		case hiddenDots(segment):
			return nil, false
		}
	}
	if len(out) == 0 {
		out = append(out, '/')
	}
	return out, true
}

// hiddenDots reports whether a backend that decodes %2F, or cuts a segment at
// ';', would find a dot segment in it: "..%2Fadmin", "..;x". The segment itself
// is none.
func hiddenDots(segment []byte) bool {
	for more := true; more; {
		var piece []byte
		piece, segment, more = bytes.Cut(segment, encodedSlash)
		name, _, _ := bytes.Cut(piece, semicolon)
		if string(name) == "." || string(name) == ".." {
			return true
		}
	}
	return false
}
