package upstream

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gatehouse/gatehouse/gateway/sock"
)

// socket is a connection with lazy deadlines, which cost nothing while they
// are kept: the poller's timer is only moved to an earlier time, or after it
// fired too early, so a busy connection sets it once per deadline's length.
// It is the net.Conn that TLS runs on.
//
// One goroutine may read and one write at the same time.
type socket struct {
	*net.TCPConn
	raw   syscall.RawConn
	tls   *tls.Conn // nil on a plaintext connection
	now   func() time.Time
	start time.Time

	born, maxIdle time.Duration

	// Times in nanoseconds since start: the deadline that is meant and the one
	// that the poller knows (0: none). The write side is atomic because
	// reading may have to write in TLS.
	readUntil, readArmed   int64
	writeUntil, writeArmed atomic.Int64
	noWrite, noRead        atomic.Bool
	ended                  bool // the peer closed its side

	// The poller's callbacks are made once, because closures allocate; what
	// they work on stands in fields.
	peekFunc func(fd uintptr)
	turnFunc func(fd uintptr) bool
	cur      turn
	dry      bool
	probe    [1]byte
}

// turn is one exchange of a request for the first bytes of its answer.
type turn struct {
	step    uint8
	in, out []byte
	nin     int
	nout    int
	stale   bool
	err     error
}

const (
	turnWrite uint8 = iota
	turnRead
	turnOver
)

