package auth

import (
	"github.com/gatehouse/gatehouse/plugins"
)

// credential is the token of a request.
type credential struct {
	token []byte // lent; nil where there is none
	dpop  bool   // the scheme is DPoP (RFC 9449, 7.1), not Bearer
	field *plugins.Field
}

// credentials finds the token of x: one Authorization field, and nothing but
// that field (RFC 6750, 2.1). Tokens in queries and forms are not looked for:
// they end in logs and histories (RFC 9700, 4.3.2). count is the number of
// Authorization fields; the token is nil where the only one has another scheme.
func credentials(x *plugins.Exchange) (c credential, count int) {
	for i := range x.Fields {
		f := &x.Fields[i]
		if len(f.Name) != len(authorization) || !fold(f.Name, authorization) {
			continue
		}
		count++
		c.field = f
	}
	if count != 1 {
		return credential{}, count
	}
	v := c.field.Value
	switch {
	case named(v, scheme):
		v = v[len(scheme):]
	case named(v, fieldDPoP):
		c.dpop, v = true, v[len(fieldDPoP):]
	default:
		return c, 1
	}
	for len(v) > 0 && v[0] == ' ' {
		v = v[1:]
	}
	c.token = v
	return c, 1
}

// named reports whether v is credentials of a scheme, in lower case.
func named(v []byte, scheme string) bool {
	return len(v) > len(scheme) && fold(v[:len(scheme)], scheme) && v[len(scheme)] == ' '
}

const (
	authorization = "authorization"
	scheme        = "bearer"
)

// fold compares b, of the same length, with a lower-case ASCII word.
func fold(b []byte, lower string) bool {
	for i := range len(lower) {
		c := b[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
