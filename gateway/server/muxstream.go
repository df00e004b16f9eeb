package server

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/textproto"
	"os"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// outlet is how a state answers: a stream of HTTP/1.1, or a multiplexed one.
type outlet interface {
	plugins.Stream
	// begun reports whether the final head was written.
	begun() bool
	// cut gives up the response: what was sent of it must not look whole.
	cut()
	// slow reports whether the client was given up for taking the response too
	// slowly.
	slow() bool
	// breakOff ends a response that has begun with the reason, and reports
	// whether the client can read one there.
	breakOff(e *plugins.Error) bool
}

// multiplexed writes one response over HTTP/2 or HTTP/3.
type multiplexed struct {
	server  *Server
	x       *plugins.Exchange
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	version int
	// alternative: see Transport.
	alternative string
	limit       int64 // of the content that comes in; 0: none

	head     bool
	call     bool // the answer is one of gRPC
	finished bool
	bodiless bool
	left     int64
	err      error
	outward  guard
	tooSlow  bool
	watch    muxWatch
}

var _ outlet = (*multiplexed)(nil)

func (m *multiplexed) begun() bool { return m.head }
func (m *multiplexed) cut()        {}
func (m *multiplexed) slow() bool  { return m.tooSlow }

// breakOff implements outlet: the answer to a call ends with a status whenever
// it ends, so that one which is not OK does not make a whole of a part.
func (m *multiplexed) breakOff(e *plugins.Error) bool {
	if !m.call || m.finished || e.Code == plugins.ClientGone {
		return false
	}
	m.Trailer(appendStatus(nil, e))
	return m.Finish() == nil
}

// WriteHead implements plugins.Stream. Names and values reach the client as
// they are; reason phrases do not exist here.
func (m *multiplexed) WriteHead(h plugins.ResponseHead) error {
	if m.head {
		return errHeadTwice
	}
	m.head = true
	m.x.Record.Status = h.Status
	m.bodiless = h.Status == http.StatusNoContent || h.Status == http.StatusNotModified ||
		string(m.x.Method) == http.MethodHead
	m.left = h.Length
	if m.bodiless {
		m.left = 0
	}
	header := m.w.Header()
	addLines(header, m.x.AppendHead(nil, &h))
	m.call = m.x.GRPC && isGRPC(header)
	// A name without values keeps net/http from inventing one.
	if _, ok := header["Content-Type"]; !ok {
		header["Content-Type"] = nil
	}
	if h.Status == http.StatusNoContent || h.Status == http.StatusNotModified {
		// Clients wait for as much, whatever RFC 9110, 8.6 says.
		delete(header, "Content-Length")
	}
	if _, ok := header["Date"]; !ok && !h.Date {
		header["Date"] = nil
	}
	if m.alternative != "" {
		header["Alt-Svc"] = []string{m.alternative}
	}
	if m.version == 2 && m.server.draining.Load() {
		header.Set("Connection", "close") // becomes GOAWAY
	}
	if h.Live || m.x.GRPC {
		m.outward.rule.Rate = 0
	}
	m.w.WriteHeader(h.Status)
	return nil
}

// addLines adds complete lines ("Name: value\r\n"…) to header.
func addLines(header http.Header, lines []byte) {
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte("\r\n"))
		lines = rest
		if name, value, ok := bytes.Cut(line, []byte(":")); ok {
			key := textproto.CanonicalMIMEHeaderKey(string(name))
			header[key] = append(header[key], string(bytes.Trim(value, " \t")))
		}
	}
}

// wait has write move n bytes to the client, as long as it may take for them.
func (m *multiplexed) wait(n int, write func() (int, error)) (int, error) {
	n, late, slow, err := m.outward.wait(n, write)
	if late && err == nil {
		err = os.ErrDeadlineExceeded // the stream has been given up meanwhile
	}
	m.tooSlow = m.tooSlow || slow
	return n, err
}

// giveUp ends a wait for the client.
func (m *multiplexed) giveUp() { _ = m.control.SetWriteDeadline(past) }

