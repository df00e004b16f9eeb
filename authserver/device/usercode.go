package device

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"strings"

	"github.com/gatehouse/gatehouse/authserver/store"
)

// alphabet has no vowels, so that codes spell nothing, and nothing that looks
// like a digit (RFC 8628, 6.1). Eight of its letters are 20^8 codes.
const (
	alphabet   = "BCDFGHJKLMNPQRSTVWXZ"
	codeLength = 8
)

// newUserCode returns a random code without its dash.
func newUserCode() string {
	code := make([]byte, 0, codeLength)
	var b [1]byte
	for len(code) < codeLength {
		rand.Read(b[:]) // never fails
		// 240 is a multiple of 20: no letter is likelier than another.
		if b[0] < 240 {
			code = append(code, alphabet[b[0]%20])
		}
	}
	return string(code)
}

// shown is a code as people see it: in two halves.
func shown(code string) string { return code[:codeLength/2] + "-" + code[codeLength/2:] }

// readUserCode returns what a person typed as the code that it can only be:
// case, dashes and spaces do not matter. Not ok for what no code is.
func readUserCode(typed string) (code string, ok bool) {
	if len(typed) > 64 {
		return "", false
	}
	b := make([]byte, 0, codeLength)
	for i := range len(typed) {
		c := typed[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		switch {
		case c == '-' || c == ' ' || c == '.':
		case strings.IndexByte(alphabet, c) < 0 || len(b) == codeLength:
			return "", false
		default:
			b = append(b, c)
		}
	}
	return string(b), len(b) == codeLength
}

// userHash is keyed: codes are short enough to try them all.
func (e *Endpoint) userHash(code string) store.Digest {
	mac := hmac.New(sha256.New, e.Key)
	mac.Write([]byte(code))
	return store.Digest(mac.Sum(nil))
}
