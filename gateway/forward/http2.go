package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse/gatehouse/gateway/pace"
	"github.com/gatehouse/gatehouse/gateway/upstream"
	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

var (
	errTimeout = &upstream.Error{Kind: upstream.ErrTimeout, Phase: upstream.PhaseHead}
	errLeft    = errors.New("the client left")
	errOver    = errors.New("the exchange is over")
)

// call is one attempt over HTTP/2. It has a clock of its own: the attempt ends
// when nothing moved for too long, in either direction.
type call struct {
	f      *forwarder
	x      *plugins.Exchange
	sc     *scratch
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	idle   atomic.Int64 // between two pieces of content
	headed atomic.Bool  // the answer's head is there
	up     *outgoing    // nil: there is nothing to send beside the answer
	hints  chan []byte

	ending sync.Mutex
	over   bool // guarded by ending: the exchange is not ours any more
}

// attemptHTTP2 is attempt for a service that speaks HTTP/2. status is what
// upstream.Judge should think of the answer.
func (f *forwarder) attemptHTTP2(x *plugins.Exchange, inst *upstream.Instance, sc *scratch) (status int, failure *plugins.Error) {
	c := &call{f: f, x: x, sc: sc, hints: make(chan []byte, maxInterims)}
	c.idle.Store(int64(f.idle))
	if x.Body != nil && len(x.Content) == 0 {
		c.up = &outgoing{call: c}
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	defer c.cancel(errOver)
	c.timer = time.AfterFunc(x.Time.Add(f.request).Sub(f.now()), c.late)
	defer c.timer.Stop()
	if limit, ok := grpcTimeout(x); ok {
		// The caller's deadline is for the whole call.
		whole := time.AfterFunc(x.Time.Add(limit).Sub(f.now()), c.late)
		defer whole.Stop()
	}
	sc.begin(c)
	x.Client.Watch(&sc.standing)
	defer x.Client.Watch(nil)
	began := f.now()
	x.Record.Unavailable = false
	resp, err := c.roundTrip(inst)
	defer c.stop(resp)
	if err != nil {
		return 0, c.failed(err)
	}
	x.Record.Upstream = f.now().Sub(began)
	if err := scanHead(resp, x, sc); err != nil {
		return 0, c.failed(err)
	}
	failure = c.respond(resp)
	if ended := sc.ended(); ended != nil && failure != nil {
		failure = ended
	}
	if status = sc.answer.Status; saysUnavailable(resp) {
		status, x.Record.Unavailable = http.StatusServiceUnavailable, true
	}
	return status, failure
}

// Abort implements aborter.
func (c *call) Abort() { c.end(errLeft) }

// AbortRead implements aborter.
func (c *call) AbortRead() { c.Abort() }

func (c *call) late() { c.end(errTimeout) }

// end ends the attempt, from any goroutine.
func (c *call) end(cause error) {
	c.cancel(cause)
	if c.up == nil {
		return
	}
	// While net/http waits for the client's content it looks for nothing else,
	// and the answer's reader waits with it.
	c.ending.Lock()
	defer c.ending.Unlock()
	if !c.over {
		c.up.stopped.Store(true)
		c.x.Client.StopReading()
	}
}

// moved starts the wait for the next piece of content.
func (c *call) moved() { c.timer.Reset(time.Duration(c.idle.Load())) }

// roundTrip sends the request and waits for the final head. Interim answers
// reach the client meanwhile.
func (c *call) roundTrip(inst *upstream.Instance) (*http.Response, error) {
	if c.up != nil {
		if err := c.x.Client.Continue(); err != nil {
			return nil, gone(err)
		}
	}
	r := c.request()
	type result struct {
		resp *http.Response
		err  error
	}
	done := make(chan result, 1)
	go func() {
		resp, err := inst.RoundTrip(r)
		done <- result{resp, err}
	}()
	for {
		select {
		case head := <-c.hints:
			sc := c.sc
			var err error
			if sc.lines, sc.fields, err = wire.ScanResponse(head, &sc.answer, sc.lines[:0], sc.fields); err != nil {
				c.end(err)
			} else if err := c.x.Client.Interim(http.StatusEarlyHints, sc.lines); err != nil {
				c.end(errLeft)
			}
		case got := <-done:
			return got.resp, got.err
		}
	}
}

// request renders the exchange for net/http.
func (c *call) request() *http.Request {
	x := c.x
	r := &http.Request{
		Method: string(x.Method), Host: string(x.Authority), Header: make(http.Header, len(x.Fields)+8),
		URL:   &url.URL{Opaque: string(x.Target()), RawQuery: string(x.Query), ForceQuery: x.HasQuery},
		Proto: "HTTP/2.0", ProtoMajor: 2,
	}
	eachLine(c.f.appendLines(make([]byte, 0, 1024), x), func(name string, value string) {
		switch name {
		case "Host", "Content-Length":
		default:
			r.Header[name] = append(r.Header[name], value)
		}
	})
	// Trailers are understood here (RFC 9110, 10.1.4); gRPC insists on it.
	r.Header["Te"] = []string{"trailers"}
	if r.Header["User-Agent"] == nil {
		r.Header["User-Agent"] = []string{""} // else net/http says its own
	}
	switch {
	case c.up != nil:
		r.Body, r.ContentLength = c.up, x.BodyLength
	case len(x.Content) > 0:
		content := bytes.Clone(x.Content) // net/http may read on when the exchange is over
		r.ContentLength = int64(len(content))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
		r.Body, _ = r.GetBody()
	}
	trace := &httptrace.ClientTrace{Got1xxResponse: c.interim}
	return r.WithContext(httptrace.WithClientTrace(c.ctx, trace))
}

// interim keeps an early hint for roundTrip: the goroutine that calls it serves
// other requests too and must not wait for this client.
func (c *call) interim(status int, header textproto.MIMEHeader) error {
	if status == http.StatusEarlyHints {
		select {
		case c.hints <- appendHead(nil, status, http.Header(header)):
		default:
		}
	}
	return nil
}

// eachLine calls f for each of complete lines, with the name in canonical form.
func eachLine(lines []byte, f func(name, value string)) {
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte("\r\n"))
		lines = rest
		if name, value, ok := bytes.Cut(line, []byte(":")); ok {
			f(textproto.CanonicalMIMEHeaderKey(string(name)), string(bytes.Trim(value, " \t")))
		}
	}
}

