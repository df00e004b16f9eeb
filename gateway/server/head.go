package server

import (
	"errors"
	"time"

	"github.com/gatehouse/gatehouse/gateway/wire"
)

var (
	errHeadTooLarge = errors.New("request head too large")
	errBlankLines   = errors.New("too many empty lines before a request")
)

// maxBlankLines is how many empty lines may come before a request line. RFC
// 9112, 2.2 asks for tolerance of at least one.
const maxBlankLines = 8

// readHead waits for a complete head and lends it, request line to empty line,
// until the next call.
func (c *conn) readHead() ([]byte, error) {
	if c.r > 0 {
		// What a client sent ahead moves to the front: a head needs the room.
		c.w = copy(*c.buf, (*c.buf)[c.r:c.w])
		c.r = 0
	}
	if c.w > 0 {
		c.watch.since.Store(heading)
		c.seen, c.phase, c.until = true, head, time.Time{}
	} else if c.cheap != nil {
		c.Return()
	}
	blank, searched := 0, 0
	for {
		if c.buf != nil {
			for c.w-c.r >= 2 && (*c.buf)[c.r] == '\r' && (*c.buf)[c.r+1] == '\n' {
				if blank++; blank > maxBlankLines {
					return nil, errBlankLines
				}
				c.r, searched = c.r+2, 0
			}
			p := (*c.buf)[c.r:c.w]
			n, err := wire.HeadLength(p, searched)
			switch {
			case err != nil:
				return nil, err
			case n > 0:
				c.r += n
				return p[:n], nil
			case c.w == len(*c.buf):
				return nil, errHeadTooLarge
			}
			searched = len(p)
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more behind buf[:w].
func (c *conn) fill() error {
	var n int
	var err error
	if c.buf == nil && c.cheap != nil {
		n, err = c.read(nil, c)
	} else {
		n, err = c.Read(c.Lend()[c.w:])
	}
	c.w += n
	if n > 0 {
		return nil
	}
	return err
}

// Lend implements sock.Lender.
func (c *conn) Lend() []byte {
	if c.buf == nil {
		c.buf = c.server.buffers.Get().(*[]byte)
	}
	return *c.buf
}

// Return implements sock.Lender; what is in the buffer is lost.
func (c *conn) Return() {
	if c.buf != nil {
		c.server.buffers.Put(c.buf)
		c.buf, c.r, c.w = nil, 0, 0
	}
}
