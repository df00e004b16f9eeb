package wire

import (
	"bytes"

	"github.com/gatehouse/gatehouse/plugins"
)

// Response is what the scan learned of an upstream's response head.
type Response struct {
	Status int
	// Reason is the reason phrase, lent.
	Reason []byte
	// HTTP10 reports an HTTP/1.0 answer.
	HTTP10 bool
	// Length is Content-Length, -1 if there is none.
	Length  int64
	Chunked bool
	// Close is the option of Connection, or HTTP/1.0 without keep-alive.
	Close bool
	// Upgrade is the protocol of a 101 answer.
	Upgrade []byte
	// EventStream tells that the content is text/event-stream.
	EventStream bool
	// HasDate tells whether there is a Date.
	HasDate bool
}

// ScanResponse checks a complete response head (status line to empty line) and
// appends to dst the header lines that may travel on, as they are and in their
// order. The same rigour as for requests holds (EDGE: S43). When the answer is
// chunked, Content-Length may not stand beside it. fields is scratch space.
func ScanResponse(head []byte, r *Response, dst []byte, fields []plugins.Field) ([]byte, []plugins.Field, error) {
	*r = Response{Length: -1}
	line, raw, err := cutLine(head)
	if err != nil {
		return dst, fields, err
	}
	if err := r.statusLine(line); err != nil {
		return dst, fields, err
	}
	named, keepAlive := false, false
	fields = fields[:0]
	for {
		line, rest, err := cutLine(raw)
		if err != nil {
			return dst, fields, err
		}
		if len(line) == 2 {
			break
		}
		f, err := parseField(line)
		if err != nil {
			return dst, fields, err
		}
		// Unlike a request's, an answer's names with underscores are its own affair.
		f.Drop = false
		if f.ID != Other {
			n, k, err := r.note(&f)
			if err != nil {
				return dst, fields, err
			}
			named, keepAlive = named || n, keepAlive || k
		}
		fields = append(fields, f)
		raw = rest
	}
	if r.Chunked && r.Length >= 0 {
		return dst, fields, ErrBothLengths
	}
	if r.HTTP10 && !keepAlive {
		r.Close = true
	}
	if named {
		dropNamed(fields)
	}
	for i := range fields {
		if !fields[i].Drop {
			dst = append(dst, fields[i].Line...)
		}
	}
	return dst, fields, nil
}

func (r *Response) statusLine(line []byte) error {
	// HTTP/1.x SP 3DIGIT [SP reason] CRLF (RFC 9112, 4)
	if len(line) < 14 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return ErrStatusLine
	}
	switch line[7] {
	case '0':
		r.HTTP10 = true
	case '1':
	default:
		return ErrStatusLine
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return ErrStatusLine
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 || r.Status > 599 {
		return ErrStatusLine
	}
	switch rest := line[12 : len(line)-2]; {
	case len(rest) == 0:
	case rest[0] != ' ' || !validValue(rest):
		return ErrStatusLine
	default:
		r.Reason = rest[1:]
	}
	return nil
}

func (r *Response) note(f *plugins.Field) (named, keepAlive bool, err error) {
	switch f.ID {
	case ContentLength:
		n, err := ParseLength(f.Value)
		if err != nil || r.Length >= 0 {
			return false, false, ErrLength
		}
		r.Length = n
	case TransferEncoding:
		if r.Chunked || !EqualFold(f.Value, "chunked") || r.HTTP10 {
			return false, false, ErrCoding
		}
		r.Chunked, f.Drop = true, true
	case Connection:
		f.Drop = true
		EachToken(f.Value, func(option []byte) bool {
			switch {
			case EqualFold(option, "close"):
				r.Close = true
			case EqualFold(option, "keep-alive"):
				keepAlive = true
			default:
				named = true
			}
			return true
		})
	case Upgrade:
		r.Upgrade, f.Drop = f.Value, true
	case Date:
		r.HasDate = true
	case ContentType:
		const sse = "text/event-stream"
		r.EventStream = len(f.Value) >= len(sse) && EqualFold(f.Value[:len(sse)], sse)
	case Identity:
		// A backend may not speak of identities to the outside either.
		f.Drop = true
	default:
		f.Drop = hopByHop(f.ID) && f.ID != ProxyAuthenticate
	}
	return named, keepAlive, nil
}

// AppendTrailers appends to dst what of a trailer section may travel on: fields
// that frame, route or authorise a message have no place there (RFC 9110,
// 6.5.1). raw holds complete lines, as Chunks leaves them.
func AppendTrailers(dst, raw []byte) []byte {
	for len(raw) > 0 {
		line, rest, err := cutLine(raw)
		if err != nil {
			break
		}
		raw = rest
		f, err := parseField(line)
		if err != nil || hopByHop(f.ID) || EqualFold(f.Name, "set-cookie") {
			continue
		}
		switch f.ID {
		case Authorization, ContentLength, ContentType, Cookie, Expect, Host, Identity, MethodOverride, OriginalURL:
			continue
		}
		dst = append(dst, line...)
	}
	return dst
}