// dial connects to the instance, within the configured time and the deadline.
func (i *Instance) dial(deadline time.Time) (*socket, error) {
	svc := i.svc
	now := svc.now()
	if limit := now.Add(svc.cfg.Connect); limit.Before(deadline) {
		deadline = limit
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", i.addr.String())
	if err != nil {
		return nil, &Error{Kind: ErrConnect, Phase: PhaseConnect, Err: err}
	}
	s := newSocket(nc.(*net.TCPConn), svc, now)
	if svc.cfg.TLS != nil {
		s.readUntil = svc.moment(deadline)
		s.writeUntil.Store(s.readUntil)
		if err := s.handshake(ctx, svc.cfg.TLS, i); err != nil {
			s.close(false)
			return nil, &Error{Kind: ErrConnect, Phase: PhaseConnect, Err: err}
		}
	}
	return s, nil
}

func newSocket(tcp *net.TCPConn, svc *Service, now time.Time) *socket {
	s := &socket{TCPConn: tcp, now: svc.now, start: svc.start, born: now.Sub(svc.start)}
	s.maxIdle = svc.cfg.Idle - rand.N(min(4*time.Second, svc.cfg.Idle/4)+1)
	s.raw, _ = tcp.SyscallConn() // fails for a nil connection only
	s.peekFunc, s.turnFunc = s.peek, s.turn
	return s
}

func (s *socket) handshake(ctx context.Context, cfg *tls.Config, i *Instance) error {
	if cfg.ServerName == "" {
		cfg = cfg.Clone()
		cfg.ServerName = i.addr.Addr().String()
	}
	s.tls = tls.Client(s, cfg)
	if err := s.tls.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	if p := s.tls.ConnectionState().NegotiatedProtocol; p != "" && p != "http/1.1" {
		return fmt.Errorf("TLS handshake: instance chose protocol %q", p)
	}
	return nil
}

func (s *socket) elapsed() int64 { return int64(s.now().Sub(s.start)) }

// read reads content, through TLS if there is any, until the deadline.
func (s *socket) read(p []byte, until int64) (int, error) {
	s.readUntil = until
	if s.tls == nil {
		return s.Read(p)
	}
	n, err := s.tls.Read(p)
	if err == io.EOF && s.ended {
		// Without the closing alert anybody may have cut the connection
		// (RFC 9112, 9.8).
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// write writes content, through TLS if there is any, until the deadline.
func (s *socket) write(p []byte, until int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.writeUntil.Store(until)
	if s.tls == nil {
		return s.Write(p)
	}
	return s.tls.Write(p)
}

// Read reads from the network until readUntil.
func (s *socket) Read(p []byte) (int, error) {
	if s.dry {
		return s.readDry(p)
	}
	for {
		if err := s.armRead(); err != nil {
			return 0, err
		}
		// After arming, so that it cannot undo what abortRead armed.
		if s.noRead.Load() {
			return 0, net.ErrClosed
		}
		n, err := s.TCPConn.Read(p)
		if err == io.EOF {
			s.ended = true
		}
		if err == nil || n > 0 || !s.early(err) {
			return n, err
		}
	}
}

// armRead makes sure that the poller does not wait longer than readUntil.
func (s *socket) armRead() error {
	if s.readArmed != 0 && s.readArmed <= s.readUntil {
		return nil
	}
	s.readArmed = s.readUntil
	return s.SetReadDeadline(s.start.Add(time.Duration(s.readUntil)))
}

// early reports whether err is a read deadline that is not the present one,
// and forgets it.
func (s *socket) early(err error) bool {
	if !isTimeout(err) || s.elapsed() >= s.readUntil {
		return false
	}
	s.readArmed = 0
	return true
}

// Write writes to the network until writeUntil.
func (s *socket) Write(p []byte) (int, error) {
	sent := 0
	for {
		until := s.writeUntil.Load()
		if armed := s.writeArmed.Load(); armed == 0 || armed > until {
			s.writeArmed.Store(until)
			if err := s.SetWriteDeadline(s.start.Add(time.Duration(until))); err != nil {
				return sent, err
			}
		}
		// After arming, so that it cannot undo what abortWrite armed.
		if s.noWrite.Load() {
			return sent, net.ErrClosed
		}
		n, err := s.TCPConn.Write(p[sent:])
		sent += n
		if err == nil || !isTimeout(err) || s.elapsed() >= until {
			return sent, err
		}
		s.writeArmed.Store(0)
	}
}

// abortWrite makes the present and every later Write fail.
func (s *socket) abortWrite() {
	s.noWrite.Store(true)
	_ = s.SetWriteDeadline(time.Unix(1, 0)) // fails on a closed connection only
}

// abortRead makes the present and every later Read fail.
func (s *socket) abortRead() {
	s.noRead.Store(true)
	_ = s.SetReadDeadline(time.Unix(1, 0)) // fails on a closed connection only
}

// fresh reports whether an idle connection may be used: neither closed nor
// with anything to read, for what is there now answers no request of ours and
// would be taken for the answer to the next one (EDGE: P1, S44). It does not
// wait.
func (s *socket) fresh() bool {
	if s.tls != nil {
		// TLS reads what it and the kernel hold. Records without content,
		// such as session tickets, are no answer.
		s.dry = true
		n, err := s.tls.Read(s.probe[:])
		s.dry = false
		return n == 0 && err == errNothing
	}
	s.cur.in = s.probe[:]
	return s.peekNow() == errNothing
}

// readDry reads without waiting.
func (s *socket) readDry(p []byte) (int, error) {
	s.cur.in = p
	err := s.peekNow()
	s.cur.in = nil
	return s.cur.nin, err
}

// peekNow reads into io.in what the kernel has; errNothing if it has nothing.
func (s *socket) peekNow() error {
	if err := s.raw.Control(s.peekFunc); err != nil {
		return err
	}
	switch {
	case s.cur.err == syscall.EAGAIN:
		return errNothing
	case s.cur.err != nil:
		return s.cur.err
	case s.cur.nin == 0:
		s.ended = true
		return io.EOF
	}
	return nil
}

func (s *socket) peek(fd uintptr) {
	s.cur.nin, s.cur.err = sock.Recv(fd, s.cur.in)
}

// errNothing says that there is nothing to read now. It is a temporary
// net.Error, after which TLS goes on.
var errNothing error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing to read" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

// exchange writes out and reads the first bytes of the answer into in, on a
// plaintext connection. It first does what fresh does, and reports stale when
// nothing could be written.
//
// It does all three in one call of the poller, because an attempt to read
// must precede the wait for the answer anyway (else the poller would miss what
// came earlier): made before the request is written, it is the check, which so
// costs nothing.
func (s *socket) exchange(out, in []byte, until int64) (nin, nout int, stale bool, err error) {
	s.readUntil = until
	s.cur = turn{in: in, out: out}
	for {
		if err := s.armRead(); err != nil {
			return 0, s.cur.nout, s.cur.nout == 0, err
		}
		err = s.raw.Read(s.turnFunc)
		if err == nil || !s.early(err) {
			break
		}
	}
	t := &s.cur
	nin, nout, stale = t.nin, t.nout, t.stale
	if err == nil {
		err = t.err
	}
	if err != nil && nin+nout == 0 && !isTimeout(err) {
		stale = true
	}
	*t = turn{}
	return nin, nout, stale, err
}

// turn is called when a turn begins, and then whenever the connection may be
// readable, until it returns true.
func (s *socket) turn(fd uintptr) bool {
	t := &s.cur
	if t.step == turnWrite {
		if _, err := sock.Recv(fd, t.in); err != syscall.EAGAIN {
			t.step, t.stale = turnOver, true
			return true
		}
		t.step = turnRead
		t.nout, t.err = sock.Send(fd, t.out)
		switch {
		case t.err == nil && t.nout == len(t.out):
			return false
		case t.err == nil || t.err == syscall.EAGAIN:
			// The kernel takes no more: the caller writes the rest.
			t.step, t.err = turnOver, nil
			return true
		}
		// The instance does not want the rest, but it may have answered.
	}
	n, err := sock.Recv(fd, t.in)
	if err == syscall.EAGAIN && t.err == nil {
		return false
	}
	t.step = turnOver
	switch {
	case n > 0:
		t.nin, t.err = n, nil
	case t.err != nil:
	case err != nil:
		t.err = err
	default:
		t.err = io.EOF
	}
	return true
}

// close ends the connection. In order means that the last message was
// complete, so that TLS may say goodbye.
func (s *socket) close(inOrder bool) {
	if s.tls != nil && inOrder {
		s.writeUntil.Store(s.elapsed() + int64(time.Second))
		_ = s.tls.Close() // the connection is gone either way
		return
	}
	_ = s.TCPConn.Close()
}
