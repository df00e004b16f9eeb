package routes

import (
	"fmt"
	"strings"
)

// segmentKind is how one segment of a path pattern matches.
type segmentKind uint8

const (
	literal segmentKind = iota // exactly its text
	named                      // {id}: one segment, not empty
	star                       // *: one segment, not empty
)

type segment struct {
	kind segmentKind
	text string // of a literal
}

// pattern is a parsed path: its segments, and whether "/**" follows.
type pattern struct {
	segments []segment
	tail     bool
}

// parsePattern reads a path pattern. The error says what to write instead.
func parsePattern(path string) (pattern, error) {
	var p pattern
	if !strings.HasPrefix(path, "/") {
		return p, fmt.Errorf("path %q must start with /", path)
	}
	canonical, ok := CanonicalPath(make([]byte, 0, len(path)), []byte(path), true)
	if !ok {
		return p, fmt.Errorf("path %q holds a character or an escape that no request may hold", path)
	}
	if string(canonical) != path {
		return p, fmt.Errorf("path %q is not canonical and would never match; write %q", path, canonical)
	}
	rest := path[1:]
	if path == "/**" {
		return pattern{tail: true}, nil
	}
	if prefix, ok := strings.CutSuffix(rest, "/**"); ok {
		rest, p.tail = prefix, true
	}
	names := map[string]bool{}
	for text := range strings.SplitSeq(rest, "/") {
		s, name, err := parseSegment(text)
		if err != nil {
			return p, fmt.Errorf("path %q: %w", path, err)
		}
		if name != "" && names[name] {
			return p, fmt.Errorf("path %q: the parameter {%s} stands there twice", path, name)
		}
		names[name] = true
		p.segments = append(p.segments, s)
	}
	return p, nil
}

func parseSegment(text string) (s segment, name string, err error) {
	switch {
	case text == "*":
		return segment{kind: star}, "", nil
	case text == "**":
		return s, "", fmt.Errorf("** may only be the last segment")
	case strings.HasPrefix(text, "{") && strings.HasSuffix(text, "}"):
		name = text[1 : len(text)-1]
		if !validParameter(name) {
			return s, "", fmt.Errorf("%s is not a parameter; write {name} with letters, digits and _", text)
		}
		return segment{kind: named}, name, nil
	case strings.ContainsAny(text, "{}*"):
		return s, "", fmt.Errorf("%q: {name}, * and ** match whole segments only", text)
	}
	return segment{text: text}, "", nil
}

func validParameter(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// parseHost reads a host pattern: a name, or "*." and a name.
func parseHost(host string) (name string, wildcard bool, err error) {
	name, wildcard = strings.CutPrefix(host, "*.")
	canonical, port, ok := CanonicalHost(make([]byte, 0, len(name)+1), []byte(name))
	switch {
	case !ok && strings.Contains(host, "*"):
		return "", false, fmt.Errorf("host %q: a wildcard is the whole first label: *.example.com", host)
	case !ok || wildcard && strings.HasPrefix(name, "["):
		return "", false, fmt.Errorf("host %q is not a host name", host)
	case len(port) > 0:
		return "", false, fmt.Errorf("host %q: a port cannot be matched; leave it out", host)
	case string(canonical) != name:
		return "", false, fmt.Errorf("host %q must be written %q", host, host[:len(host)-len(name)]+string(canonical))
	}
	return name, wildcard, nil
}

// validMethod reports whether m is a token in upper case (RFC 9110, 9.1).
// CONNECT is refused by the gateway before routing, so no route may have it.
func validMethod(m string) error {
	upper := strings.ToUpper(m)
	switch {
	case m == "" || strings.Trim(upper, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "":
		return fmt.Errorf("method %q is not a method", m)
	case upper != m:
		return fmt.Errorf("method %q must be in upper case", m)
	case m == "CONNECT":
		return fmt.Errorf("method CONNECT is never routed")
	}
	return nil
}

// relation is how the sets of requests of two patterns lie to each other.
type relation uint8

const (
	disjoint relation = iota
	equal
	narrower // the first is a proper part of the second
	wider
	crossing
)

func (r relation) and(s relation) relation {
	switch {
	case r == disjoint || s == disjoint:
		return disjoint
	case r == equal:
		return s
	case s == equal || r == s:
		return r
	}
	return crossing
}

// relate compares the sets of paths of two patterns; {id} and * are the same.
func (p pattern) relate(q pattern) relation {
	r := equal
	n := min(len(p.segments), len(q.segments))
	for i := range n {
		r = r.and(p.segments[i].relate(q.segments[i]))
	}
	switch {
	case len(p.segments) == len(q.segments):
		if p.tail != q.tail {
			if p.tail {
				return r.and(wider)
			}
			return r.and(narrower)
		}
		return r
	case len(p.segments) > n && q.tail:
		return r.and(narrower)
	case len(q.segments) > n && p.tail:
		return r.and(wider)
	}
	return disjoint
}

func (s segment) relate(t segment) relation {
	switch {
	case s.kind == literal && t.kind == literal:
		if s.text == t.text {
			return equal
		}
		return disjoint
	case s.kind == literal:
		if s.text == "" { // a wildcard does not match an empty segment
			return disjoint
		}
		return narrower
	case t.kind == literal:
		if t.text == "" {
			return disjoint
		}
		return wider
	}
	return equal
}

// prefers orders patterns with the same set of paths: {id} before *.
func (p pattern) prefers(q pattern) int {
	for i := range p.segments {
		if d := int(p.segments[i].kind) - int(q.segments[i].kind); d != 0 {
			return d
		}
	}
	return 0
}

// example is a path that both match; they must not be disjoint.
func (p pattern) example(q pattern) string {
	var b strings.Builder
	for i := range max(len(p.segments), len(q.segments)) {
		text := "x"
		for _, r := range []pattern{p, q} {
			if i < len(r.segments) && r.segments[i].kind == literal {
				text = r.segments[i].text
			}
		}
		b.WriteString("/" + text)
	}
	if b.Len() == 0 {
		return "/"
	}
	return b.String()
}
