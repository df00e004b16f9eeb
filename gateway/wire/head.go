package wire

import "bytes"

var headEnd = []byte("\r\n\r\n")

// HeadLength is the length of the head that p begins with, 0 if its end is
// not there. The first seen bytes were looked at before. The quick search for
// the end comes first; the scan refuses line feeds within a whole head.
func HeadLength(p []byte, seen int) (int, error) {
	if i := bytes.Index(p[max(0, seen-len(headEnd)+1):], headEnd); i >= 0 {
		return max(0, seen-len(headEnd)+1) + i + len(headEnd), nil
	}
	if bareLF(p, seen) {
		return 0, ErrLineEnd
	}
	return 0, nil
}

// bareLF reports whether p has, from its byte at on, a line feed without a
// carriage return before it.
func bareLF(p []byte, at int) bool {
	for at < len(p) {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return false
		}
		at += i
		if at == 0 || p[at-1] != '\r' {
			return true
		}
		at++
	}
	return false
}
