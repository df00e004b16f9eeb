package forward

import (
	"errors"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/gatehouse/gatehouse/gateway/pace"
	"github.com/gatehouse/gatehouse/gateway/upstream"
	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

// statusClientGone is recorded when the client left first, as nginx does.
const statusClientGone = 499

var (
	errSwitched = errors.New("answered 101 although no change of protocol was asked for")
	errInterims = errors.New("too many interim answers")
)

// maxInterims bounds the interim answers to one request.
const maxInterims = 16

// answer sends the request, unless an upload did, and reads heads up to the
// final one, which it leaves in sc.
func (f *forwarder) answer(x *plugins.Exchange, c *upstream.Conn, sc *scratch, deadline, began time.Time) error {
	head, err := f.firstHead(x, c, deadline)
	for range maxInterims {
		if err != nil {
			return err
		}
		sc.lines, sc.fields, err = wire.ScanResponse(head, &sc.answer, sc.lines[:0], sc.fields)
		if err != nil {
			return err
		}
		switch status := sc.answer.Status; {
		case status >= http.StatusOK:
			x.Record.Upstream = f.now().Sub(began)
			return nil
		case status == http.StatusSwitchingProtocols:
			return f.accepted(x, sc)
		case status == http.StatusEarlyHints:
			if err := x.Client.Interim(status, sc.lines); err != nil {
				return &plugins.Error{Status: statusClientGone, Code: plugins.ClientGone, Err: err}
			}
		}
		head, err = c.ReadHead(deadline)
	}
	return errInterims
}

func (f *forwarder) firstHead(x *plugins.Exchange, c *upstream.Conn, deadline time.Time) ([]byte, error) {
	if x.Body != nil && len(x.Content) == 0 {
		return c.ReadHead(deadline)
	}
	return c.RoundTrip(deadline)
}

// respond sends the answer to the client. A failure after the head was written
// leaves the response incomplete on purpose: the client must not take a part
// for the whole (EDGE: S45).
func (f *forwarder) respond(x *plugins.Exchange, c *upstream.Conn, sc *scratch) *plugins.Error {
	a := &sc.answer
	length := a.Length
	switch {
	case string(x.Method) == http.MethodHead || a.Status == http.StatusNoContent || a.Status == http.StatusNotModified:
		length = 0
		c.BodyLength(0)
	case a.Chunked:
		c.BodyChunked()
	case length >= 0:
		c.BodyLength(length)
	default:
		a.Close = true
		c.BodyUntilClose()
	}
	err := x.Client.WriteHead(plugins.ResponseHead{
		Status: a.Status, Reason: a.Reason, Fields: sc.lines, Length: length, Date: !a.HasDate, Live: a.EventStream,
	})
	if err != nil {
		return gone(err)
	}
	rule := f.pace
	if a.EventStream || c.Remaining() < 0 {
		rule.Rate = 0 // it may be made while it is sent
	}
	if a.EventStream {
		rule.Idle = f.streams.IdleTimeout
		x.Client.Watch(nil)
		sc.enter(x, f.streams, false, f.now())
		x.Client.Watch(&sc.standing)
	}
	if failure := f.copyContent(x, c, &rule); failure != nil {
		return failure
	}
	if a.Chunked && len(c.Trailers()) > 0 {
		sc.lines = wire.AppendTrailers(sc.lines[:0], c.Trailers())
		x.Client.Trailer(sc.lines)
	}
	if err := x.Client.Finish(); err != nil {
		return gone(err)
	}
	return nil
}

func gone(err error) *plugins.Error {
	return &plugins.Error{Status: statusClientGone, Code: plugins.ClientGone, Err: err}
}

// copyContent streams content to the client. What has arrived is never held
// back while more is awaited. The clock is looked at only where the instance is
// waited for.
func (f *forwarder) copyContent(x *plugins.Exchange, c *upstream.Conn, rule *pace.Rule) *plugins.Error {
	deadline, meter, fast := x.Time.Add(f.request+rule.Idle), rule.Begin(), true
	var asked time.Time
	if len(c.Buffered()) == 0 && !c.Ended() {
		// The head does not wait for content (EDGE: P9).
		if err := x.Client.Flush(); err != nil {
			return gone(err)
		}
		asked = f.now()
		deadline = asked.Add(rule.Patience(meter, 0))
	}
	for {
		p, err := c.Next(deadline)
		if err != nil && err != io.EOF {
			return slowly(f.failed(x, c, err), rule.Short(meter))
		}
		if rule.Rate > 0 && !asked.IsZero() {
			meter.Waited(rule, int64(len(p)), f.now().Sub(asked))
		}
		if len(p) > 0 {
			if _, err := x.Client.Write(p); err != nil {
				return gone(err)
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case c.Ended():
			if c.Remaining() == 0 {
				return nil
			}
			continue // the reader has its end still to return
		}
		if err := x.Client.Flush(); err != nil {
			return gone(err)
		}
		if fast {
			var done bool
			var failure *plugins.Error
			if done, fast, failure = f.splice(x, c, rule.Patience(meter, 0)); done || failure != nil {
				return failure
			}
		}
		asked = f.now()
		deadline = asked.Add(rule.Patience(meter, 0))
	}
}

// slowly gives a timeout that came of the minimum rate its own reason.
func slowly(failure *plugins.Error, short bool) *plugins.Error {
	if short && failure.Code == plugins.UpstreamTimeout {
		failure.Code = plugins.UpstreamTooSlow
	}
	return failure
}

const (
	// spliceFrom is the length from which content is worth moving in the kernel.
	spliceFrom, splicePiece = 64 << 10, 1 << 20
	// spliceWait is how long a piece may take before content is copied again:
	// what is moved in the kernel does not tell who was waited for.
	spliceWait = 5 * time.Second
)

type splicer interface {
	Splice(src *net.TCPConn, n int64) (moved int64, ok bool, err error)
}

// splice moves the rest of long content between two plain connections without
// copying it, as long as it moves fast. done is false where the rest is to be
// copied, and again tells whether it is worth another try.
func (f *forwarder) splice(x *plugins.Exchange, c *upstream.Conn, patience time.Duration) (done, again bool, failure *plugins.Error) {
	to, ok := x.Client.(splicer)
	if !ok || c.Remaining() < spliceFrom || len(c.Buffered()) > 0 {
		return false, ok, nil
	}
	for c.Remaining() > 0 {
		src := c.TCP(f.now().Add(min(patience, spliceWait)))
		if src == nil {
			return false, false, nil
		}
		moved, ok, err := to.Splice(src, min(c.Remaining(), splicePiece))
		if !ok && err == nil {
			return false, false, nil
		}
		c.Advance(moved)
		switch {
		case err != nil && x.Client.Gone():
			return true, false, gone(err)
		case isTimeout(err):
			return false, false, nil
		case err != nil:
			return true, false, f.failed(x, c, err)
		case moved == 0:
			return true, false, f.failed(x, c, io.ErrUnexpectedEOF)
		}
	}
	return true, false, nil
}

// failed turns a failure of the way to the instance into the error that the
// steps and the client see, and tells whether the attempt may be repeated.
func (f *forwarder) failed(x *plugins.Exchange, c *upstream.Conn, err error) *plugins.Error {
	var own *plugins.Error
	if errors.As(err, &own) {
		return own
	}
	if x.Client.Gone() {
		return gone(err)
	}
	sent := c != nil && c.Sent()
	answered := c != nil && c.Answered()
	replayable := x.Body == nil || len(x.Content) > 0
	if !sent && replayable {
		x.Replay = plugins.ReplaySafe
	}
	switch {
	case errors.Is(err, upstream.ErrBusy):
		return &plugins.Error{Status: http.StatusServiceUnavailable, Code: plugins.UpstreamBusy, Header: retrySoon, Err: err}
	case errors.Is(err, upstream.ErrTimeout), isTimeout(err):
		return &plugins.Error{Status: http.StatusGatewayTimeout, Code: plugins.UpstreamTimeout, Err: err}
	case errors.Is(err, upstream.ErrConnect):
		return &plugins.Error{Status: http.StatusBadGateway, Code: plugins.UpstreamConnect, Err: err}
	case errors.Is(err, upstream.ErrReset), errors.Is(err, io.ErrUnexpectedEOF):
		if sent && !answered && replayable && idempotent(x.Method) {
			x.Replay = plugins.ReplayIdempotent
		}
		return &plugins.Error{Status: http.StatusBadGateway, Code: plugins.UpstreamReset, Err: err}
	}
	return &plugins.Error{Status: http.StatusBadGateway, Code: plugins.UpstreamInvalid, Err: err}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
