package upstream

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/gatehouse/gatehouse/gateway/wire"
)

const (
	smallBuffer = 8 << 10
	largeBuffer = 64 << 10
	keptOut     = 16 << 10
)

// Conn is a connection lent for one exchange: from Instance.Conn to Release.
// It belongs to one goroutine, except that Write and Send (after the first
// Send) may run in another one while ReadHead and Next run, and Abort anywhere.
//
// Deadlines are absolute and must be set (not zero).
type Conn struct {
	// Out is the request that Send and RoundTrip write: append the head to it,
	// and the content if that is small. It is empty when the Conn is lent.
	Out []byte

	inst *Instance
	sock *socket
	home uint32 // its shard

	// swap lets Abort meet the present socket.
	swap    sync.Mutex
	aborted bool

	// buf[r:w] was read and not consumed yet. buf is small, or large while a
	// head or the content asks for it.
	buf   []byte
	r, w  int
	small []byte
	large *[largeBuffer]byte

	body body

	idleSince time.Duration
	reused    bool
	inUse     bool // the first Send was done
	sent      bool
	answered  bool
	lent      bool
	detached  bool
}

// Conn lends a connection to the instance: an idle one, else a new one, else,
// at the limit, the next that becomes free. Release must follow. Whether a
// reused one is still good is found out when the request is sent.
func (i *Instance) Conn(deadline time.Time) (*Conn, error) {
	c := i.pool.pop()
	if c == nil && !i.pool.reserve() {
		var err error
		if c, err = i.pool.wait(deadline); err != nil {
			return nil, err
		}
	}
	if c != nil {
		c.lent, c.reused = true, true
		return c, nil
	}
	s, err := i.dial(deadline)
	if err != nil {
		i.pool.free()
		return nil, err
	}
	c = &Conn{inst: i, sock: s, home: rand.Uint32(), small: make([]byte, smallBuffer), lent: true}
	c.buf = c.small
	return c, nil
}

// Reused reports whether the connection had an exchange before this one.
func (c *Conn) Reused() bool { return c.reused }

// Sent reports whether the kernel took any byte of the request. If not, the
// instance cannot have seen it.
func (c *Conn) Sent() bool { return c.sent }

// Answered reports whether any byte of an answer arrived.
func (c *Conn) Answered() bool { return c.answered }

// Instance is whom the connection leads to.
func (c *Conn) Instance() *Instance { return c.inst }

// RoundTrip sends Out and reads the head of the answer, as Send and ReadHead
// do, but cheaper. After an error of sending, an answer that came nevertheless
// counts.
func (c *Conn) RoundTrip(deadline time.Time) (head []byte, err error) {
	until := c.inst.svc.moment(deadline)
	for c.sock.tls == nil {
		nin, nout, stale, err := c.sock.exchange(c.Out, c.buf[c.w:], until)
		if stale {
			if err := c.renew(deadline); err != nil {
				return nil, err
			}
			continue
		}
		c.inUse = true
		c.sent = c.sent || nout > 0
		c.answered = c.answered || nin > 0
		c.w += nin
		rest := c.Out[nout:]
		c.Out = c.Out[:0]
		if err == nil && nin == 0 && len(rest) > 0 {
			if _, werr := c.sock.write(rest, until); werr != nil {
				return c.lateHead(deadline, c.fail(PhaseSend, werr))
			}
		}
		if err != nil {
			return nil, c.fail(PhaseHead, err)
		}
		return c.ReadHead(deadline)
	}
	if err := c.Send(deadline); err != nil {
		return c.lateHead(deadline, err)
	}
	return c.ReadHead(deadline)
}

// lateHead looks for an answer although sending failed with err: an instance
// may refuse a request without reading all of it (EDGE: P4).
func (c *Conn) lateHead(deadline time.Time, err error) ([]byte, error) {
	if !c.sent || errors.Is(err, ErrTimeout) {
		return nil, err
	}
	if head, herr := c.ReadHead(deadline); herr == nil {
		return head, nil
	}
	return nil, err
}

// Send writes Out and empties it. The first Send replaces a reused connection
// that was closed meanwhile, or that has anything to read, by another. After
// an error there may still be an answer: see ReadHead.
func (c *Conn) Send(deadline time.Time) error {
	for !c.inUse && !c.sock.fresh() {
		if err := c.renew(deadline); err != nil {
			return err
		}
	}
	if !c.inUse { // only the first Send writes it: others may be in parallel
		c.inUse = true
	}
	n, err := c.sock.write(c.Out, c.inst.svc.moment(deadline))
	c.Out = c.Out[:0]
	if n > 0 && !c.sent { // likewise
		c.sent = true
	}
	if err != nil {
		return c.fail(PhaseSend, err)
	}
	return nil
}

// Write sends p, a part of the content, after the first Send.
func (c *Conn) Write(p []byte, deadline time.Time) error {
	if _, err := c.sock.write(p, c.inst.svc.moment(deadline)); err != nil {
		return c.fail(PhaseSend, err)
	}
	return nil
}

// AbortWrite lets a Write or Send that runs in another goroutine fail, because
// the answer came before the request was complete. The answer can still be
// read; the connection is not reused.
func (c *Conn) AbortWrite() { c.sock.abortWrite() }

// AbortRead lets a Next that runs in another goroutine, and every later one,
// fail. It may be called from any goroutine, but not after Release; what is
// written still goes out.
func (c *Conn) AbortRead() {
	c.swap.Lock()
	defer c.swap.Unlock()
	c.sock.abortRead()
}

