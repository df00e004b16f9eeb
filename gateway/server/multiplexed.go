package server

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
	"github.com/gatehouse/gatehouse/routes"
)

// origin is what the exchanges of a multiplexed connection have in common.
type origin struct {
	peer netip.Addr
	tls  bool
	cert *plugins.ClientCertificate
	// certTold: a balancer may tell the client's certificate in the head.
	certTold bool
	// name is the server name of the TLS handshake, empty if there was none.
	name string
	// covers reports whether the certificate for one name is good for the
	// other too; nil: none is.
	covers func(name, other string) bool
	// alternative: see Transport.
	alternative string
	// version is the major version of HTTP.
	version int
}

// serveMultiplexed is the life of one exchange over HTTP/2 or HTTP/3. Frames
// and compression are behind it; the head is rendered to the bytes that an
// HTTP/1.1 client would have sent and goes through the same gate. The order of
// fields with different names is lost on the way.
func (s *Server) serveMultiplexed(w http.ResponseWriter, r *http.Request, from *origin) {
	st := s.states.Get().(*state)
	x := &st.x
	x.Time = s.now()
	m := &multiplexed{server: s, x: x, w: w, r: r, control: http.NewResponseController(w), version: from.version, alternative: from.alternative}
	m.outward = newGuard(s.now, s.outward, m.giveUp)
	st.out, x.Client = m, m
	x.TLS, x.Peer, x.ClientIP, x.ClientCert = from.tls, from.peer, from.peer, from.cert
	st.certTold = from.certTold
	st.identify()
	s.streams.Add(1)
	if err := st.beginMultiplexed(m, from); err != nil {
		s.malformed.Add(1)
		st.refuse(err)
	} else {
		st.run()
	}
	m.end()
	took := s.now().Sub(x.Time)
	for _, recorder := range s.recorders {
		recorder.Record(x, took)
	}
	s.streams.Add(-1)
	st.out = &st.stream
	st.release()
	if !m.finished || m.err != nil {
		// The client must not take a part for the whole (EDGE: S45).
		panic(http.ErrAbortHandler)
	}
}

var (
	errMethodToken = errors.New("invalid method")
	errPathForm    = errors.New(":path does not begin with a slash")
	errInjection   = errors.New("control character in a field")
	errBlanks      = errors.New("blank around the value of a field")
	errAuthorities = errors.New(":authority and Host differ")
	errLengths     = errors.New("content-length is not the content's")
	errMisdirected = errors.New("the certificate of this connection is not for this host")
)

// beginMultiplexed sends the request through the gate. The error is a refusal.
func (st *state) beginMultiplexed(m *multiplexed, from *origin) error {
	x, r := &st.x, m.r
	method := []byte(r.Method)
	if !wire.Token(method) {
		return malformed(errMethodToken)
	}
	x.Method, x.GRPC = method, isGRPC(r.Header)
	if len(r.RequestURI) > int(st.server.limits.MaxURLBytes) {
		return urlTooLong
	}
	head, err := renderHead(r)
	if err != nil {
		return malformed(err)
	}
	if limit := int(st.server.limits.MaxHeaderBytes); len(head)+len(r.Method)+len(r.RequestURI) > limit {
		return &plugins.Error{Status: http.StatusRequestHeaderFieldsTooLarge, Code: plugins.HeaderTooLarge}
	}
	target := []byte(r.RequestURI)
	if r.Method != http.MethodConnect && !strings.HasPrefix(r.RequestURI, "/") && r.RequestURI != "*" {
		return malformed(errPathForm) // RFC 9113, 8.3.1
	}
	if err := st.admit(target, head); err != nil {
		return err
	}
	if from.name != "" && !sameOrigin(from, string(x.Host)) {
		// RFC 9113, 9.1.2: a connection is good for the names of its certificate.
		return &plugins.Error{Status: http.StatusMisdirectedRequest, Code: plugins.Misdirected, Err: errMisdirected}
	}
	return st.frameMultiplexed(m)
}

func sameOrigin(from *origin, host string) bool {
	name, _, ok := routes.CanonicalHost(nil, []byte(from.name))
	return ok && string(name) == host || from.covers != nil && from.covers(from.name, host)
}

