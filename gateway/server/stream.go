package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

var (
	errHeadTwice  = errors.New("response head written twice")
	errNoHead     = errors.New("response content before its head")
	errTooLong    = errors.New("response content longer than announced")
	errIncomplete = errors.New("response content shorter than announced")
)

// stream writes one response to an HTTP/1.1 connection. Head and a small body
// leave in one write.
type stream struct {
	c        *conn
	x        *plugins.Exchange
	out      []byte
	head     bool
	finished bool
	chunked  bool
	bodiless bool  // HEAD, 204, 304
	left     int64 // content still owed; -1 unknown
	close    bool
	err      error
	// expect: the client waits for 100 (Continue).
	expect bool
	// tunnelled: the connection was handed over.
	tunnelled bool
	// trailers: the client reads trailer fields.
	trailers bool
	trailer  []byte
}

// outSize is how much of a response is gathered before it is written.
const outSize = 16 << 10

var _ outlet = (*stream)(nil)

func (s *stream) begun() bool { return s.head }
func (s *stream) cut()        { s.close = true }
func (s *stream) slow() bool  { return s.c.slow.Load() }

// breakOff implements outlet: HTTP/1.1 has no place for it.
func (s *stream) breakOff(*plugins.Error) bool { return false }

func (s *stream) reset(c *conn, x *plugins.Exchange) {
	*s = stream{c: c, x: x, out: s.out[:0], trailer: s.trailer[:0]}
}

