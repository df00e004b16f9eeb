package upstream

import (
	"io"
	"time"

	"github.com/gatehouse/gatehouse/gateway/wire"
)

// framing is how the end of the content is known.
type framing uint8

const (
	unknown framing = iota
	byLength
	byChunks
	byClose
)

// body is the state of the content that is being read.
type body struct {
	framing framing
	left    int64 // byLength
	done    bool
	chunks  wire.Chunks
	trailer []byte
	err     error
}

// over reports whether the message has ended and the connection is intact.
func (b *body) over() bool {
	return b.done && b.err == nil && b.framing != byClose || b.framing == byLength && b.left == 0
}

// BodyLength tells, after ReadHead, that n bytes of content follow; 0 where
// there is none (HEAD, 204, 304). It, BodyChunked or BodyUntilClose must be
// called for a connection to be reused.
func (c *Conn) BodyLength(n int64) { c.body.framing, c.body.left = byLength, n }

// BodyChunked tells that the content is chunked.
func (c *Conn) BodyChunked() { c.body.framing = byChunks }

// BodyUntilClose tells that the content ends with the connection.
func (c *Conn) BodyUntilClose() { c.body.framing = byClose }

// Remaining is how much of a body with a length was not consumed yet; -1
// where the length is not known beforehand.
func (c *Conn) Remaining() int64 {
	if c.body.framing == byLength {
		return c.body.left
	}
	return -1
}

// Ended reports whether all content was returned: Next will not wait.
func (c *Conn) Ended() bool {
	return c.body.done || c.body.framing == byLength && c.body.left <= 0
}

// Buffered lends the bytes that were read and not consumed, without their
// framing, and Discard consumes n of them. They serve what is no HTTP message:
// the first bytes after a change of protocol.
func (c *Conn) Buffered() []byte { return c.buf[c.r:c.w] }

// Discard: see Buffered.
func (c *Conn) Discard(n int) { c.r += n }

// Advance consumes n bytes that were moved through TCP.
func (c *Conn) Advance(n int64) { c.body.left -= n }

// Trailers lends the trailer section of a chunked body, complete lines
// without the empty one, after Next returned io.EOF.
func (c *Conn) Trailers() []byte { return c.body.trailer }

// Next lends the next piece of decoded content until the next call that
// reads. It waits only if nothing is buffered. io.EOF, alone, is the proper
// end; io.ErrUnexpectedEOF means that the rest is missing, and like every
// other error it is final.
func (c *Conn) Next(deadline time.Time) ([]byte, error) {
	b := &c.body
	switch {
	case b.err != nil:
		return nil, b.err
	case b.done:
		return nil, io.EOF
	}
	var p []byte
	switch b.framing {
	case byLength:
		p, b.err = c.nextOfLength(deadline)
	case byChunks:
		p, b.err = c.nextOfChunks(deadline)
	case byClose:
		p, b.err = c.nextUntilClose(deadline)
	default:
		b.err = &Error{Kind: ErrMalformed, Phase: PhaseBody, Err: errNoFraming}
	}
	if len(p) == 0 && b.err == nil {
		b.done = true
		return nil, io.EOF
	}
	return p, b.err
}

func (c *Conn) nextOfLength(deadline time.Time) ([]byte, error) {
	if c.body.left <= 0 {
		return nil, nil
	}
	if c.r == c.w {
		if c.body.left > smallBuffer {
			c.grow()
		}
		if err := c.fill(deadline); err != nil {
			return nil, c.fail(PhaseBody, err)
		}
	}
	n := int(min(int64(c.w-c.r), c.body.left))
	p := c.buf[c.r : c.r+n]
	c.r += n
	c.body.left -= int64(n)
	return p, nil
}

// nextOfChunks moves the content of all buffered chunks together, over their
// framing, so that many small chunks are one piece.
func (c *Conn) nextOfChunks(deadline time.Time) ([]byte, error) {
	start, end := 0, 0
	for {
		for c.r < c.w {
			content, used, done, err := c.body.chunks.Step(c.buf[c.r:c.w], &c.body.trailer)
			if len(content) > 0 {
				at := c.r + used - len(content)
				if end == 0 {
					start, end = at, at
				}
				end += copy(c.buf[end:], content)
			}
			c.r += used
			if err != nil {
				// What came before is lost with it: the message is broken.
				return nil, &Error{Kind: ErrMalformed, Phase: PhaseBody, Err: err}
			}
			if done {
				c.body.done = true
				break
			}
		}
		if end > start || c.body.done {
			return c.buf[start:end], nil
		}
		if c.w == len(c.buf) {
			c.grow() // reading fills whole buffers
		}
		if err := c.fill(deadline); err != nil {
			return nil, c.fail(PhaseBody, err)
		}
	}
}

func (c *Conn) nextUntilClose(deadline time.Time) ([]byte, error) {
	if c.r == c.w {
		if c.w == len(c.buf) {
			c.grow()
		}
		if err := c.fill(deadline); err == io.EOF {
			return nil, nil
		} else if err != nil {
			return nil, c.fail(PhaseBody, err)
		}
	}
	p := c.buf[c.r:c.w]
	c.r = c.w
	return p, nil
}
