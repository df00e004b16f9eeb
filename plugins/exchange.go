package plugins

import (
	"bytes"
	"io"
	"net/netip"
	"time"

	"github.com/gatehouse/gatehouse/routes"
)

// Exchange is one request and its response on their way through the gateway.
// It is pooled: nothing that it holds or lends may be kept after the Handler
// returns. A method or field of type []byte lends, a string is a copy.
type Exchange struct {
	// The request, set by the server before the chain runs.

	Method []byte
	// Host is the request's authority in lower case without port.
	Host []byte
	// Authority is the Host field's value as it was sent.
	Authority []byte
	// Path is the one canonical path (EDGE: S30): routed, authorised, limited
	// and forwarded alike.
	Path []byte
	// Query is the raw query without '?', byte for byte; HasQuery tells an
	// empty one from none.
	Query    []byte
	HasQuery bool
	// Fields are the request's header fields in their order.
	Fields []Field
	// Body streams the request's content; nil when there is none.
	Body io.Reader
	// WebSocket tells that the request is a WebSocket opening handshake (RFC
	// 6455, 4.2.1).
	WebSocket bool
	// GRPC tells that the request is a call of gRPC over HTTP/2 or HTTP/3: its
	// client reads refusals as statuses of gRPC, and content as messages.
	GRPC bool
	// BodyLength is the declared length, -1 when it is not known beforehand.
	BodyLength int64
	// TLS reports whether the client's connection is encrypted.
	TLS bool
	// ClientCert is the client's certificate, verified against the listener's
	// CAs; nil where the client showed none. It is immutable and shared by all
	// exchanges of the connection.
	ClientCert *ClientCertificate
	// HTTP10 reports an HTTP/1.0 client.
	HTTP10 bool
	// Peer is the address of the connection; ClientIP is the address of the
	// client behind trusted proxies.
	Peer, ClientIP netip.Addr
	// Time is when the head was complete.
	Time time.Time
	// RequestID identifies the exchange in responses, logs and upstream.
	RequestID []byte

	// Forwarding is the block of lines that tells the upstream about this
	// client ("X-Forwarded-For: …\r\n"…), by the trust rules.
	Forwarding []byte

	// Set by the router and the steps.

	Route     *routes.Route
	Principal *Principal
	// Standing is asked whether Principal still may what it was let to; nil
	// where nobody can tell.
	Standing Standing
	// Settler is told when the outcome of the attempt is known though it has
	// not ended; nil where nobody waits for it.
	Settler Settler
	// IdentityLines are complete header lines ("Name: value\r\n"…) for the
	// service, after those of the Principal; lent.
	IdentityLines []byte
	// Record is what the access log and the metrics will say.
	Record Record

	// Client is the response's way back; steps before forward use Refuse or
	// return an Error and leave it alone.
	Client Stream

	// Content is the request's content where it was small enough to be read
	// whole, so that an attempt can be repeated; set by the forwarder.
	Content []byte
	// Replay tells the retry step whether the failed attempt may be repeated;
	// set by the forwarder with every error it returns.
	Replay Replay
	// Avoid is the instance that just failed, in the upstream's numbering; 0
	// for none.
	Avoid uint64

	// responseFields are the gateway's own response lines, responseDrops the
	// names of the service's fields that do not travel on.
	responseFields []byte
	responseDrops  []string
	// requestLines and target hold what AddRequestField and SetTarget copied.
	requestLines, target []byte
}

// Standing judges a Principal again after it was admitted: an answer may last
// longer than what allowed it. It may be called from any goroutine.
type Standing interface {
	// Stands returns the reason code of the refusal, "" if there is none.
	Stands(p *Principal, now time.Time) string
}

// Settler takes the good outcome of an attempt whose answer has begun and may
// last for hours.
type Settler interface{ Settle() }

// Replay says what may be done after a failed attempt.
type Replay uint8

const (
	// ReplayNever: bytes may have been processed, or the body is gone.
	ReplayNever Replay = iota
	// ReplaySafe: the upstream cannot have seen the request.
	ReplaySafe
	// ReplayIdempotent: the upstream may have seen it, but its method allows
	// a repetition (RFC 9110, 9.2.2) and no content was consumed.
	ReplayIdempotent
)

