package web

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/oauth"
)

// MaxBody bounds a request's content.
const MaxBody = 64 << 10

// maxParameters bounds how many parameters a request may have.
const maxParameters = 64

// Form is the parameters of a request in their order. An empty value counts
// as absent (RFC 6749, 3.1), and still as one occurrence.
type Form []parameter

type parameter struct{ name, value string }

// ParseQuery reads application/x-www-form-urlencoded text.
func ParseQuery(raw string) (Form, error) {
	var f Form
	if raw != "" {
		f = make(Form, 0, 4)
	}
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		if len(f) == maxParameters {
			return nil, oauth.Refuse(oauth.InvalidRequest, "too many parameters")
		}
		name, value, _ := strings.Cut(pair, "=")
		name, err := unescape(name)
		if err == nil {
			value, err = unescape(value)
		}
		if err != nil {
			return nil, oauth.Refuse(oauth.InvalidRequest, "a parameter is not form-urlencoded")
		}
		f = append(f, parameter{name, value})
	}
	return f, nil
}

func unescape(s string) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	return url.QueryUnescape(s)
}

// ParseBody reads the form in the request's content. It refuses any other
// content type, more than MaxBody bytes, and, whatever the parameter, one that
// occurs twice (RFC 6749, 3.2); only `resource` (RFC 8707, 2) and `audience`
// (RFC 8693, 2.1) may.
func ParseBody(r *http.Request) (Form, error) {
	kind := r.Header.Get("Content-Type")
	if kind != "application/x-www-form-urlencoded" { // the parser is for everybody else
		media, _, err := mime.ParseMediaType(kind)
		if err != nil || media != "application/x-www-form-urlencoded" {
			return nil, &oauth.Error{
				Status: http.StatusUnsupportedMediaType, Code: oauth.InvalidRequest,
				Description: "the content type must be application/x-www-form-urlencoded",
			}
		}
	}
	body, err := ReadBody(r)
	if err != nil {
		return nil, err
	}
	f, err := ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	if f.Repeated() != "" {
		return nil, oauth.Refuse(oauth.InvalidRequest, "a parameter occurs more than once")
	}
	return f, nil
}

// ReadBody reads a request's content, of at most MaxBody bytes. Errors are ready
// for an answer.
func ReadBody(r *http.Request) ([]byte, error) {
	tooLarge := &oauth.Error{
		Status: http.StatusRequestEntityTooLarge, Code: oauth.InvalidRequest,
		Description: "the request is larger than 64 KiB",
	}
	if r.ContentLength > MaxBody {
		return nil, tooLarge
	}
	if n := r.ContentLength; n > 0 {
		body := make([]byte, n)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return nil, bodyError(err)
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return nil, bodyError(err)
	}
	if len(body) > MaxBody {
		return nil, tooLarge
	}
	return body, nil
}

func bodyError(err error) error {
	e := oauth.Refuse(oauth.InvalidRequest, "the request's content could not be read")
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		e.Err = err
	}
	return e
}

// Value returns the first value of a parameter, "" where there is none.
func (f Form) Value(name string) string {
	for i := range f {
		if f[i].name == name {
			return f[i].value
		}
	}
	return ""
}

// All returns the values of a parameter that are not empty.
func (f Form) All(name string) []string {
	var values []string
	for i := range f {
		if f[i].name == name && f[i].value != "" {
			values = append(values, f[i].value)
		}
	}
	return values
}

// Has reports whether the parameter occurs, with or without a value.
func (f Form) Has(name string) bool {
	for i := range f {
		if f[i].name == name {
			return true
		}
	}
	return false
}

// Count returns how often the parameter occurs.
func (f Form) Count(name string) int {
	n := 0
	for i := range f {
		if f[i].name == name {
			n++
		}
	}
	return n
}

// Repeated returns the name of a parameter that occurs more than once and may
// not, "" where there is none.
func (f Form) Repeated() string {
	for i := range f {
		for j := range i {
			if f[i].name == f[j].name && f[i].name != "resource" && f[i].name != "audience" {
				return f[i].name
			}
		}
	}
	return ""
}

// Without returns the form without the parameters named.
func (f Form) Without(names ...string) Form {
	left := make(Form, 0, len(f))
	for _, p := range f {
		if !contains(names, p.name) {
			left = append(left, p)
		}
	}
	return left
}

// With returns the form with one more parameter.
func (f Form) With(name, value string) Form {
	return append(f[:len(f):len(f)], parameter{name, value})
}

// Encode returns the form as application/x-www-form-urlencoded text.
func (f Form) Encode() string {
	var b strings.Builder
	for i := range f {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(f[i].name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(f[i].value))
	}
	return b.String()
}
