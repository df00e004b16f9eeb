package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

// localContent bounds what a handler may read, and what is read in its place
// so that the connection can go on.
const localContent = 1 << 20

// HTTP makes a plugins.Handler of an http.Handler that serves small messages:
// its whole answer is held until it returns. It is for what the gateway serves
// itself, never for proxying.
//
// The handler sees the client's address as RemoteAddr, the scheme of the
// client's connection in URL.Scheme, and in TLS the certificate that the
// listener verified. It bounds what it waits for itself: the request's context
// never ends. When it returns, the request, its maps and the ResponseWriter
// serve another exchange: strings may be kept, nothing else of them.
func HTTP(h http.Handler) plugins.Handler {
	pool := sync.Pool{New: func() any { return &local{header: http.Header{}, fields: http.Header{}} }}
	return func(x *plugins.Exchange) error {
		l := pool.Get().(*local)
		h.ServeHTTP(l, l.read(x))
		err := l.send(x)
		l.reset()
		pool.Put(l)
		return err
	}
}

// local is one exchange with a handler, and the http.ResponseWriter that it
// answers to.
type local struct {
	request http.Request
	url     url.URL
	fields  http.Header // of the request
	values  []string    // what fields is made of
	body    localBody

	header http.Header // of the answer
	names  []string    // of header, in order
	head   []byte
	status int
	answer []byte
}

// maxKept bounds the memory that an exchange leaves to the next one.
const maxKept = 64 << 10

func (l *local) reset() {
	clear(l.fields)
	clear(l.header)
	clear(l.values)
	if cap(l.answer) > maxKept {
		l.answer = nil
	}
	l.request, l.url, l.body = http.Request{}, url.URL{}, localBody{}
	l.head, l.status, l.answer = l.head[:0], 0, l.answer[:0]
}

// read makes a request of x.
func (l *local) read(x *plugins.Exchange) *http.Request {
	l.readFields(x)
	host, path := string(x.Authority), string(x.Path)
	l.url = url.URL{Scheme: "http", Host: host, RawQuery: string(x.Query), Path: path, RawPath: path}
	if x.TLS {
		l.url.Scheme = "https"
	}
	if strings.IndexByte(path, '%') >= 0 {
		if p, err := url.PathUnescape(path); err == nil {
			l.url.Path = p
		}
	}
	target := path
	if l.url.RawQuery != "" {
		target += "?" + l.url.RawQuery
	}
	r := &l.request
	*r = http.Request{
		Method: method(x.Method), URL: &l.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: l.fields, Host: host, Body: http.NoBody,
		RemoteAddr: netip.AddrPortFrom(x.ClientIP, 0).String(), RequestURI: target,
	}
	if x.TLS {
		r.TLS = connection(x.ClientCert)
	}
	if x.Body != nil {
		l.body = localBody{from: x.Body, left: localContent}
		r.Body, r.ContentLength = &l.body, x.BodyLength
	}
	return r
}

// readFields copies the header fields, all values in one piece of memory.
func (l *local) readFields(x *plugins.Exchange) {
	hidden := func(f *plugins.Field) bool { return f.Drop && f.ID != wire.Expect || f.ID == wire.Host }
	size := 0
	for i := range x.Fields {
		if f := &x.Fields[i]; !hidden(f) {
			size += len(f.Value)
		}
	}
	var all strings.Builder
	all.Grow(size)
	l.values = slices.Grow(l.values[:0], len(x.Fields))
	for i := range x.Fields {
		f := &x.Fields[i]
		if hidden(f) {
			continue
		}
		begin := all.Len()
		all.Write(f.Value)
		name, n := canonical(f.Name), len(l.values)
		l.values = append(l.values, all.String()[begin:])
		if before, again := l.fields[name]; again {
			l.fields[name] = append(before, l.values[n])
		} else {
			l.fields[name] = l.values[n : n+1 : n+1]
		}
	}
}

// canonicalNames are the fields that most requests have, as HTTP/1.1 and as
// HTTP/2 spell them.
var canonicalNames = func() map[string]string {
	names := map[string]string{}
	for _, name := range []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Cache-Control", "Content-Length",
		"Content-Type", "Cookie", "Dpop", "If-None-Match", "Origin", "Priority", "Referer", "Sec-Fetch-Dest",
		"Sec-Fetch-Mode", "Sec-Fetch-Site", "Sec-Fetch-User", "User-Agent",
	} {
		names[name], names[strings.ToLower(name)] = name, name
	}
	return names
}()

func canonical(name []byte) string {
	if known, ok := canonicalNames[string(name)]; ok {
		return known
	}
	return http.CanonicalHeaderKey(string(name))
}

func method(name []byte) string {
	switch string(name) {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodPost:
		return http.MethodPost
	}
	return string(name)
}

// connection tells of the client's connection what handlers may build on: its
// verified certificate, if there is one.
func connection(cert *plugins.ClientCertificate) *tls.ConnectionState {
	state := &tls.ConnectionState{HandshakeComplete: true}
	if cert == nil {
		return state
	}
	if leaf, err := x509.ParseCertificate(cert.DER); err == nil {
		state.PeerCertificates = []*x509.Certificate{leaf}
		state.VerifiedChains = [][]*x509.Certificate{{leaf}}
	}
	return state
}

// localBody is a request's content, up to a bound.
type localBody struct {
	from io.Reader
	left int64
}

func (b *localBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.EOF
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (b *localBody) Close() error { return nil }

// Header implements http.ResponseWriter.
func (l *local) Header() http.Header { return l.header }

// WriteHeader implements http.ResponseWriter.
func (l *local) WriteHeader(status int) {
	if l.status == 0 {
		l.status = status
	}
}

// Write implements http.ResponseWriter.
func (l *local) Write(p []byte) (int, error) {
	l.WriteHeader(http.StatusOK)
	l.answer = append(l.answer, p...)
	return len(p), nil
}

func (l *local) send(x *plugins.Exchange) error {
	l.WriteHeader(http.StatusOK)
	l.appendFields()
	if l.status != http.StatusNoContent && l.status != http.StatusNotModified {
		l.head = append(strconv.AppendInt(append(l.head, "Content-Length: "...), int64(len(l.answer)), 10), "\r\n"...)
	}
	head := plugins.ResponseHead{Status: l.status, Fields: l.head, Length: int64(len(l.answer)), Date: true}
	if x.Body != nil && (x.BodyLength < 0 || localContent-l.body.left < x.BodyLength) {
		// What the handler left unread is read here, so that the connection
		// can go on; the bound is the handler's own.
		if _, err := io.CopyN(io.Discard, x.Body, localContent); err != io.EOF {
			head.Close = true
		}
	}
	if err := x.Client.WriteHead(head); err != nil {
		return err
	}
	if _, err := x.Client.Write(l.answer); err != nil {
		return err
	}
	return x.Client.Finish()
}

// appendFields renders the header in the order of its names. The length and
// what concerns the connection are not the handler's to say.
func (l *local) appendFields() {
	l.names = l.names[:0]
	for name := range l.header {
		switch name {
		case "Content-Length", "Date", "Connection":
		default:
			l.names = append(l.names, name)
		}
	}
	slices.Sort(l.names)
	for _, name := range l.names {
		for _, value := range l.header[name] {
			l.head = append(append(l.head, name...), ": "...)
			l.head = append(append(l.head, lineBreaks.Replace(value)...), "\r\n"...)
		}
	}
}

// lineBreaks keeps a value from becoming fields of its own.
var lineBreaks = strings.NewReplacer("\r", " ", "\n", " ")