// Field is one header field. Both slices are lent.
type Field struct {
	Name, Value []byte
	// Line is the whole line with its CRLF, as received.
	Line []byte
	// ID is the field's well-known number in gateway/wire, 0 for any other.
	ID uint8
	// Drop keeps the field from being forwarded.
	Drop bool
}

// Stream is the client's side of an exchange. gateway/server implements it.
type Stream interface {
	// WriteHead starts the final response. It must be called once, before
	// Write.
	WriteHead(h ResponseHead) error
	// Write sends content; it may hold back until Flush or Finish.
	Write(p []byte) (int, error)
	// Flush sends what was held back.
	Flush() error
	// Finish completes the response. Without it the response is cut off and
	// the connection is closed, so that nobody takes a part for the whole.
	Finish() error
	// Interim sends an interim response (103), where the client can read it.
	Interim(status int, fields []byte) error
	// Continue tells a client that waits for it (Expect: 100-continue) to
	// send the body. Reading Body does this by itself.
	Continue() error
	// StopReading makes a Read of Body that is under way or to come fail. The
	// client's connection ends with the response. Any goroutine may call it
	// while the exchange lasts.
	StopReading()
	// Trailer gives the trailer section that follows the content: complete
	// lines, copied. It must come before Finish and is dropped where the client
	// does not read one.
	Trailer(lines []byte)
	// Upgrade sends the head of a 101 answer and hands over the connection,
	// which speaks another protocol from now on: what the client sent already
	// comes first. It fails where the client's HTTP has no such change, and
	// with an Error, before anything was written, where there are too many.
	Upgrade(h ResponseHead) (Tunnel, error)
	// Watch has w looked after while the exchange lasts; nil ends that, and
	// when Watch has returned, the one before is not used any more.
	Watch(w Watched)
	// Gone reports whether the client is known to have left.
	Gone() bool
}

// Tunnel is a client's connection after a change of protocol. One goroutine may
// read while another writes, and Close may be called from any.
type Tunnel interface {
	io.ReadWriteCloser
	// CloseWrite ends the gateway's side.
	CloseWrite() error
}

// Watched is something that an exchange waits for. Its methods are called from
// another goroutine and must not wait.
type Watched interface {
	// Due is asked a few times a second whether the exchange must end, because
	// what allowed it does not hold any more, or because it would last too long
	// for a server that stops.
	Due(now time.Time, stopping bool) bool
	// Abort is called once, when the client has left or Due said so: the wait
	// must end with an error.
	Abort()
}

// ResponseHead is the head of a final response.
type ResponseHead struct {
	Status int
	// Reason is the reason phrase; nil for the usual one.
	Reason []byte
	// Fields are complete header lines ("Name: value\r\n"…), lent until
	// WriteHead returns. They hold Content-Length where Length >= 0 and
	// never Transfer-Encoding, Connection or another hop-by-hop field.
	Fields []byte
	// Length is the length of the content that follows, -1 if unknown. For
	// answers without content (HEAD, 204, 304) it is 0 whatever Fields say.
	Length int64
	// Date asks for a Date field, where Fields hold none.
	Date bool
	// Close ends the client's connection after this response.
	Close bool
	// Live tells that the content is made while it is sent, so that nothing
	// follows from how slowly a client takes it.
	Live bool
	// Own marks a refusal: what it says itself is neither dropped nor said
	// twice, whatever the steps asked for.
	Own bool
}

// Record is what is known about an exchange when it ends. Strings are
// constants or belong to the configuration.
type Record struct {
	Status int
	// Reason is the code of the refusal or failure, "" when there was none.
	Reason string
	// ShadowReason is the code of the refusal that a route in shadow mode
	// decided and let pass, "" when there was none.
	ShadowReason string
	Service      string
	// Instance is the address of the last instance tried.
	Instance netip.AddrPort
	Attempts int
	// BytesIn and BytesOut count content, not heads.
	BytesIn, BytesOut int64
	// Upstream is the time from the start of the last attempt to its head.
	Upstream time.Duration
	// CacheHit tells whether the token's verification came from the cache.
	CacheHit bool
	// Unavailable tells that the service does not serve now, as 503 would,
	// although Status is another one (gRPC's UNAVAILABLE comes with 200).
	Unavailable bool
}

