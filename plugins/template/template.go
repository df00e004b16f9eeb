// Package template renders short texts with facts of a request in them, such as
// "{claim.tenant}".
//
// It owns the language: which placeholders there are, and that no value can end
// a header line. It does not own what the text is used for.
//
//	t, err := template.Parse("{client_ip}; tenant={claim.tenant}")
//	text, ok := t.Append(nil, x)
package template

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/plugins"
)

// Template is a parsed text. It is immutable; the zero Template is empty text.
type Template struct {
	parts []part
}

type part struct {
	text string // literal, where kind is 0
	kind kind
	name string // of a claim or header field
}

type kind uint8

const (
	literal kind = iota
	clientIP
	requestID
	host
	method
	path
	query
	uri
	scheme
	route
	subject
	clientID
	claim
	header
)

var words = map[string]kind{
	"client_ip": clientIP, "request_id": requestID, "host": host, "method": method, "path": path, "query": query,
	"uri": uri, "scheme": scheme, "route": route, "subject": subject, "client_id": clientID,
}

const known = "{client_ip}, {request_id}, {host}, {method}, {path}, {query}, {uri}, {scheme}, {route}, {subject}, {client_id}, {claim.NAME}, {header.NAME}"

// credentials are fields that no template may copy to where they could be read
// or stored.
var credentials = []string{"authorization", "proxy-authorization", "cookie"}

// Parse reads a text. "{{" stands for "{". Literal text is visible ASCII and
// spaces.
func Parse(text string) (*Template, error) {
	t := &Template{}
	for rest := text; rest != ""; {
		before, after, found := strings.Cut(rest, "{")
		if strings.ContainsFunc(before, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, fmt.Errorf("%q holds a character that is not visible ASCII", text)
		}
		t.literal(before)
		if !found {
			break
		}
		if escaped, ok := strings.CutPrefix(after, "{"); ok {
			t.literal("{")
			rest = escaped
			continue
		}
		name, after, closed := strings.Cut(after, "}")
		if !closed {
			return nil, fmt.Errorf("%q: a placeholder is not closed; write {{ for a brace", text)
		}
		p, err := placeholder(name)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		t.parts = append(t.parts, p)
		rest = after
	}
	return t, nil
}

func (t *Template) literal(text string) {
	if n := len(t.parts); n > 0 && t.parts[n-1].kind == literal {
		t.parts[n-1].text += text
	} else if text != "" {
		t.parts = append(t.parts, part{text: text})
	}
}

func placeholder(name string) (part, error) {
	if k, ok := words[name]; ok {
		return part{kind: k}, nil
	}
	if c, ok := strings.CutPrefix(name, "claim."); ok && c != "" {
		return part{kind: claim, name: c}, nil
	}
	h, ok := strings.CutPrefix(name, "header.")
	h = strings.ToLower(h)
	switch {
	case !ok || h == "":
		return part{}, fmt.Errorf("unknown placeholder {%s}; there are %s", name, known)
	case slices.Contains(credentials, h):
		return part{}, fmt.Errorf("{%s} would copy a credential", name)
	case strings.Trim(h, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return part{}, fmt.Errorf("{%s} is not a header field that reaches services", name)
	}
	return part{kind: header, name: h}, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Template) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err == nil {
		*t = *parsed
	}
	return err
}

// Fixed returns the text, and whether it is the same for all requests.
func (t *Template) Fixed() (text string, fixed bool) {
	switch {
	case len(t.parts) == 0:
		return "", true
	case len(t.parts) == 1 && t.parts[0].kind == literal:
		return t.parts[0].text, true
	}
	return "", false
}

// Claims are the names of the claims that the text asks for.
func (t *Template) Claims() (names []string) {
	for _, p := range t.parts {
		if p.kind == claim {
			names = append(names, p.name)
		}
	}
	return names
}

// NeedsCaller reports whether the text is about who calls, which is known only
// behind authorisation.
func (t *Template) NeedsCaller() bool {
	return slices.ContainsFunc(t.parts, func(p part) bool {
		return p.kind == claim || p.kind == subject || p.kind == clientID
	})
}

// UsesHeader reports whether the text holds what the client may choose freely.
func (t *Template) UsesHeader() bool {
	return slices.ContainsFunc(t.parts, func(p part) bool { return p.kind == header })
}

// Errors of Append.
var (
	// ErrAbsent: a claim, header field or the caller is not there.
	ErrAbsent = errors.New("a value of the text is not there")
	// ErrUnsafe: a value is not visible ASCII, or one of several has a comma,
	// so the outcome could mean something else to its reader (EDGE: S42).
	ErrUnsafe = errors.New("a value of the text is not safe in a header field")
)

// Append appends the text for x to b. With an error, what was appended has no
// meaning.
func (t *Template) Append(b []byte, x *plugins.Exchange) ([]byte, error) {
	var err error
	for i := range t.parts {
		p := &t.parts[i]
		if p.kind == literal {
			b = append(b, p.text...)
			continue
		}
		start := len(b)
		if b, err = p.append(b, x); err != nil {
			return b, err
		}
		for _, c := range b[start:] {
			if c < ' ' || c > '~' {
				return b, ErrUnsafe
			}
		}
	}
	return b, nil
}

func (p *part) append(b []byte, x *plugins.Exchange) ([]byte, error) {
	switch p.kind {
	case clientIP:
		return x.ClientIP.AppendTo(b), nil
	case requestID:
		return append(b, x.RequestID...), nil
	case host:
		return append(b, x.Host...), nil
	case method:
		return append(b, x.Method...), nil
	case path:
		return append(b, x.Path...), nil
	case query:
		return append(b, x.Query...), nil
	case uri:
		b = append(b, x.Path...)
		if x.HasQuery {
			b = append(append(b, '?'), x.Query...)
		}
		return b, nil
	case scheme:
		if x.TLS {
			return append(b, "https"...), nil
		}
		return append(b, "http"...), nil
	case route:
		return append(b, x.Route.Name...), nil
	case header:
		return appendHeader(b, x, p.name)
	}
	if x.Principal == nil {
		return b, ErrAbsent
	}
	switch p.kind {
	case subject:
		return appendValues(b, x.Principal.Subject)
	case clientID:
		return appendValues(b, x.Principal.ClientID)
	}
	return appendValues(b, x.Principal.Claim(p.name)...)
}

// appendValues joins the values of a claim.
func appendValues(b []byte, values ...string) ([]byte, error) {
	absent := true
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		if len(values) > 1 && strings.Contains(v, ",") {
			return b, ErrUnsafe
		}
		absent = absent && v == ""
		b = append(b, v...)
	}
	if absent {
		return b, ErrAbsent
	}
	return b, nil
}

// appendHeader joins the fields of a name that would reach the service.
func appendHeader(b []byte, x *plugins.Exchange, name string) ([]byte, error) {
	found := false
	for i := range x.Fields {
		f := &x.Fields[i]
		if f.Drop || len(f.Name) != len(name) || !bytes.EqualFold(f.Name, []byte(name)) {
			continue
		}
		if found {
			b = append(b, ", "...)
		}
		found = true
		b = append(b, f.Value...)
	}
	if !found {
		return b, ErrAbsent
	}
	return b, nil
}
