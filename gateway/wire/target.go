package wire

import "bytes"

// Target is a request target split into its parts (RFC 9112, 3.2), all lent.
type Target struct {
	// Authority is the authority of an absolute-form target, else nil.
	Authority []byte
	Path      []byte
	Query     []byte
	HasQuery  bool
	// Asterisk is "OPTIONS *".
	Asterisk bool
}

// SplitTarget takes a request target apart. Only origin-form, http and https
// absolute-form and "*" are accepted (EDGE: S20, S22, S25); CONNECT's
// authority-form is refused before.
func SplitTarget(raw []byte) (t Target, ok bool) {
	if len(raw) == 1 && raw[0] == '*' {
		return Target{Asterisk: true}, true
	}
	for _, c := range raw {
		if c <= ' ' || c == '#' || c == '\\' || c >= 0x7f {
			return t, false
		}
	}
	if len(raw) == 0 {
		return t, false
	}
	if raw[0] != '/' {
		scheme := bytes.Index(raw, []byte("://"))
		if scheme < 0 || !EqualFold(raw[:scheme], "http") && !EqualFold(raw[:scheme], "https") {
			return t, false
		}
		rest := raw[scheme+3:]
		end := bytes.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if t.Authority, raw = rest[:end], rest[end:]; len(t.Authority) == 0 {
			return t, false
		}
	}
	if q := bytes.IndexByte(raw, '?'); q >= 0 {
		t.Path, t.Query, t.HasQuery = raw[:q], raw[q+1:], true
	} else {
		t.Path = raw
	}
	if len(t.Path) == 0 {
		t.Path = []byte("/")
	}
	return t, true
}