// Field returns the value of the first field called name (lower case), and
// how many there are.
func (x *Exchange) Field(name string) (value []byte, count int) {
	for i := range x.Fields {
		if len(x.Fields[i].Name) == len(name) && equalFold(x.Fields[i].Name, name) {
			if count == 0 {
				value = x.Fields[i].Value
			}
			count++
		}
	}
	return value, count
}

// AddResponseField adds a field to the response, whoever writes it: the
// upstream's answer or a refusal. name and value must be valid field text.
func (x *Exchange) AddResponseField(name, value string) {
	b := append(x.responseFields, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	x.responseFields = append(b, '\r', '\n')
}

// AppendResponseFields appends a complete line ("Name: value\r\n") that the
// caller rendered by itself.
func (x *Exchange) AppendResponseFields(lines []byte) {
	x.responseFields = append(x.responseFields, lines...)
}

// DropResponseField removes the fields called name, in lower case, from the
// answer of whoever writes the head, but not what AddResponseField added, nor
// what a refusal says. The string must outlive the exchange.
func (x *Exchange) DropResponseField(name string) {
	x.responseDrops = append(x.responseDrops, name)
}

// AppendHead appends the lines of the final head to b: those of h that no step
// dropped, then those that steps added. Every Stream that talks to a client
// renders its head with it.
func (x *Exchange) AppendHead(b []byte, h *ResponseHead) []byte {
	if h.Own {
		b = append(b, h.Fields...)
		return appendLines(b, x.responseFields, func(name []byte) bool { return !hasLine(h.Fields, name) })
	}
	if len(x.responseDrops) == 0 {
		b = append(b, h.Fields...)
	} else {
		b = appendLines(b, h.Fields, x.keeps)
	}
	return append(b, x.responseFields...)
}

func (x *Exchange) keeps(name []byte) bool {
	for _, drop := range x.responseDrops {
		if len(name) == len(drop) && equalFold(name, drop) {
			return false
		}
	}
	return true
}

// appendLines appends the lines whose name passes keep.
func appendLines(b, lines []byte, keep func(name []byte) bool) []byte {
	for len(lines) > 0 {
		line := lines
		if i := bytes.IndexByte(lines, '\n'); i >= 0 {
			line = lines[:i+1]
		}
		lines = lines[len(line):]
		name, _, _ := bytes.Cut(line, colon)
		if keep(name) {
			b = append(b, line...)
		}
	}
	return b
}

var colon = []byte(":")

func hasLine(lines, name []byte) bool {
	for line := range bytes.Lines(lines) {
		if n, _, _ := bytes.Cut(line, colon); bytes.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// AddRequestField adds a field to the request that the service receives. name
// and value must be valid field text; both are copied.
func (x *Exchange) AddRequestField(name string, value []byte) {
	start := len(x.requestLines)
	b := append(x.requestLines, name...)
	b = append(append(append(b, ": "...), value...), '\r', '\n')
	x.requestLines = b
	line := b[start:]
	x.Fields = append(x.Fields, Field{
		Name: line[:len(name)], Value: line[len(name)+2 : len(line)-2], Line: line,
	})
}

// Target is the path that the service receives: Path, or what SetTarget put in
// its place. Lent.
func (x *Exchange) Target() []byte {
	if len(x.target) > 0 {
		return x.target
	}
	return x.Path
}

// SetTarget changes the path that the service receives, and nothing else: the
// request was routed, and is authorised and limited, by Path. path must be
// canonical; it is copied.
func (x *Exchange) SetTarget(path []byte) { x.target = append(x.target[:0], path...) }

// ResponseFields lends the lines added so far.
func (x *Exchange) ResponseFields() []byte { return x.responseFields }

// Reset makes x ready for the next request and keeps its buffers.
func (x *Exchange) Reset() {
	*x = Exchange{
		Fields: x.Fields[:0], Content: x.Content[:0],
		responseFields: x.responseFields[:0], responseDrops: x.responseDrops[:0],
		requestLines: x.requestLines[:0], target: x.target[:0],
	}
}

// equalFold compares an ASCII name with its lower-case form.
func equalFold(name []byte, lower string) bool {
	for i := 0; i < len(lower); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