// Write implements plugins.Stream.
func (m *multiplexed) Write(p []byte) (int, error) {
	switch {
	case m.err != nil:
		return 0, m.err
	case !m.head:
		return 0, errNoHead
	case len(p) == 0 || m.bodiless:
		return len(p), nil
	}
	if m.left >= 0 {
		if int64(len(p)) > m.left {
			return 0, errTooLong
		}
		m.left -= int64(len(p))
	}
	m.x.Record.BytesOut += int64(len(p))
	// In pieces, so that the time is for each of them.
	sent := 0
	for m.err == nil && sent < len(p) {
		piece := p[sent:min(sent+outSize, len(p))]
		var n int
		n, m.err = m.wait(len(piece), func() (int, error) { return m.w.Write(piece) })
		sent += n
	}
	return sent, m.err
}

// Flush implements plugins.Stream.
func (m *multiplexed) Flush() error {
	if m.err == nil {
		_, m.err = m.wait(0, func() (int, error) { return 0, m.control.Flush() })
	}
	return m.err
}

// Finish implements plugins.Stream. The end of the stream leaves when the
// handler returns.
func (m *multiplexed) Finish() error {
	switch {
	case m.err != nil:
		return m.err
	case !m.head:
		return errNoHead
	case m.left > 0:
		return errIncomplete
	}
	m.finished = true
	return nil
}

// Interim implements plugins.Stream.
func (m *multiplexed) Interim(status int, fields []byte) error {
	if m.head {
		return nil
	}
	header := m.w.Header()
	addLines(header, fields)
	_, err := m.wait(0, func() (int, error) {
		m.w.WriteHeader(status)
		return 0, m.r.Context().Err()
	})
	clear(header)
	return err
}

// Continue implements plugins.Stream: the first Read of the content says it.
func (m *multiplexed) Continue() error { return nil }

// StopReading implements plugins.Stream. Other streams of the connection go on.
func (m *multiplexed) StopReading() { _ = m.control.SetReadDeadline(past) }

// Trailer implements plugins.Stream.
func (m *multiplexed) Trailer(lines []byte) {
	trailer := http.Header{}
	addLines(trailer, lines)
	header := m.w.Header()
	for name, values := range trailer {
		header[http.TrailerPrefix+name] = values
	}
}

// Gone implements plugins.Stream.
func (m *multiplexed) Gone() bool { return m.r.Context().Err() != nil }

// Upgrade implements plugins.Stream: HTTP/2 has no change of protocol (RFC
// 9113, 8.6).
func (m *multiplexed) Upgrade(plugins.ResponseHead) (plugins.Tunnel, error) {
	return nil, errors.ErrUnsupported
}

// Watch implements plugins.Stream.
func (m *multiplexed) Watch(to plugins.Watched) {
	w := &m.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watched = to
	if to == nil || w.stop != nil {
		return
	}
	w.stop = context.AfterFunc(m.r.Context(), w.abort)
	w.timer = time.AfterFunc(sweepEvery, func() { w.look(m.server.now(), m.server.stopping.Load()) })
}

// end stops what runs beside the exchange.
func (m *multiplexed) end() {
	m.Watch(nil)
	if m.watch.stop != nil {
		m.watch.stop()
		m.watch.timer.Stop()
	}
}

// muxWatch ends what an exchange waits for when the stream was reset, or the
// connection is gone, or the exchange is due.
type muxWatch struct {
	mu      sync.Mutex
	watched plugins.Watched
	stop    func() bool
	timer   *time.Timer
}

func (w *muxWatch) abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watched != nil {
		w.watched.Abort()
		w.watched = nil
	}
}

func (w *muxWatch) look(now time.Time, stopping bool) {
	w.mu.Lock()
	due := w.watched != nil && w.watched.Due(now, stopping)
	if w.watched != nil && !due {
		w.timer.Reset(lookAtMost)
	}
	w.mu.Unlock()
	if due {
		w.abort()
	}
}
