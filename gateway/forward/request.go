package forward

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gatehouse/gatehouse/gateway/upstream"
	"github.com/gatehouse/gatehouse/plugins"
)

// wholeContent is the length up to which content is read before an instance
// is asked: such a request leaves in one write, can be repeated, and a slow
// client does not hold a connection to the instance.
const wholeContent = 16 << 10

// takeContent reads small content of known length, once for all attempts.
func (f *forwarder) takeContent(x *plugins.Exchange) error {
	if x.Body == nil || len(x.Content) > 0 || x.BodyLength < 0 || x.BodyLength > wholeContent {
		return nil
	}
	n := int(x.BodyLength)
	if cap(x.Content) < n {
		x.Content = make([]byte, 0, max(n, 1024))
	}
	content := x.Content[:n]
	if _, err := io.ReadFull(x.Body, content); err != nil {
		return contentError(err)
	}
	x.Content = content
	return nil
}

// contentError tells what reading the client's content failed of.
func contentError(err error) *plugins.Error {
	var e *plugins.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &plugins.Error{Status: http.StatusRequestTimeout, Code: plugins.RequestTimeout, Err: err}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), isReset(err):
		return &plugins.Error{Status: statusClientGone, Code: plugins.ClientGone, Err: err}
	}
	return &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest, Err: err}
}

// appendHead renders the request's head: the client's lines as they came, less
// what the gate marked, then what only the gateway may say.
func (f *forwarder) appendHead(b []byte, x *plugins.Exchange) []byte {
	b = append(append(b, x.Method...), ' ')
	b = append(b, x.Target()...)
	if x.HasQuery {
		b = append(append(b, '?'), x.Query...)
	}
	b = f.appendLines(append(b, " HTTP/1.1\r\n"...), x)
	if f.wantsTunnel(x) {
		b = append(b, upgradeLines...)
	}
	if x.Body != nil && x.BodyLength < 0 {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(b, '\r', '\n')
}

// appendLines renders the fields, for every version of HTTP.
func (f *forwarder) appendLines(b []byte, x *plugins.Exchange) []byte {
	for i := range x.Fields {
		if !x.Fields[i].Drop {
			b = append(b, x.Fields[i].Line...)
		}
	}
	b = append(b, x.Forwarding...)
	if x.Principal != nil {
		b = append(b, x.Principal.Identity...)
	}
	b = append(b, x.IdentityLines...)
	if f.clientCert && x.ClientCert != nil {
		// A byte sequence (RFC 9440, 2.1).
		b = append(b, "Client-Cert: :"...)
		b = base64.StdEncoding.AppendEncode(b, x.ClientCert.DER)
		b = append(b, ":\r\n"...)
	}
	return b
}

// upload sends content that is still on its way from the client while the
// answer is awaited, so that an early answer is not lost (EDGE: P4).
type upload struct {
	done chan struct{}
	// complete is set before done is closed.
	complete bool
	// client is what reading from the client failed of; set before the
	// connection to the instance is aborted, so that whoever notices that
	// knows why.
	client atomic.Pointer[plugins.Error]
}

// startUpload sends the head and starts to send the content.
func startUpload(x *plugins.Exchange, c *upstream.Conn, deadline time.Time, idle time.Duration, now func() time.Time) (*upload, error) {
	if err := c.Send(deadline); err != nil {
		return nil, err
	}
	// Here and not in the reader, because from now on the client's side is
	// written to by one goroutine and read from by another.
	if err := x.Client.Continue(); err != nil {
		return nil, gone(err)
	}
	u := &upload{done: make(chan struct{})}
	go u.run(x.Body, x.BodyLength < 0, c, idle, now)
	return u, nil
}

const copySize = 32 << 10

func (u *upload) run(from io.Reader, chunked bool, c *upstream.Conn, idle time.Duration, now func() time.Time) {
	defer close(u.done)
	// Room before the content for the size of a chunk, behind it for its end.
	const before, after = 10, 2
	buf := make([]byte, before+copySize+after)
	for {
		n, err := from.Read(buf[before : before+copySize])
		if n > 0 {
			p := buf[before : before+n]
			if chunked {
				p = frameChunk(buf, before, n)
			}
			if c.Write(p, now().Add(idle)) != nil {
				return // the reading side meets the same connection
			}
		}
		if err == io.EOF {
			u.complete = !chunked || c.Write(lastChunk, now().Add(idle)) == nil
			return
		}
		if err != nil {
			// Half a request must never look whole.
			u.client.Store(contentError(err))
			c.Abort()
			return
		}
	}
}

var lastChunk = []byte("0\r\n\r\n")

// frameChunk puts the size in front of buf[before:before+n] and CRLF behind.
func frameChunk(buf []byte, before, n int) []byte {
	var size [8]byte
	line := append(strconv.AppendUint(size[:0], uint64(n), 16), '\r', '\n')
	start := before - len(line)
	copy(buf[start:], line)
	copy(buf[before+n:], "\r\n")
	return buf[start : before+n+2]
}

// settle waits a moment for the end of an upload whose answer is complete: an
// instance may have answered the last byte before we noticed that it was the
// last, and the client's connection is not to pay for that.
func (u *upload) settle() {
	if u == nil {
		return
	}
	select {
	case <-u.done:
		return
	default:
	}
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	select {
	case <-u.done:
	case <-timer.C:
	}
}

const settleTime = 20 * time.Millisecond

// stop ends the upload and waits for it; it reports whether the request went
// out complete. Nothing of the exchange may be used by others afterwards.
func (u *upload) stop(x *plugins.Exchange, c *upstream.Conn) bool {
	if u == nil {
		return true
	}
	select {
	case <-u.done:
	default:
		c.AbortWrite()
		x.Client.StopReading()
		<-u.done
	}
	return u.complete
}

// failure is the client's part in a failed attempt, nil if it had none.
func (u *upload) failure() *plugins.Error {
	if u == nil {
		return nil
	}
	return u.client.Load()
}

func idempotent(method []byte) bool {
	switch string(method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodTrace:
		return true
	}
	return false
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
