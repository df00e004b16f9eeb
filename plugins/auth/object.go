package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"unicode/utf8"
)

var (
	errJSON      = errors.New("not a JSON object in UTF-8")
	errDuplicate = errors.New("a member name occurs twice")
	errText      = errors.New("not a string")
	errNumber    = errors.New("not a date in seconds")
)

// object calls member for each member of the JSON object b. Names are
// unescaped, values are the raw text. Duplicate names are refused at every
// depth: parsers differ in which of two they take, and a signature covers both.
func object(b []byte, member func(name string, value []byte) error) error {
	if !utf8.Valid(b) || !json.Valid(b) {
		return errJSON
	}
	b = bytes.TrimLeft(b, " \t\r\n")
	if b[0] != '{' {
		return errJSON
	}
	_, err := walk(b, member)
	return err
}

// walk reads one value of valid JSON from the start of b and returns its
// length. member may be nil; it is called for the outermost object only.
func walk(b []byte, member func(string, []byte) error) (int, error) {
	switch b[0] {
	case '{':
		return walkObject(b, member)
	case '[':
		return walkArray(b, nil)
	case '"':
		return stringEnd(b), nil
	}
	i := 1
	for i < len(b) && b[i] > ' ' && b[i] != ',' && b[i] != ']' && b[i] != '}' {
		i++
	}
	return i, nil
}

func walkObject(b []byte, member func(string, []byte) error) (int, error) {
	var seen map[string]struct{}
	i := space(b, 1)
	for b[i] != '}' {
		end := i + stringEnd(b[i:])
		name, err := unquote(b[i:end])
		if err != nil {
			return 0, err
		}
		if _, ok := seen[name]; ok {
			return 0, errDuplicate
		}
		if seen == nil {
			seen = make(map[string]struct{}, 16)
		}
		seen[name] = struct{}{}
		i = space(b, space(b, end)+1) // the colon
		n, err := walk(b[i:], nil)
		if err != nil {
			return 0, err
		}
		if member != nil {
			if err := member(name, b[i:i+n]); err != nil {
				return 0, err
			}
		}
		if i = space(b, i+n); b[i] == ',' {
			i = space(b, i+1)
		}
	}
	return i + 1, nil
}

func walkArray(b []byte, element func([]byte) error) (int, error) {
	i := space(b, 1)
	for b[i] != ']' {
		n, err := walk(b[i:], nil)
		if err != nil {
			return 0, err
		}
		if element != nil {
			if err := element(b[i : i+n]); err != nil {
				return 0, err
			}
		}
		if i = space(b, i+n); b[i] == ',' {
			i = space(b, i+1)
		}
	}
	return i + 1, nil
}

func space(b []byte, i int) int {
	for b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n' {
		i++
	}
	return i
}

// stringEnd is the length of the string literal at the start of b.
func stringEnd(b []byte) int {
	i := 1
	for b[i] != '"' {
		if b[i] == '\\' {
			i++
		}
		i++
	}
	return i + 1
}

// unquote copies a string literal. A lone surrogate is refused: it decodes to
// U+FFFD, which would make one name of two different ones.
func unquote(b []byte) (string, error) {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b[1 : len(b)-1]), nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return "", errJSON
	}
	for _, r := range s {
		if r == utf8.RuneError {
			return "", errJSON
		}
	}
	return s, nil
}

// text is the string that raw holds.
func text(raw []byte) (string, error) {
	if raw[0] != '"' {
		return "", errText
	}
	return unquote(raw)
}

// texts are the strings of an array, or the one that stands alone.
func texts(raw []byte) ([]string, error) {
	if raw[0] != '[' {
		s, err := text(raw)
		return []string{s}, err
	}
	var list []string
	_, err := walkArray(raw, func(e []byte) error {
		s, err := text(e)
		list = append(list, s)
		return err
	})
	return list, err
}

// seconds is a NumericDate (RFC 7519, 2), fractions cut off.
func seconds(raw []byte) (int64, error) {
	if raw[0] == '"' {
		return 0, errNumber
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		if n < 0 || n > maxSeconds {
			return 0, errNumber
		}
		return n, nil
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > maxSeconds {
		return 0, errNumber
	}
	return int64(f), nil
}

// maxSeconds is the end of the year 9999: later dates are nonsense, and sums
// with them must not overflow.
const maxSeconds = 253402300799
