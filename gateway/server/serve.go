package server

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime/debug"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// state is everything that one exchange needs; pooled.
type state struct {
	server  *Server
	x       plugins.Exchange
	out     outlet // &stream, but for multiplexed exchanges
	stream  stream
	body    content
	counted counted
	chunked chunked
	req     wire.Request
	path    []byte
	host    []byte
	id      [32]byte
	lines   []byte
	// certTold: the peer, if it is trusted, may tell the client's certificate.
	certTold bool
}

func (s *Server) newState() *state {
	st := &state{server: s, path: make([]byte, 0, 256), host: make([]byte, 0, 64), lines: make([]byte, 0, 256)}
	st.out = &st.stream
	st.stream.out = make([]byte, 0, outSize)
	return st
}

// serveHTTP1 is the life of a connection that speaks HTTP/1.1.
func (s *Server) serveHTTP1(nc net.Conn) error {
	c := nc.(*conn)
	defer c.Return()
	for {
		head, err := c.readHead()
		if err != nil {
			s.unreadable(c, err)
			return nil
		}
		st := s.states.Get().(*state)
		st.open(c)
		if err := st.begin(head); err != nil {
			st.turnAway(err)
		} else {
			st.run()
		}
		if !s.finish(st) {
			return nil
		}
	}
}

// open ties st to the connection for one exchange.
func (st *state) open(c *conn) {
	x := &st.x
	x.Time = st.server.now()
	x.TLS, x.Peer, x.ClientIP = c.tls, c.peer, c.peer
	x.ClientCert, st.certTold = c.clientCert(), c.certTold
	st.stream.reset(c, x)
	x.Client = &st.stream
	st.identify()
	c.watch.begin(x.Time)
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

// finish ends the exchange and reports whether the connection can carry
// another one.
func (s *Server) finish(st *state) (again bool) {
	c := st.stream.c
	now := s.now()
	took := now.Sub(st.x.Time)
	for _, r := range s.recorders {
		r.Record(&st.x, took)
	}
	// Content that is still on its way must not be taken for the next request,
	// whatever the answer promised.
	pending := st.body.pending()
	again = st.stream.keep() && !pending
	c.linger = st.stream.finished && pending || st.stream.tunnelled
	st.chunked.end()
	c.watch.end()
	c.ready(now)
	st.release()
	return again
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

// begin sends a head through the gate. The error is a refusal that ends the
// connection.
func (st *state) begin(raw []byte) error {
	x := &st.x
	method, target, http10, header, err := wire.CutRequestLine(raw)
	x.Method, x.HTTP10 = method, http10
	switch {
	case errors.Is(err, wire.ErrVersion):
		return &plugins.Error{Status: http.StatusHTTPVersionNotSupported, Code: plugins.VersionNotAllowed, Err: err}
	case err != nil:
		return malformed(err)
	}
	if err := st.admit(target, header); err != nil {
		return err
	}
	st.stream.close = st.req.Close || x.HTTP10 && !st.req.KeepAlive
	st.stream.trailers = st.req.Trailers
	x.WebSocket = st.req.Upgrading && wire.EqualFold(st.req.Upgrade, "websocket") && !x.HTTP10 &&
		string(x.Method) == http.MethodGet && st.req.Length <= 0 && !st.req.Chunked
	return st.frame()
}

// admit is the request gate, the same for every version of HTTP: one strict
// pass over the head decides what the request is. Method, HTTP10, TLS and Peer
// are set before; what delimits the content is the caller's.
func (st *state) admit(target, head []byte) error {
	x := &st.x
	x.ClientIP = x.Peer
	if len(target) > int(st.server.limits.MaxURLBytes) {
		return urlTooLong
	}
	var err error
	if x.Fields, err = wire.ScanRequest(head, &st.req, x.Fields[:0], st.server.limits.MaxHeaders); err != nil {
		if errors.Is(err, wire.ErrTooMany) {
			return &plugins.Error{Status: http.StatusRequestHeaderFieldsTooLarge, Code: plugins.HeaderTooLarge, Err: err}
		}
		return malformed(err)
	}
	if st.server.limits.UnderscoreHeaders == "reject" && underscored(x.Fields) {
		return malformed(errUnderscore)
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

var urlTooLong = &plugins.Error{Status: http.StatusRequestURITooLong, Code: plugins.URLTooLong}

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
	errOldFraming   = errors.New("content in an HTTP/1.0 request without a length")
	errUnderscore   = errors.New("underscore in the name of a field")
	errTokensInHead = errors.New("more than one Authorization field")
)

// underscored reports a field with '_' in its name (EDGE: S07).
func underscored(fields []plugins.Field) bool {
	for i := range fields {
		if bytes.IndexByte(fields[i].Name, '_') >= 0 {
			return true
		}
	}
	return false
}

// frame finds out what delimits the content (RFC 9112, 6.3).
func (st *state) frame() error {
	x, c := &st.x, st.stream.c
	switch {
	case st.req.Chunked && x.HTTP10:
		return malformed(errOldFraming)
	case st.req.Chunked:
		x.BodyLength = -1
		st.chunked.reset(c)
		st.body = content{state: st, from: &st.chunked, left: -1}
	case st.req.Length > 0:
		x.BodyLength = st.req.Length
		st.counted.c = c
		st.body = content{state: st, from: &st.counted, left: st.req.Length}
	default:
		return nil
	}
	if x.HTTP10 && string(x.Method) != http.MethodPost && string(x.Method) != http.MethodPut {
		return malformed(errOldFraming)
	}
	if limit := int64(st.server.limits.MaxBodyBytes); limit > 0 && x.BodyLength > limit {
		return &plugins.Error{Status: http.StatusRequestEntityTooLarge, Code: plugins.BodyTooLarge}
	}
	st.stream.expect = st.req.Expect != nil && !x.HTTP10
	c.inward = st.server.inward.Begin()
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

// unreadable answers what could not be taken for a request.
func (s *Server) unreadable(c *conn, err error) {
	if !c.seen {
		return // nothing was asked: a connection that timed out or was closed
	}
	e := &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest, Err: err}
	switch {
	case errors.Is(err, errHeadTooLarge) && bytes.IndexByte((*c.buf)[c.r:c.w], '\n') < 0:
		e = urlTooLong // not even the request line is complete
	case errors.Is(err, errHeadTooLarge):
		e.Status, e.Code = http.StatusRequestHeaderFieldsTooLarge, plugins.HeaderTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		e.Status, e.Code = http.StatusRequestTimeout, plugins.RequestTimeout
	case errors.Is(err, wire.ErrLineEnd), errors.Is(err, errBlankLines):
	default:
		return // the client left in the middle of its head
	}
	st := s.states.Get().(*state)
	st.open(c)
	st.turnAway(e)
	s.finish(st)
	c.linger = true
}
