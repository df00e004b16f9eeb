package compress

import (
	"bytes"
	"net"
	"net/http"
	"sync"

	"github.com/gatehouse/gatehouse/plugins"
)

// rule is how a route's responses are encoded.
type rule struct {
	plugin    *Plugin
	encodings []Coding
	minSize   int64
	types     []MediaType
	streams   sync.Pool // of *stream
}

func (u *rule) serve(x *plugins.Exchange, next plugins.Handler) error {
	if x.GRPC { // which has a coding for each message, and knows none of HTTP's
		return next(x)
	}
	inner := x.Client
	s := u.streams.Get().(*stream)
	*s = stream{Stream: inner, rule: u, fields: s.fields[:0], head: string(x.Method) == http.MethodHead}
	s.coding, s.accepted = negotiate(x, u.encodings)
	x.Client = s
	err := next(x)
	x.Client = inner
	if s.encoder != nil {
		u.plugin.give(s.coding, s.encoder)
		t := &u.plugin.totals[s.coding]
		t.responses.Add(1)
		t.in.Add(s.in)
		t.out.Add(s.out)
	}
	*s = stream{fields: s.fields}
	u.streams.Put(s)
	return err
}

// stream encodes one response on its way to the client.
type stream struct {
	plugins.Stream
	rule     *rule
	coding   Coding
	accepted bool
	head     bool // the request is HEAD
	encoder  encoder
	fields   []byte
	in, out  int64 // content before and after the encoder
	err      error
}

// WriteHead implements plugins.Stream: it decides whether to encode.
func (s *stream) WriteHead(h plugins.ResponseHead) error {
	d := describe(h.Fields)
	if h.Own || d.encoded || d.fixed || h.Status == http.StatusPartialContent ||
		h.Status != http.StatusNotModified && !s.eligible(d.mediaType) {
		return s.Stream.WriteHead(h)
	}
	encode := s.accepted && (h.Length < 0 || h.Length >= s.rule.minSize) && h.Status != http.StatusNoContent
	switch {
	case s.head || h.Status == http.StatusNotModified:
		// They describe what a GET gets, and hold nothing to encode: the tag
		// must be the one of the encoded response (RFC 9110, 15.4.5).
		h.Fields = s.render(h.Fields, encode && d.tagged)
		return s.Stream.WriteHead(h)
	case encode:
		var err error
		if s.encoder, err = s.rule.plugin.take(s.coding); err == nil {
			s.encoder.Reset(sink{s})
			h.Length = -1
		}
	}
	h.Fields = s.render(h.Fields, s.encoder != nil)
	return s.Stream.WriteHead(h)
}

func (s *stream) eligible(mediaType []byte) bool {
	for _, t := range s.rule.types {
		if t.matches(mediaType) {
			return true
		}
	}
	return false
}

// render rewrites the fields for an encoded response, or only says that there
// could be one.
func (s *stream) render(fields []byte, encode bool) []byte {
	b := s.fields[:0]
	for line := range bytes.Lines(fields) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case encode && (is(name, "content-length") || is(name, "accept-ranges") || is(name, "content-md5") || is(name, "digest") || is(name, "content-digest")):
			// They are about the bytes as the service sent them.
		case encode && is(name, "etag"):
			value = bytes.TrimSpace(value)
			b = append(b, "ETag: "...)
			if !bytes.HasPrefix(value, []byte("W/")) {
				b = append(b, "W/"...)
			}
			b = append(append(b, value...), "\r\n"...)
		default:
			b = append(b, line...)
		}
	}
	if encode && s.encoder != nil {
		b = append(append(append(b, "Content-Encoding: "...), names[s.coding]...), "\r\n"...)
	}
	s.fields = append(b, "Vary: Accept-Encoding\r\n"...)
	return s.fields
}

// description is what of a head decides.
type description struct {
	mediaType []byte
	encoded   bool // it has a coding already
	fixed     bool // no-transform (RFC 9111, 5.2.2.6), or a range of something
	tagged    bool
}

func describe(fields []byte) (d description) {
	for line := range bytes.Lines(fields) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case is(name, "content-type"):
			d.mediaType = bytes.TrimSpace(value)
		case is(name, "content-encoding"):
			d.encoded = d.encoded || !bytes.EqualFold(bytes.TrimSpace(value), []byte("identity"))
		case is(name, "content-range"):
			d.fixed = true
		case is(name, "etag"):
			d.tagged = true
		case is(name, "cache-control"):
			d.fixed = d.fixed || bytes.Contains(bytes.ToLower(value), []byte("no-transform"))
		}
	}
	return d
}

func is(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}

// sink is where the encoder writes.
type sink struct{ s *stream }

func (w sink) Write(p []byte) (int, error) {
	n, err := w.s.Stream.Write(p)
	w.s.out += int64(n)
	if err != nil {
		w.s.err = err
	}
	return n, err
}

// Write implements plugins.Stream.
func (s *stream) Write(p []byte) (int, error) {
	if s.encoder == nil {
		return s.Stream.Write(p)
	}
	n, err := s.encoder.Write(p)
	s.in += int64(n)
	return n, s.cause(err)
}

// Flush implements plugins.Stream: the client can decode all that was written.
func (s *stream) Flush() error {
	if s.encoder != nil {
		if err := s.encoder.Flush(); err != nil {
			return s.cause(err)
		}
	}
	return s.Stream.Flush()
}

// Finish implements plugins.Stream.
func (s *stream) Finish() error {
	if s.encoder != nil {
		if err := s.encoder.Close(); err != nil {
			return s.cause(err)
		}
	}
	return s.Stream.Finish()
}

// cause is the error of the client's side, where an encoder would hide it.
func (s *stream) cause(err error) error {
	if err != nil && s.err != nil {
		return s.err
	}
	return err
}

// Splice moves content inside the kernel, as far as it is not encoded and the
// client's side can; see gateway/forward.
func (s *stream) Splice(src *net.TCPConn, n int64) (moved int64, ok bool, err error) {
	inner, can := s.Stream.(interface {
		Splice(src *net.TCPConn, n int64) (moved int64, ok bool, err error)
	})
	if s.encoder != nil || !can {
		return 0, false, nil
	}
	return inner.Splice(src, n)
}
