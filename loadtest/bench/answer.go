package main

import (
	"bytes"
	"errors"
	"fmt"
)

var (
	headEnd       = []byte("\r\n\r\n")
	statusLine    = []byte("HTTP/1.1 ")
	statusOK      = []byte("200")
	contentLength = []byte("content-length")
	transferCode  = []byte("transfer-encoding")
	connection    = []byte("connection")
	closeOption   = []byte("close")
)

// readAnswer looks for one whole response at the start of b and returns its
// size, 0 while bytes are missing. Any answer that a round may not contain is
// an error: another status than 200, another content than want, a length that
// is not declared, or an announced end of the connection.
func readAnswer(b, want []byte) (size int, err error) {
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return 0, nil
	}
	lines := b[:end+2]
	if !bytes.HasPrefix(lines, statusLine) || len(lines) < len(statusLine)+3 {
		return 0, errors.New("answer is not HTTP/1.1")
	}
	if status := lines[len(statusLine):][:3]; !bytes.Equal(status, statusOK) {
		return 0, fmt.Errorf("answer has status %q", status)
	}
	length, err := framing(lines)
	if err != nil {
		return 0, err
	}
	if length != len(want) {
		return 0, fmt.Errorf("answer has %d bytes of content, want %d", length, len(want))
	}
	size = end + len(headEnd) + length
	if len(b) < size {
		return 0, nil
	}
	if !bytes.Equal(b[end+len(headEnd):size], want) {
		return 0, errors.New("answer has another content than the origin sent")
	}
	return size, nil
}

// framing returns the declared length of a response; lines start with the
// status line and end with the line end of the last field.
func framing(lines []byte) (length int, err error) {
	length = -1
	for {
		_, rest, _ := bytes.Cut(lines, []byte("\n"))
		if len(rest) == 0 {
			break
		}
		lines = rest
		line, _, _ := bytes.Cut(lines, []byte("\r\n"))
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found {
			return 0, errors.New("answer has a field without colon")
		}
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, contentLength):
			if length >= 0 {
				return 0, errors.New("answer has two lengths")
			}
			if length = decimal(value); length < 0 {
				return 0, errors.New("answer has an unreadable length")
			}
		case bytes.EqualFold(name, transferCode):
			return 0, errors.New("answer has a transfer coding; the origin sent a length")
		case bytes.EqualFold(name, connection) && bytes.EqualFold(value, closeOption):
			return 0, errors.New("answer closes the connection")
		}
	}
	if length < 0 {
		return 0, errors.New("answer declares no length")
	}
	return length, nil
}

// decimal returns the number that b spells, -1 if it spells none.
func decimal(b []byte) int {
	if len(b) == 0 || len(b) > 9 {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// fieldNames returns the names of the fields of a request or response head, in
// lower case and in their order.
func fieldNames(head []byte) []string {
	var names []string
	for i, line := range bytes.Split(head, []byte("\r\n")) {
		if name, _, found := bytes.Cut(line, []byte(":")); found && i > 0 {
			names = append(names, string(bytes.ToLower(name)))
		}
	}
	return names
}
