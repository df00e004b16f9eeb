package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	// maxToken is the largest token that is looked at (EDGE: header limits).
	maxToken = 8 << 10
	maxKeyID = 128
)

var (
	errSize      = errors.New("token is larger than 8 KiB")
	errSegments  = errors.New("token does not have three base64url segments")
	errAlgorithm = errors.New("header: alg is missing or not a string")
	errKeyID     = errors.New("header: kid is missing, too long or has odd characters")
)

// forbidden header parameters: keys that the token brings itself (RFC 7515,
// 4.1.2 to 4.1.6) are never used, and no extension is understood (4.1.11).
// Ignoring them would be allowed for some, refusing tells of the attempt.
var forbidden = map[string]bool{
	"jwk": true, "jku": true, "x5u": true, "x5c": true, "crit": true, "b64": true, "zip": true,
}

// parsed is a token taken apart, before anything of it is believed.
type parsed struct {
	alg, typ, kid string
	claims        claims
}

// parse takes a compact JWS apart, strictly, and without any cryptography.
func parse(token []byte) (*parsed, error) {
	if len(token) > maxToken {
		return nil, errSize
	}
	header, payload, err := segments(token)
	if err != nil {
		return nil, err
	}
	p := &parsed{}
	if err := object(header, p.headerMember); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if p.alg == "" {
		return nil, errAlgorithm
	}
	if !saneKeyID(p.kid) {
		return nil, errKeyID
	}
	if err := object(payload, p.claims.member); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return p, nil
}

func (p *parsed) headerMember(name string, value []byte) (err error) {
	if forbidden[name] {
		return errors.New(name + " is not accepted")
	}
	switch name {
	case "alg":
		p.alg, err = text(value)
	case "kid":
		p.kid, err = text(value)
	case "typ":
		p.typ, err = text(value)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// segments decodes the first two segments and checks the third. Go's decoder skips line ends, so
// the alphabet is checked here (RFC 7515, 2).
func segments(token []byte) (header, payload []byte, err error) {
	var dots [2]int
	n := 0
	for i, c := range token {
		switch {
		case c == '.':
			if n == 2 {
				return nil, nil, errSegments
			}
			dots[n] = i
			n++
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return nil, nil, errSegments
		}
	}
	if n != 2 || dots[0] == 0 || dots[1] == dots[0]+1 || dots[1] == len(token)-1 {
		return nil, nil, errSegments
	}
	strict := base64.RawURLEncoding.Strict()
	buf := make([]byte, strict.DecodedLen(len(token)))
	n, err = strict.Decode(buf, token[:dots[0]])
	if err != nil {
		return nil, nil, errSegments
	}
	m, err := strict.Decode(buf[n:], token[dots[0]+1:dots[1]])
	if err != nil {
		return nil, nil, errSegments
	}
	if _, err := strict.Decode(buf[n+m:], token[dots[1]+1:]); err != nil {
		return nil, nil, errSegments
	}
	return buf[:n:n], buf[n : n+m : n+m], nil
}

// saneKeyID holds back what only an attacker would look up (OAUTH 46).
func saneKeyID(kid string) bool {
	if kid == "" || len(kid) > maxKeyID || strings.Contains(kid, "..") {
		return false
	}
	for i := range len(kid) {
		c := kid[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("-._~+/=:@", c) >= 0:
		default:
			return false
		}
	}
	return true
}
