package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

const (
	localTimeout = 10 * time.Second
	localContent = 1 << 20
)

// HTTP makes a plugins.Handler of an http.Handler that serves small messages:
// its whole answer is held until it returns. It is for what the gateway serves
// itself, never for proxying.
//
// The handler sees the client's address as RemoteAddr, the scheme of the
// client's connection in URL.Scheme, and in TLS the certificate that the
// listener verified.
func HTTP(h http.Handler) plugins.Handler {
	return func(x *plugins.Exchange) error {
		ctx, cancel := context.WithTimeout(context.Background(), localTimeout)
		defer cancel()
		w := &answer{header: http.Header{}}
		r := request(x)
		h.ServeHTTP(w, r.WithContext(ctx))
		return w.send(x)
	}
}

func request(x *plugins.Exchange) *http.Request {
	header := make(http.Header, len(x.Fields))
	for i := range x.Fields {
		f := &x.Fields[i]
		if f.Drop && f.ID != wire.Expect || f.ID == wire.Host {
			continue
		}
		name := http.CanonicalHeaderKey(string(f.Name))
		header[name] = append(header[name], string(f.Value))
	}
	u := &url.URL{Scheme: "http", Host: string(x.Authority), RawQuery: string(x.Query)}
	if x.TLS {
		u.Scheme = "https"
	}
	u.Path, u.RawPath = string(x.Path), string(x.Path)
	if p, err := url.PathUnescape(u.Path); err == nil {
		u.Path = p
	}
	r := &http.Request{
		Method: string(x.Method), URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Host: string(x.Authority), Body: http.NoBody,
		RemoteAddr: netip.AddrPortFrom(x.ClientIP, 0).String(), RequestURI: u.RequestURI(),
	}
	if x.TLS {
		r.TLS = connection(x.ClientCert)
	}
	if x.Body != nil {
		r.Body = io.NopCloser(io.LimitReader(x.Body, localContent))
		r.ContentLength = x.BodyLength
	}
	return r
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

// answer is an http.ResponseWriter in memory.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *answer) Header() http.Header { return w.header }

func (w *answer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *answer) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *answer) send(x *plugins.Exchange) error {
	w.WriteHeader(http.StatusOK)
	w.header.Del("Date")
	w.header.Del("Connection")
	if w.status != http.StatusNoContent && w.status != http.StatusNotModified {
		w.header.Set("Content-Length", strconv.Itoa(w.body.Len()))
	}
	var fields bytes.Buffer
	if err := w.header.Write(&fields); err != nil {
		return err
	}
	head := plugins.ResponseHead{Status: w.status, Fields: fields.Bytes(), Length: int64(w.body.Len()), Date: true}
	if x.Body != nil {
		// What the handler left unread is read here, so that the connection
		// can go on; the bound is the handler's own.
		if _, err := io.CopyN(io.Discard, x.Body, localContent); err != io.EOF {
			head.Close = true
		}
	}
	if err := x.Client.WriteHead(head); err != nil {
		return err
	}
	if _, err := x.Client.Write(w.body.Bytes()); err != nil {
		return err
	}
	return x.Client.Finish()
}
