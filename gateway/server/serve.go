package server

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime/debug"

	"github.com/valyala/fasthttp"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// state is everything that one exchange needs; pooled.
type state struct {
	server *Server
	x      plugins.Exchange
	stream stream
	body   content
	req    wire.Request
	path   []byte
	host   []byte
	id     [32]byte
	lines  []byte

	// An exchange whose client waits for 100 (Continue) runs beside fasthttp;
	// see expect.
	wanted   chan struct{}
	provided chan io.Reader
	done     chan struct{}
}

func (s *Server) newState() *state {
	st := &state{server: s, path: make([]byte, 0, 256), host: make([]byte, 0, 64), lines: make([]byte, 0, 256)}
	st.stream.out = make([]byte, 0, outSize)
	return st
}

// serve is the one top handler.
func (s *Server) serve(ctx *fasthttp.RequestCtx) {
	c := ctx.Conn().(*conn)
	if st := c.waiting; st != nil {
		s.resume(ctx, st)
		return
	}
	st := s.states.Get().(*state)
	if err := st.begin(ctx, c); err != nil {
		st.turnAway(err)
	} else {
		st.run()
	}
	s.finish(ctx, st)
}

// turnAway refuses what did not pass the gate; the connection ends, because
// what follows on it cannot be trusted either.
func (st *state) turnAway(err error) {
	st.server.malformed.Add(1)
	st.stream.close = true
	st.refuse(err)
}

// run hands the exchange to the gateway and renders its error. A panic of any
// step costs one request, never the process.
func (st *state) run() {
	defer func() {
		if v := recover(); v != nil {
			st.server.logger.Error("panic while serving a request", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			st.refuse(&plugins.Error{Status: http.StatusInternalServerError, Code: plugins.Internal})
		}
	}()
	if err := st.server.handler(&st.x); err != nil {
		st.refuse(err)
	}
}

// finish ends the exchange: record, connection's fate, reset.
func (s *Server) finish(ctx *fasthttp.RequestCtx, st *state) {
	c := st.stream.c
	now := s.now()
	took := now.Sub(st.x.Time)
	for _, r := range s.recorders {
		r.Record(&st.x, took)
	}
	if !st.stream.keep() {
		c.linger = st.stream.finished && st.body.pending()
		ctx.SetConnectionClose()
	} else if st.body.pending() {
		// The answer promised another request on this connection but content
		// is still on its way: it must not be taken for the next request.
		c.linger = true
		ctx.SetConnectionClose()
	}
	c.ready(now)
	st.release()
}

func (st *state) release() {
	s := st.server
	st.x.Reset()
	st.stream.reset(nil, nil)
	st.body = content{}
	if cap(st.stream.out) > 4*outSize {
		st.stream.out = make([]byte, 0, outSize)
	}
	s.states.Put(st)
}

// begin takes over what fasthttp parsed and sends it through the gate. The
// error is a refusal that ends the connection.
func (st *state) begin(ctx *fasthttp.RequestCtx, c *conn) error {
	x := &st.x
	st.stream.reset(c, x)
	x.Client = &st.stream
	st.identify()
	h := &ctx.Request.Header
	x.Method = h.Method()
	x.TLS = c.tls
	x.ClientCert = c.clientCert()
	x.Peer = c.peer
	switch string(h.Protocol()) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		x.HTTP10 = true
	default:
		return &plugins.Error{Status: http.StatusHTTPVersionNotSupported, Code: plugins.VersionNotAllowed}
	}
	if err := st.admit(h.RequestURI(), h.RawHeaders()); err != nil {
		return err
	}
	st.stream.close = st.req.Close || x.HTTP10 && !st.req.KeepAlive
	return st.frame(ctx)
}

// admit is the request gate, the same for every version of HTTP: one strict
// pass over the head decides what the request is. Method, HTTP10, TLS and Peer
// are set before; what delimits the content is the caller's.
func (st *state) admit(target, head []byte) error {
	x := &st.x
	x.ClientIP = x.Peer
	var err error
	if x.Fields, err = wire.ScanRequest(head, &st.req, x.Fields[:0], st.server.limits.MaxHeaders); err != nil {
		if errors.Is(err, wire.ErrTooMany) {
			return &plugins.Error{Status: http.StatusRequestHeaderFieldsTooLarge, Code: plugins.HeaderTooLarge, Err: err}
		}
		return malformed(err)
	}
	if st.req.Authorizations > 1 {
		return malformed(errTokensInHead)
	}
	if err := st.target(target); err != nil {
		return err
	}
	if e := st.req.Expect; e != nil && !x.HTTP10 && !wire.EqualFold(e, "100-continue") {
		return &plugins.Error{Status: http.StatusExpectationFailed, Code: plugins.ExpectationFailed}
	}
	st.forwarding()
	return nil
}

