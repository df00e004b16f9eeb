package auth

import (
	"github.com/gatehouse/gatehouse/plugins"
)

// credentials finds the bearer token of x: one Authorization field, and
// nothing but that field (RFC 6750, 2.1). Tokens in queries and forms are not
// looked for: they end in logs and histories (RFC 9700, 4.3.2). count is the
// number of Authorization fields; token is nil where the only one has another
// scheme.
func credentials(x *plugins.Exchange) (token []byte, field *plugins.Field, count int) {
	for i := range x.Fields {
		f := &x.Fields[i]
		if len(f.Name) != len(authorization) || !fold(f.Name, authorization) {
			continue
		}
		count++
		field = f
	}
	if count != 1 {
		return nil, nil, count
	}
	v := field.Value
	if len(v) <= len(scheme) || !fold(v[:len(scheme)], scheme) || v[len(scheme)] != ' ' {
		return nil, field, 1
	}
	v = v[len(scheme):]
	for len(v) > 0 && v[0] == ' ' {
		v = v[1:]
	}
	return v, field, 1
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
