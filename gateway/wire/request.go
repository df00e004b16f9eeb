package wire

import (
	"bytes"
	"errors"

	"github.com/gatehouse/gatehouse/plugins"
)

// Violations of a head. Each is a reason to answer 400 and to close.
var (
	ErrLineEnd        = errors.New("line ends without CRLF")
	ErrName           = errors.New("invalid field name")
	ErrValue          = errors.New("control character in a field value")
	ErrFolded         = errors.New("folded header line")
	ErrTooMany        = errors.New("too many header fields")
	ErrLength         = errors.New("invalid Content-Length")
	ErrCoding         = errors.New("unsupported Transfer-Encoding")
	ErrBothLengths    = errors.New("both Content-Length and Transfer-Encoding")
	ErrHostCount      = errors.New("more than one Host")
	ErrIncompleteHead = errors.New("incomplete head")
	ErrStatusLine     = errors.New("invalid status line")
	ErrRequestLine    = errors.New("invalid request line")
	ErrVersion        = errors.New("unsupported HTTP version")
)

// Request is what the scan learned of a request's header section.
type Request struct {
	Host []byte
	// Hosts counts the Host fields: 0 or 1 after a successful scan.
	Hosts int
	// Length is Content-Length, -1 if there is none.
	Length  int64
	Chunked bool
	// Expect is the field's value; nil if there is none.
	Expect []byte
	// Close and KeepAlive are the options of Connection.
	Close, KeepAlive bool
	// Upgrading tells that Connection names Upgrade.
	Upgrading bool
	// Trailers tells that the sender reads trailer fields (TE: trailers).
	Trailers bool
	// Upgrade is the protocol asked for; nil if none is.
	Upgrade []byte
	// Authorizations counts the Authorization fields.
	Authorizations int
}