// frameMultiplexed finds out whether there is content. Its end is the
// stream's, and a declared length must be the true one (RFC 9113, 8.1.1).
func (st *state) frameMultiplexed(m *multiplexed) error {
	x, r := &st.x, m.r
	declared := st.req.Length
	if st.req.Chunked || declared > 0 && r.ContentLength == 0 ||
		declared >= 0 && r.ContentLength > 0 && declared != r.ContentLength {
		return malformed(errLengths)
	}
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 && declared < 0 {
		return nil
	}
	limit := int64(st.server.limits.MaxBodyBytes)
	if limit > 0 && declared > limit {
		return &plugins.Error{Status: http.StatusRequestEntityTooLarge, Code: plugins.BodyTooLarge}
	}
	m.limit = limit
	x.Body, x.BodyLength = m.body(), declared
	if declared == 0 || m.version == 3 && declared < 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		return m.lookForContent()
	}
	return nil
}

// renderHead makes the header section that an HTTP/1.1 client would have sent,
// its fields sorted by name.
func renderHead(r *http.Request) ([]byte, error) {
	b := make([]byte, 0, 1024)
	if r.Host != "" {
		if err := checkValue(r.Host); err != nil {
			return nil, err
		}
		b = append(append(append(b, "Host: "...), r.Host...), '\r', '\n')
	}
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name == "Host" {
			if values := r.Header[name]; len(values) != 1 || !strings.EqualFold(values[0], r.Host) {
				return nil, errAuthorities // RFC 9113, 8.3.1
			}
			continue
		}
		if strings.ContainsAny(name, ":\r\n\x00") {
			return nil, errInjection
		}
		for _, value := range r.Header[name] {
			if err := checkValue(value); err != nil {
				return nil, err
			}
			b = append(append(b, name...), ": "...)
			b = append(append(b, value...), '\r', '\n')
		}
	}
	return append(b, '\r', '\n'), nil
}

// checkValue refuses a line end, which would make two fields of one, and blanks
// around a value, which would be lost (RFC 9113, 8.2.1).
func checkValue(value string) error {
	switch {
	case strings.ContainsAny(value, "\r\n\x00"):
		return errInjection
	case strings.Trim(value, " \t") != value:
		return errBlanks
	}
	return nil
}

// incoming is the content of a multiplexed request: counted, bounded, and
// waited for only as long as a piece may take.
type incoming struct {
	m     *multiplexed
	first []byte // was read already
	read  int64
	guard guard
	err   error
}

func (m *multiplexed) body() *incoming {
	return &incoming{m: m, guard: newGuard(m.server.now, m.server.inward, m.StopReading)}
}

// loosen lets the messages of gRPC come as they are made, for as long as a
// stream may be silent.
func (b *incoming) loosen() {
	b.guard.rule.Rate = 0
	if r := b.m.x.Route; r != nil {
		b.guard.rule.Idle = max(b.guard.rule.Idle, r.Streams.IdleTimeout)
	}
}

// Read implements io.Reader. A client that waits for 100 (Continue) gets it
// with the first call.
func (b *incoming) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(b.first) > 0 {
		n := copy(p, b.first)
		b.first = b.first[n:]
		return n, nil
	}
	m := b.m
	if m.x.GRPC {
		b.loosen()
	}
	n, _, slow, err := b.guard.wait(0, func() (int, error) { return m.r.Body.Read(p) })
	b.read += int64(n)
	m.x.Record.BytesIn = b.read
	switch {
	case m.limit > 0 && b.read > m.limit:
		err = &plugins.Error{Status: http.StatusRequestEntityTooLarge, Code: plugins.BodyTooLarge}
	case slow && errors.Is(err, os.ErrDeadlineExceeded):
		err = errRequestSlow
	case err == nil || err == io.EOF || errors.Is(err, os.ErrDeadlineExceeded):
	default:
		// The stream was reset or the connection is gone: the rest is missing.
		err = errors.Join(io.ErrUnexpectedEOF, err)
	}
	b.err = err
	return n, err
}

// lookForContent tells a request without content from one whose content has no
// declared length, which over HTTP/3 look alike until the stream ends, and from
// one that has more than the nothing that it declared.
func (m *multiplexed) lookForContent() error {
	b := m.x.Body.(*incoming)
	var first [1]byte
	n, err := b.Read(first[:])
	var refusal *plugins.Error
	switch {
	case errors.As(err, &refusal):
		return refusal
	case n > 0:
		b.first = bytes.Clone(first[:n])
	case err == io.EOF:
		m.x.Body, m.x.BodyLength = nil, 0
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &plugins.Error{Status: http.StatusRequestTimeout, Code: plugins.RequestTimeout, Err: err}
	default:
		return malformed(err)
	}
	return nil
}