// appendHeader renders header as lines, sorted by name.
func appendHeader(b []byte, header http.Header) []byte {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			b = append(append(b, name...), ": "...)
			b = append(append(b, value...), '\r', '\n')
		}
	}
	return b
}

// appendHead renders a head as HTTP/1.1 has it.
func appendHead(b []byte, status int, header http.Header) []byte {
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(status), 10)
	b = appendHeader(append(b, " \r\n"...), header)
	return append(b, '\r', '\n')
}

// scanHead sends the answer's head through the same scan as one of HTTP/1.1.
func scanHead(resp *http.Response, x *plugins.Exchange, sc *scratch) error {
	bodiless := string(x.Method) == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	if resp.ContentLength == 0 && !bodiless && resp.Header["Content-Length"] == nil {
		resp.Header["Content-Length"] = []string{"0"} // the stream ended with the head
	}
	var err error
	head := appendHead(make([]byte, 0, 1024), resp.StatusCode, resp.Header)
	sc.lines, sc.fields, err = wire.ScanResponse(head, &sc.answer, sc.lines[:0], sc.fields)
	sc.answer.Reason = nil
	return err
}

// respond sends the answer to the client; see forwarder.respond.
func (c *call) respond(resp *http.Response) *plugins.Error {
	x, sc, a := c.x, c.sc, &c.sc.answer
	length := a.Length
	if string(x.Method) == http.MethodHead || a.Status == http.StatusNoContent || a.Status == http.StatusNotModified {
		length = 0
	}
	c.headed.Store(true)
	c.moved()
	stream := a.EventStream || isGRPC(resp) && length < 0
	err := x.Client.WriteHead(plugins.ResponseHead{Status: a.Status, Fields: sc.lines, Length: length, Date: !a.HasDate, Live: stream})
	if err == nil && length < 0 {
		err = x.Client.Flush() // the content may be long in coming
	}
	if err != nil {
		return gone(err)
	}
	rule := c.f.pace
	if stream || length < 0 {
		rule.Rate = 0 // it may be made while it is sent
	}
	if stream {
		x.Client.Watch(nil)
		c.idle.Store(int64(c.f.streams.IdleTimeout))
		c.moved()
		sc.enter(x, c.f.streams, false, c.f.now())
		if !a.EventStream {
			sc.patience = x.Time.Add(c.f.request) // it may be a unary call
		}
		x.Client.Watch(&sc.standing)
	}
	if failure := c.copyContent(resp.Body, length, &rule); failure != nil {
		return failure
	}
	if len(resp.Trailer) > 0 {
		sc.lines = wire.AppendTrailers(sc.lines[:0], appendHeader(nil, resp.Trailer))
		x.Client.Trailer(sc.lines)
	}
	if err := x.Client.Finish(); err != nil {
		return gone(err)
	}
	return nil
}

var buffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// copyContent streams content to the client; what has arrived is never held
// back. While the client does not take a piece, no other is read, and the
// stream's window closes.
func (c *call) copyContent(from io.Reader, left int64, rule *pace.Rule) *plugins.Error {
	buf := buffers.Get().(*[copySize]byte)
	defer buffers.Put(buf)
	meter := rule.Begin()
	for {
		var asked time.Time
		short := rule.Short(meter)
		if rule.Rate > 0 {
			asked = c.f.now()
			c.timer.Reset(rule.Patience(meter, 0))
		}
		n, err := from.Read(buf[:])
		if rule.Rate > 0 {
			meter.Waited(rule, int64(n), c.f.now().Sub(asked))
		}
		if n > 0 {
			left -= int64(n)
			c.moved()
			if _, err := c.x.Client.Write(buf[:n]); err != nil {
				return gone(err)
			}
			if left != 0 && err == nil {
				if err := c.x.Client.Flush(); err != nil {
					return gone(err)
				}
			}
			c.moved()
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			if cause := context.Cause(c.ctx); cause != nil {
				err = cause
			} else {
				err = &upstream.Error{Kind: io.ErrUnexpectedEOF, Phase: upstream.PhaseBody, Err: err}
			}
			return slowly(c.failed(err), short)
		}
	}
}