// Detach takes the connection out of the instance's count: it carries no
// requests any more, and may last for hours.
func (c *Conn) Detach() {
	if !c.detached {
		c.detached = true
		c.inst.pool.free()
	}
}

// Abort closes the connection, so that whatever runs on it fails. It may be
// called from any goroutine, but not after Release.
func (c *Conn) Abort() {
	c.swap.Lock()
	defer c.swap.Unlock()
	c.aborted = true
	c.sock.noWrite.Store(true)
	c.sock.close(false)
}

// renew puts another connection in the place of a stale one, before anything
// was written. A new connection is not replaced: an instance that closes it, or
// speaks first, does so again.
func (c *Conn) renew(deadline time.Time) error {
	c.sock.close(false)
	switch {
	case c.isAborted():
		return &Error{Kind: ErrReset, Phase: PhaseSend, Err: net.ErrClosed}
	case !c.reused:
		return &Error{Kind: ErrReset, Phase: PhaseSend, Err: errSpokeFirst}
	}
	if other := c.inst.pool.pop(); other != nil {
		c.replace(other.sock)
		c.inst.pool.free() // of the two, one is gone
		return nil
	}
	s, err := c.inst.dial(deadline)
	if err != nil {
		return err
	}
	c.reused = false
	c.replace(s)
	return nil
}

func (c *Conn) isAborted() bool {
	c.swap.Lock()
	defer c.swap.Unlock()
	return c.aborted
}

func (c *Conn) replace(s *socket) {
	c.swap.Lock()
	defer c.swap.Unlock()
	c.sock = s
	if c.aborted {
		s.close(false)
	}
}

// ReadHead reads up to and with the empty line that ends a head and lends it
// until the next call that reads. After an interim head (1xx) the next call
// reads the following one. A line feed without carriage return is malformed:
// others could see another end.
func (c *Conn) ReadHead(deadline time.Time) ([]byte, error) {
	c.body = body{trailer: c.body.trailer[:0]}
	limit := c.inst.svc.cfg.MaxHead
	for seen := 0; ; {
		n, err := wire.HeadLength(c.buf[c.r:c.w], seen)
		switch {
		case err != nil:
			return nil, &Error{Kind: ErrMalformed, Phase: PhaseHead, Err: err}
		case n > limit, n == 0 && c.w-c.r >= limit:
			return nil, &Error{Kind: ErrHeadTooLarge, Phase: PhaseHead}
		case n > 0:
			head := c.buf[c.r : c.r+n]
			c.r += n
			return head, nil
		}
		seen = c.w - c.r
		if err := c.fill(deadline); err != nil {
			return nil, c.fail(PhaseHead, err)
		}
	}
}

// fill reads more into the buffer, which it makes room in.
func (c *Conn) fill(deadline time.Time) error {
	switch {
	case c.r == c.w:
		c.r, c.w = 0, 0
	case c.w < len(c.buf):
	case c.r > 0:
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	default:
		c.grow()
	}
	n, err := c.sock.read(c.buf[c.w:], c.inst.svc.moment(deadline))
	if n > 0 {
		c.w += n
		c.answered = true
		return nil
	}
	return err
}

// grow changes to a large buffer.
func (c *Conn) grow() {
	if c.large != nil {
		return
	}
	c.large = c.inst.svc.large.Get().(*[largeBuffer]byte)
	c.w = copy(c.large[:], c.buf[c.r:c.w])
	c.r = 0
	c.buf = c.large[:]
}

// fail gives an error of the socket its kind. io.EOF is never in it, so that
// nobody takes a cut message for a whole one.
func (c *Conn) fail(phase Phase, err error) error {
	if isTimeout(err) {
		return &Error{Kind: ErrTimeout, Phase: phase}
	}
	if err == io.EOF {
		err = nil
	}
	if phase == PhaseBody || phase == PhaseHead && c.answered {
		return &Error{Kind: io.ErrUnexpectedEOF, Phase: phase, Err: err}
	}
	return &Error{Kind: ErrReset, Phase: phase, Err: err}
}

// TCP arms the deadline for reading and lends the socket, so that content can
// be moved by the kernel (splice); nil when the connection is encrypted. What
// was moved from it is told with Advance. Bytes that Next has not returned yet
// are not on it.
func (c *Conn) TCP(deadline time.Time) *net.TCPConn {
	if c.sock.tls != nil {
		return nil
	}
	c.sock.readUntil = c.inst.svc.moment(deadline)
	c.sock.readArmed = 0
	if c.sock.armRead() != nil {
		return nil
	}
	return c.sock.TCPConn
}

// Release ends the exchange. reusable says that the answer's head allows
// another exchange on this connection; it is kept only if besides the request
// and the answer are complete and nothing else arrived. A second call does
// nothing.
func (c *Conn) Release(reusable bool) {
	if !c.lent {
		return
	}
	c.lent = false
	if c.large != nil {
		c.inst.svc.large.Put(c.large)
		c.large = nil
	}
	whole := c.sent && len(c.Out) == 0 && c.body.over() && c.r == c.w && !c.sock.noWrite.Load()
	svc, p := c.inst.svc, &c.inst.pool
	now := time.Duration(svc.coarse.Load())
	if whole && reusable && now-c.sock.born < svc.cfg.MaxAge {
		c.buf, c.r, c.w = c.small, 0, 0
		if cap(c.Out) > keptOut {
			c.Out = nil
		}
		c.body = body{trailer: c.body.trailer[:0]}
		c.inUse, c.sent, c.answered = false, false, false
		c.idleSince = now
		if p.push(c) {
			return
		}
	}
	c.sock.close(whole)
	if !c.detached {
		p.free()
	}
}