// WriteHead implements plugins.Stream.
func (s *stream) WriteHead(h plugins.ResponseHead) error {
	if s.head {
		return errHeadTwice
	}
	s.head = true
	if h.Live {
		s.c.watch.loosen()
	}
	s.x.Record.Status = h.Status
	s.bodiless = h.Status == http.StatusNoContent || h.Status == http.StatusNotModified ||
		string(s.x.Method) == http.MethodHead
	s.left = h.Length
	if s.bodiless {
		s.left = 0
	}
	s.close = s.close || h.Close || s.c.server.draining.Load() || s.c.stopped.Load()
	b := appendStatusLine(s.out, h.Status, h.Reason)
	b = s.x.AppendHead(b, &h)
	if h.Date {
		b = s.c.server.date.append(b, s.x.Time)
	}
	if s.c.alternative != "" {
		b = append(append(append(b, "Alt-Svc: "...), s.c.alternative...), '\r', '\n')
	}
	if s.left < 0 {
		if s.x.HTTP10 {
			s.close = true
		} else {
			s.chunked = true
			b = append(b, "Transfer-Encoding: chunked\r\n"...)
		}
	}
	switch {
	case s.close:
		b = append(b, "Connection: close\r\n"...)
	case s.x.HTTP10:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	s.out = append(b, '\r', '\n')
	return nil
}

// Write implements plugins.Stream.
func (s *stream) Write(p []byte) (int, error) {
	switch {
	case s.err != nil:
		return 0, s.err
	case !s.head:
		return 0, errNoHead
	case len(p) == 0 || s.bodiless:
		return len(p), nil
	}
	if s.left >= 0 {
		if int64(len(p)) > s.left {
			return 0, errTooLong
		}
		s.left -= int64(len(p))
	}
	s.x.Record.BytesOut += int64(len(p))
	if s.chunked {
		s.out = strconv.AppendUint(s.out, uint64(len(p)), 16)
		s.out = append(s.out, '\r', '\n')
	}
	if len(s.out)+len(p)+2 > outSize && len(p) > outSize/4 {
		// Large pieces go out as they are, not through the buffer.
		if err := s.Flush(); err != nil {
			return 0, err
		}
		if err := s.c.send(p, s.c.server.now()); err != nil {
			s.err = err
			return 0, err
		}
	} else {
		s.out = append(s.out, p...)
	}
	if s.chunked {
		s.out = append(s.out, '\r', '\n')
	}
	if len(s.out) > outSize {
		if err := s.Flush(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Splice moves n bytes of content from src inside the kernel, as far as the
// client's connection is a plain one and the length was announced. ok is false,
// and nothing was done, where it cannot.
func (s *stream) Splice(src *net.TCPConn, n int64) (moved int64, ok bool, err error) {
	if s.err != nil || !s.head || s.left < n || s.bodiless || s.c.tls || s.c.tcp == nil {
		return 0, false, s.err
	}
	if err := s.Flush(); err != nil {
		return 0, true, err
	}
	if err := s.c.armWrite(s.c.server.now()); err != nil {
		return 0, true, err
	}
	moved, err = s.c.tcp.ReadFrom(&io.LimitedReader{R: src, N: n})
	if err != nil {
		// Writing nothing sends nothing, and fails where the client was what
		// failed.
		if _, failed := s.c.tcp.Write(nil); failed != nil {
			s.c.gone.Store(true)
		}
	}
	s.left -= moved
	s.x.Record.BytesOut += moved
	return moved, true, err
}

// StopReading implements plugins.Stream.
func (s *stream) StopReading() {
	s.c.stopReading()
}

// Flush implements plugins.Stream.
func (s *stream) Flush() error {
	if s.err != nil {
		return s.err
	}
	if len(s.out) == 0 {
		return nil
	}
	// Not the request's time: its answer may have been long in coming.
	s.err = s.c.send(s.out, s.c.server.now())
	s.out = s.out[:0]
	return s.err
}

// Finish implements plugins.Stream.
func (s *stream) Finish() error {
	if s.err != nil {
		return s.err
	}
	if !s.head {
		return errNoHead
	}
	if s.left > 0 {
		return errIncomplete
	}
	if s.chunked {
		s.out = append(s.out, "0\r\n"...)
		s.out = append(s.out, s.trailer...)
		s.out = append(s.out, '\r', '\n')
	}
	if err := s.Flush(); err != nil {
		return err
	}
	s.finished = true
	return nil
}

// Interim implements plugins.Stream. HTTP/1.0 has no interim responses.
func (s *stream) Interim(status int, fields []byte) error {
	if s.x.HTTP10 || s.head {
		return nil
	}
	b := appendStatusLine(s.out, status, nil)
	b = append(b, fields...)
	s.out = append(b, '\r', '\n')
	return s.Flush()
}

// Continue implements plugins.Stream.
func (s *stream) Continue() error {
	if !s.expect {
		return nil
	}
	s.expect = false
	return s.Interim(http.StatusContinue, nil)
}

// Trailer implements plugins.Stream. The trailer section goes to clients that
// said they read one (RFC 9110, 6.5.1), after content in chunks.
func (s *stream) Trailer(lines []byte) {
	if s.chunked && s.trailers {
		s.trailer = append(s.trailer[:0], lines...)
	}
}

// Upgrade implements plugins.Stream.
func (s *stream) Upgrade(h plugins.ResponseHead) (plugins.Tunnel, error) {
	if s.head {
		return nil, errHeadTwice
	}
	if s.x.HTTP10 {
		return nil, errors.ErrUnsupported
	}
	t, err := s.c.tunnel()
	if err != nil {
		return nil, err
	}
	s.head, s.close, s.tunnelled = true, true, true
	s.x.Record.Status = h.Status
	b := appendStatusLine(s.out, h.Status, h.Reason)
	b = append(b, h.Fields...)
	b = append(b, s.x.ResponseFields()...)
	s.out = append(b, '\r', '\n')
	if err := s.Flush(); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Watch implements plugins.Stream.
func (s *stream) Watch(w plugins.Watched) { s.c.watch.set(w) }

// Gone implements plugins.Stream.
func (s *stream) Gone() bool { return s.c.gone.Load() }

// keep reports whether the connection can carry another request.
func (s *stream) keep() bool { return s.finished && s.err == nil && !s.close && !s.c.stopped.Load() }

func appendStatusLine(b []byte, status int, reason []byte) []byte {
	if status == http.StatusOK && (reason == nil || string(reason) == "OK") {
		return append(b, "HTTP/1.1 200 OK\r\n"...)
	}
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	if reason == nil {
		b = append(b, http.StatusText(status)...)
	} else {
		b = append(b, reason...)
	}
	return append(b, '\r', '\n')
}

// dateLine is a Date field of the current second.
type dateLine struct {
	at   atomic.Int64
	line atomic.Pointer[[]byte]
}

func (d *dateLine) append(b []byte, now time.Time) []byte {
	if sec := now.Unix(); d.at.Load() != sec {
		line := []byte("Date: " + now.UTC().Format(http.TimeFormat) + "\r\n")
		d.line.Store(&line)
		d.at.Store(sec)
	}
	return append(b, *d.line.Load()...)
}
