// Package plugintest helps to test plugins without a network: it makes
// Exchanges, records what is answered to the client, and runs files that must
// not load.
//
// It owns no policy and no socket; the whole way over a connection is tested
// in gateway/server.
//
//	x := plugintest.New("GET", "api.example.com", "/orders?page=2", "Accept: */*")
//	err := step(plugintest.OK)(x)
//	fmt.Println(plugintest.Client(x).Status)
package plugintest

import (
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/gatehouse/gatehouse/plugins"
)

// Time is when the Exchanges of New arrived, so that tests need no clock.
var Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// New makes the exchange of one request without content from 192.0.2.1. target
// is a canonical path, with a query or not; each header is "Name: value". It
// panics on a header of another form. The client's side is a *Recorder.
func New(method, host, target string, header ...string) *plugins.Exchange {
	path, query, hasQuery := strings.Cut(target, "?")
	peer := netip.AddrFrom4([4]byte{192, 0, 2, 1})
	x := &plugins.Exchange{
		Method:    []byte(method),
		Host:      []byte(strings.ToLower(host)),
		Authority: []byte(host),
		Path:      []byte(path),
		Query:     []byte(query),
		HasQuery:  hasQuery,
		Peer:      peer,
		ClientIP:  peer,
		Time:      Time,
		RequestID: []byte("test-request"),
	}
	x.Client = &Recorder{x: x}
	for _, line := range header {
		name, value, ok := strings.Cut(line, ": ")
		if !ok || name == "" {
			panic("plugintest: header is not \"Name: value\": " + line)
		}
		x.Fields = append(x.Fields, plugins.Field{
			Name: []byte(name), Value: []byte(value), Line: []byte(line + "\r\n"),
		})
	}
	return x
}

// WithBody gives x content of a known length.
func WithBody(x *plugins.Exchange, content string) *plugins.Exchange {
	x.Body, x.BodyLength = strings.NewReader(content), int64(len(content))
	return x
}

// OK is a last Handler that answers 200 without content.
func OK(x *plugins.Exchange) error {
	head := plugins.ResponseHead{Status: 200}
	if err := x.Client.WriteHead(head); err != nil {
		return err
	}
	return x.Client.Finish()
}

// Client is the Recorder of an exchange that New made.
func Client(x *plugins.Exchange) *Recorder { return x.Client.(*Recorder) }

// Recorder is a plugins.Stream that keeps what it is told.
type Recorder struct {
	// Status is 0 until the head was written.
	Status int
	Head   plugins.ResponseHead
	// Fields is a copy of the lines that the client sees, Content of what was
	// written.
	Fields   string
	Content  strings.Builder
	Flushes  int
	Finished bool
	// Interims are the status codes of the interim responses.
	Interims  []int
	Continued bool
	Trailers  string
	// Watched is whom the step waits for, nil in the end.
	Watched plugins.Watched
	// Stopped tells that the content was refused.
	Stopped bool
	// Left makes the client one that has gone: writes fail.
	Left bool

	x *plugins.Exchange
}

// WriteHead keeps the head; a second one is an error.
func (r *Recorder) WriteHead(h plugins.ResponseHead) error {
	if r.Status != 0 {
		return io.ErrShortWrite
	}
	r.Status, r.Head, r.Fields = h.Status, h, string(h.Fields)
	if r.x != nil {
		r.Fields = string(r.x.AppendHead(nil, &h))
	}
	r.Head.Fields = nil
	return nil
}

// Write keeps the content.
func (r *Recorder) Write(p []byte) (int, error) {
	if r.Left || r.Status == 0 {
		return 0, io.ErrClosedPipe
	}
	return r.Content.Write(p)
}

// Flush counts.
func (r *Recorder) Flush() error { r.Flushes++; return nil }

// Finish marks the response as complete.
func (r *Recorder) Finish() error { r.Finished = true; return nil }

// Interim keeps the status.
func (r *Recorder) Interim(status int, _ []byte) error {
	r.Interims = append(r.Interims, status)
	return nil
}

// Continue is remembered.
func (r *Recorder) Continue() error { r.Continued = true; return nil }

// StopReading is remembered.
func (r *Recorder) StopReading() { r.Stopped = true }

// Trailer keeps the lines.
func (r *Recorder) Trailer(lines []byte) { r.Trailers = string(lines) }

// Upgrade fails: there is no connection.
func (r *Recorder) Upgrade(plugins.ResponseHead) (plugins.Tunnel, error) {
	return nil, io.ErrClosedPipe
}

// Watch keeps who is watched.
func (r *Recorder) Watch(w plugins.Watched) { r.Watched = w }

// Gone reports Left.
func (r *Recorder) Gone() bool { return r.Left }