// failed is forwarder.failed for an attempt over HTTP/2.
func (c *call) failed(err error) *plugins.Error {
	if c.up != nil && c.up.failed() != nil {
		return contentError(c.up.failed())
	}
	x := c.x
	var own *plugins.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, errLeft), x.Client.Gone():
		return gone(err)
	}
	untouched := c.up == nil || c.up.read.Load() == 0
	if untouched && (errors.Is(err, upstream.ErrConnect) || errors.Is(err, upstream.ErrBusy)) {
		x.Replay = plugins.ReplaySafe
	}
	switch {
	case errors.Is(err, upstream.ErrBusy):
		return &plugins.Error{Status: http.StatusServiceUnavailable, Code: plugins.UpstreamBusy, Header: retrySoon, Err: err}
	case errors.Is(err, upstream.ErrTimeout):
		return &plugins.Error{Status: http.StatusGatewayTimeout, Code: plugins.UpstreamTimeout, Err: err}
	case errors.Is(err, upstream.ErrConnect):
		return &plugins.Error{Status: http.StatusBadGateway, Code: plugins.UpstreamConnect, Err: err}
	case errors.Is(err, upstream.ErrReset), errors.Is(err, io.ErrUnexpectedEOF):
		if c.up == nil && idempotent(x.Method) {
			x.Replay = plugins.ReplayIdempotent
		}
		return &plugins.Error{Status: http.StatusBadGateway, Code: plugins.UpstreamReset, Err: err}
	}
	return &plugins.Error{Status: http.StatusBadGateway, Code: plugins.UpstreamInvalid, Err: err}
}

// stop ends what still runs for the exchange and waits for it. Only then the
// answer is closed, because net/http may wait for the client's content there.
func (c *call) stop(resp *http.Response) {
	c.cancel(errOver)
	c.ending.Lock()
	c.over = true
	c.ending.Unlock()
	if c.up != nil {
		c.up.stop()
	}
	if resp != nil {
		_ = resp.Body.Close()
	}
}

// outgoing is the client's content as net/http reads it, from a goroutine of
// its own.
type outgoing struct {
	call    *call
	read    atomic.Int64
	stopped atomic.Bool
	reading sync.Mutex // held while the client is read from
	err     error      // guarded by reading
}

// Read implements io.Reader.
func (o *outgoing) Read(p []byte) (int, error) {
	o.reading.Lock()
	defer o.reading.Unlock()
	if o.stopped.Load() {
		return 0, errOver
	}
	n, err := o.call.x.Body.Read(p)
	o.read.Add(int64(n))
	switch {
	case err == io.EOF:
		if o.call.headed.Load() {
			o.call.moved()
		} else {
			o.call.timer.Reset(o.call.f.request)
		}
	case err != nil && o.stopped.Load():
		// It was ended here.
	case err != nil:
		o.err = err
	default:
		o.call.moved()
	}
	return n, err
}

// Close implements io.Closer: net/http wants no more. A Read under way goes on.
func (o *outgoing) Close() error {
	o.stopped.Store(true)
	return nil
}

// failed is why the client's content could not be read; nil while it can.
func (o *outgoing) failed() error {
	if !o.reading.TryLock() {
		return nil
	}
	defer o.reading.Unlock()
	return o.err
}

// stop waits until the client is not read from any more, whose exchange is
// over.
func (o *outgoing) stop() {
	o.stopped.Store(true)
	if !o.reading.TryLock() {
		o.call.x.Client.StopReading()
		o.reading.Lock()
	}
	o.reading.Unlock()
}

// isGRPC reports an answer of gRPC, which may go on as a stream.
func isGRPC(resp *http.Response) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc")
}

// saysUnavailable reports the answer of a gRPC service that does not serve now,
// which counts like 503.
func saysUnavailable(resp *http.Response) bool {
	const unavailable = "14"
	return resp.Trailer.Get("Grpc-Status") == unavailable || resp.Header.Get("Grpc-Status") == unavailable
}

// grpcTimeout reads how long the caller gives the call: up to eight digits and
// a unit.
func grpcTimeout(x *plugins.Exchange) (time.Duration, bool) {
	v, n := x.Field("grpc-timeout")
	if n != 1 || len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	unit, ok := map[byte]time.Duration{
		'H': time.Hour, 'M': time.Minute, 'S': time.Second,
		'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond,
	}[v[len(v)-1]]
	count, err := strconv.ParseUint(string(v[:len(v)-1]), 10, 32)
	if !ok || err != nil {
		return 0, false
	}
	if limit := time.Duration(1<<63-1) / unit; time.Duration(count) > limit {
		return time.Duration(1<<63 - 1), true
	}
	return time.Duration(count) * unit, true
}
