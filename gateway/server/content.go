package server

import (
	"errors"
	"io"
	"net/http"

	"github.com/gatehouse/gatehouse/gateway/wire"
	"github.com/gatehouse/gatehouse/plugins"
)

// errRequestSlow ends content that comes below server.min_request_rate.
var errRequestSlow = &plugins.Error{Status: http.StatusRequestTimeout, Code: plugins.RequestTooSlow}

// content is a request's body on its way in: counted, bounded, and asked for
// only when somebody reads it.
type content struct {
	state *state
	from  io.Reader
	left  int64 // declared and not read yet; -1 unknown
	read  int64
	ended bool
	err   error
}

// Read implements io.Reader. A client that waits for 100 (Continue) gets it
// now: only after the policy let the request pass and somebody wants the
// content.
func (b *content) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	st := b.state
	if st.stream.expect {
		if err := st.stream.Continue(); err != nil {
			b.err = err
			return 0, err
		}
	}
	if b.left == 0 {
		b.ended, b.err = true, io.EOF
		return 0, io.EOF
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.from.Read(p)
	b.read += int64(n)
	st.x.Record.BytesIn = b.read
	if b.left > 0 {
		if b.left -= int64(n); b.left == 0 && err == io.EOF {
			err = nil
		}
	}
	if limit := int64(st.server.limits.MaxBodyBytes); limit > 0 && b.read > limit {
		err = &plugins.Error{Status: http.StatusRequestEntityTooLarge, Code: plugins.BodyTooLarge}
	}
	if err == io.EOF {
		b.ended = true
		if b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	b.err = err
	return n, err
}

// pending reports whether content may still arrive on the connection.
func (b *content) pending() bool {
	return b.state != nil && !b.ended && b.left != 0
}

// counted reads content that has a length, which content keeps count of:
// first what came with the head.
type counted struct{ c *conn }

func (f *counted) Read(p []byte) (int, error) {
	c := f.c
	c.phase = body
	if c.r < c.w {
		n := copy(p, (*c.buf)[c.r:c.w])
		c.r += n
		return n, nil
	}
	return c.Read(p)
}

// chunked decodes chunked content (RFC 9112, 7.1). The head stays in the
// connection's buffer as long as the exchange lasts, so this reads into a
// second one, which takes its place in the end.
type chunked struct {
	c       *conn
	decoder wire.Chunks
	trailer []byte // dropped: nobody is there to vouch for it (RFC 9110, 6.5.1)
	buf     *[]byte
	r, w    int
	done    bool
}

var errChunks = errors.New("malformed chunked content")

func (d *chunked) reset(c *conn) {
	*d = chunked{c: c, trailer: d.trailer[:0]}
}

func (d *chunked) Read(p []byte) (int, error) {
	c := d.c
	if len(p) == 0 {
		return 0, nil
	}
	c.phase = body
	if d.buf == nil {
		d.buf = c.server.buffers.Get().(*[]byte)
		d.w = copy(*d.buf, (*c.buf)[c.r:c.w])
		c.r = c.w
	}
	for !d.done {
		for d.r < d.w {
			end := min(d.w, d.r+len(p)) // so that a piece of content fits
			piece, used, done, err := d.decoder.Step((*d.buf)[d.r:end], &d.trailer)
			n := copy(p, piece)
			d.r += used
			d.done = done
			switch {
			case err != nil:
				return n, &plugins.Error{Status: http.StatusBadRequest, Code: plugins.BadRequest, Err: errors.Join(errChunks, err)}
			case n > 0:
				return n, nil
			case done:
				return 0, io.EOF
			}
		}
		d.r = 0
		var err error
		if d.w, err = c.Read(*d.buf); d.w == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	return 0, io.EOF
}

// end gives what came behind the content to the connection.
func (d *chunked) end() {
	if d.buf == nil {
		return
	}
	c := d.c
	d.buf, c.buf = c.buf, d.buf
	c.r, c.w = d.r, d.w
	c.server.buffers.Put(d.buf)
	d.reset(nil)
}