func malformed(cause error) error {
	return &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest, Err: cause}
}

var (
	errMethod       = errors.New("CONNECT is not served")
	errTarget       = errors.New("invalid request target")
	errAuthority    = errors.New("target and Host name different authorities")
	errNoHost       = errors.New("no Host field")
	errHost         = errors.New("invalid Host")
	errPath         = errors.New("ambiguous path")
	errFraming      = errors.New("framing is ambiguous")
	errOldFraming   = errors.New("content in an HTTP/1.0 request without a length")
	errTokensInHead = errors.New("more than one Authorization field")
)

// frame takes over the content. The scan's reading of the framing must be
// fasthttp's, or the connection would get out of step.
func (st *state) frame(ctx *fasthttp.RequestCtx) error {
	x, length := &st.x, st.req.Length
	theirs := ctx.Request.Header.ContentLength()
	switch {
	case st.req.Chunked:
		if theirs != -1 {
			return malformed(errFraming)
		}
		x.BodyLength = -1
	case length > 0:
		if int64(theirs) != length {
			return malformed(errFraming)
		}
		x.BodyLength = length
	default:
		if theirs > 0 || theirs == -1 {
			return malformed(errFraming)
		}
		return nil
	}
	if x.HTTP10 && string(x.Method) != http.MethodPost && string(x.Method) != http.MethodPut {
		return malformed(errOldFraming)
	}
	if limit := int64(st.server.limits.MaxBodyBytes); limit > 0 && x.BodyLength > limit {
		return &plugins.Error{Status: http.StatusRequestEntityTooLarge, Code: plugins.BodyTooLarge}
	}
	st.body = content{state: st, from: ctx.RequestBodyStream(), left: x.BodyLength}
	x.Body = &st.body
	return nil
}

// target makes the one canonical host and path.
func (st *state) target(raw []byte) error {
	x := &st.x
	if string(x.Method) == http.MethodConnect {
		return &plugins.Error{Status: http.StatusMethodNotAllowed, Code: plugins.MethodNotAllowed, Err: errMethod,
			Header: [][2]string{{"Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"}}}
	}
	t, ok := wire.SplitTarget(raw)
	if !ok || t.Asterisk && string(x.Method) != http.MethodOptions {
		return malformed(errTarget)
	}
	if st.req.Hosts == 0 {
		// HTTP/1.0 may leave Host out, but then nothing tells which of the
		// gateway's hosts is meant (EDGE: S18).
		return malformed(errNoHost)
	}
	x.Authority = st.req.Host
	if t.Authority != nil && !bytes.EqualFold(t.Authority, x.Authority) {
		return malformed(errAuthority)
	}
	host, _, ok := routes.CanonicalHost(st.host[:0], x.Authority)
	if !ok {
		return malformed(errHost)
	}
	x.Host = host
	x.Query, x.HasQuery = t.Query, t.HasQuery
	if t.Asterisk {
		x.Path = raw
		return nil
	}
	// Whether an escaped slash is allowed is the route's to say: the router
	// sees it as it is, and refuses it unless the route opts in.
	path, ok := routes.CanonicalPath(st.path[:0], t.Path, true)
	if !ok {
		return malformed(errPath)
	}
	x.Path = path
	return nil
}

// identify gives the exchange its time and its id.
func (st *state) identify() {
	st.x.Time = st.server.now()
	var b [16]byte
	hi, lo := rand.Uint64(), rand.Uint64()
	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}
	hex.Encode(st.id[:], b[:])
	st.x.RequestID = st.id[:]
}

// unreadable answers what fasthttp could not take for a request.
func (s *Server) unreadable(ctx *fasthttp.RequestCtx, err error) {
	c := ctx.Conn().(*conn)
	if st := c.waiting; st != nil {
		// The content of an exchange that waits for it never came.
		c.waiting = nil
		st.provided <- failing{io.ErrUnexpectedEOF}
		<-st.done
		st.stream.close = true
		s.finish(ctx, st)
		return
	}
	if !c.seen {
		return // nothing was asked: a connection that timed out or was closed
	}
	e := &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest, Err: err}
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		e.Status, e.Code = http.StatusRequestHeaderFieldsTooLarge, plugins.HeaderTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.Status, e.Code = http.StatusRequestTimeout, plugins.RequestTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return // the client left in the middle of its head
	}
	st := s.states.Get().(*state)
	st.stream.reset(c, &st.x)
	st.x.Client = &st.stream
	st.x.Peer, st.x.ClientIP = c.peer, c.peer
	st.identify()
	st.turnAway(e)
	c.linger = true
	for _, r := range s.recorders {
		r.Record(&st.x, s.now().Sub(st.x.Time))
	}
	st.release()
}