// CutRequestLine takes the request line (RFC 9112, 3) off the head raw:
// exactly one space between its parts, a version HTTP/1.1 or HTTP/1.0, CRLF at
// its end. Another version is ErrVersion. header is what follows the line.
func CutRequestLine(raw []byte) (method, target []byte, http10 bool, header []byte, err error) {
	line, header, err := cutLine(raw)
	if err != nil {
		return nil, nil, false, nil, err
	}
	line = line[:len(line)-2]
	first, last := bytes.IndexByte(line, ' '), bytes.LastIndexByte(line, ' ')
	if first <= 0 || last <= first+1 {
		return nil, nil, false, nil, ErrRequestLine
	}
	method, target = line[:first], line[first+1:last]
	if ok, _ := validName(method); !ok {
		return nil, nil, false, nil, ErrRequestLine
	}
	switch version := line[last+1:]; {
	case string(version) == "HTTP/1.1":
	case string(version) == "HTTP/1.0":
		http10 = true
	case len(version) == 8 && string(version[:5]) == "HTTP/" && digit(version[5]) && version[6] == '.' && digit(version[7]):
		return method, target, false, nil, ErrVersion
	default:
		return nil, nil, false, nil, ErrRequestLine
	}
	return method, target, http10, header, nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// ScanRequest checks the header section raw (lines up to and including the
// empty line) and appends its fields to fields. Hop-by-hop fields,
// those that Connection names, identity and certificate fields in any spelling and names with
// an underscore (EDGE: S07) are marked Drop. An error means that nothing of
// the request may be trusted.
func ScanRequest(raw []byte, r *Request, fields []plugins.Field, limit int) ([]plugins.Field, error) {
	*r = Request{Length: -1}
	named := false
	for {
		line, rest, err := cutLine(raw)
		if err != nil {
			return fields, err
		}
		if len(line) == 2 {
			if len(rest) != 0 {
				return fields, ErrLineEnd
			}
			break
		}
		if len(fields) == limit {
			return fields, ErrTooMany
		}
		f, err := parseField(line)
		if err != nil {
			return fields, err
		}
		if f.ID != Other {
			more, err := r.note(&f)
			if err != nil {
				return fields, err
			}
			named = named || more
		}
		fields = append(fields, f)
		raw = rest
	}
	if r.Chunked && r.Length >= 0 {
		return fields, ErrBothLengths
	}
	if named {
		dropNamed(fields)
	}
	return fields, nil
}

// note takes in a field with a meaning of its own. named reports a Connection
// field that names other fields.
func (r *Request) note(f *plugins.Field) (named bool, err error) {
	switch f.ID {
	case Host:
		if r.Hosts++; r.Hosts > 1 {
			return false, ErrHostCount
		}
		r.Host = f.Value
	case ContentLength:
		if r.Length >= 0 {
			return false, ErrLength
		}
		if r.Length, err = ParseLength(f.Value); err != nil {
			return false, err
		}
	case TransferEncoding:
		if r.Chunked || !EqualFold(f.Value, "chunked") {
			return false, ErrCoding
		}
		r.Chunked, f.Drop = true, true
	case Connection:
		f.Drop = true
		EachToken(f.Value, func(option []byte) bool {
			switch {
			case EqualFold(option, "close"):
				r.Close = true
			case EqualFold(option, "keep-alive"):
				r.KeepAlive = true
			case EqualFold(option, "upgrade"):
				r.Upgrading = true // Upgrade is dropped without being named
			default:
				named = true
			}
			return true
		})
	case Expect:
		r.Expect, f.Drop = f.Value, true
		if r.Expect == nil {
			r.Expect = []byte{}
		}
	case TE:
		f.Drop = true
		EachToken(f.Value, func(coding []byte) bool {
			r.Trailers = r.Trailers || EqualFold(coding, "trailers")
			return !r.Trailers
		})
	case Upgrade:
		r.Upgrade, f.Drop = f.Value, true
	case Authorization:
		r.Authorizations++
	case ClientCert, Identity, MethodOverride, OriginalURL:
		f.Drop = true
	default:
		f.Drop = f.Drop || hopByHop(f.ID)
	}
	return named, nil
}

// ParseLength reads a Content-Length: digits only (RFC 9110, 8.6).
func ParseLength(v []byte) (int64, error) {
	if len(v) == 0 || len(v) > 18 {
		return -1, ErrLength
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return -1, ErrLength
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// cutLine returns the first line with its CRLF.
func cutLine(b []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, nil, ErrIncompleteHead
	}
	if i == 0 || b[i-1] != '\r' {
		return nil, nil, ErrLineEnd
	}
	return b[:i+1], b[i+1:], nil
}

func parseField(line []byte) (plugins.Field, error) {
	if line[0] == ' ' || line[0] == '\t' {
		return plugins.Field{}, ErrFolded
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return plugins.Field{}, ErrName
	}
	f := plugins.Field{Name: line[:colon], Value: trimOWS(line[colon+1 : len(line)-2]), Line: line}
	ok, underscore := validName(f.Name)
	if !ok {
		return plugins.Field{}, ErrName
	}
	if !validValue(f.Value) {
		return plugins.Field{}, ErrValue
	}
	f.ID = classify(f.Name)
	f.Drop = underscore
	return f, nil
}

// dropNamed marks the fields that a Connection field names. Fields on which
// routing, framing or trust rest cannot be taken away like this (EDGE: S28).
func dropNamed(fields []plugins.Field) {
	for i := range fields {
		if fields[i].ID != Connection {
			continue
		}
		EachToken(fields[i].Value, func(option []byte) bool {
			for j := range fields {
				f := &fields[j]
				if !protected(f.ID) && bytes.EqualFold(f.Name, option) {
					f.Drop = true
				}
			}
			return true
		})
	}
}

func protected(id uint8) bool {
	switch id {
	case Authorization, ClientCert, ContentLength, ContentType, Cookie, Date, Forwarded, Host, RealIP, RequestID,
		Traceparent, Tracestate, Via, XForwarded, XForwardedFor, Identity:
		return true
	}
	return false
}
