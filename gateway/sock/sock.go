// Package sock reads and writes non-blocking sockets for the hot path, as
// cheaply as the system allows. It owns nothing: waiting, deadlines and
// closing are the caller's, by way of syscall.RawConn.
//
//	n, err := sock.Recv(fd, buf) // syscall.EAGAIN: nothing there
package sock

import (
	"io"
	"syscall"
)

// Conn reads and writes one non-blocking socket through its RawConn, without
// allocating. One goroutine may read while another writes.
type Conn struct {
	raw     syscall.RawConn
	read    func(fd uintptr) bool
	write   func(fd uintptr) bool
	in, out []byte
	lender  Lender // instead of in
	n       int
	inErr   error
	outErr  error
}

// New prepares a Conn; ok is false where c has no RawConn.
func New(c syscall.Conn) (conn *Conn, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, false
	}
	s := &Conn{raw: raw}
	s.read = func(fd uintptr) bool {
		p := s.in
		if s.lender != nil {
			p = s.lender.Lend()
		}
		s.n, s.inErr = Recv(fd, p)
		if s.inErr != syscall.EAGAIN {
			return true
		}
		if s.lender != nil {
			s.lender.Return()
		}
		return false
	}
	s.write = func(fd uintptr) bool {
		for len(s.out) > 0 {
			n, err := Send(fd, s.out)
			if err != nil {
				s.outErr = err
				return err != syscall.EAGAIN
			}
			s.out = s.out[n:]
		}
		s.outErr = nil
		return true
	}
	return s, true
}

// Lender has a buffer only while there is something to read, so that a
// connection that waits holds none.
type Lender interface {
	// Lend returns the buffer to read into.
	Lend() []byte
	// Return takes it back, because nothing was there.
	Return()
}

// ReadLent is Read into a buffer of l, which l has to keep where n > 0. After
// an error it may still be lent.
func (s *Conn) ReadLent(l Lender) (n int, err error) {
	s.lender = l
	err = s.raw.Read(s.read)
	s.lender = nil
	return s.result(err)
}

// Read implements io.Reader; it waits until the connection's read deadline.
func (s *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in = p
	err := s.raw.Read(s.read)
	s.in = nil
	return s.result(err)
}

func (s *Conn) result(err error) (int, error) {
	switch {
	case err != nil:
		return 0, err
	case s.inErr != nil:
		return 0, s.inErr
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// Write sends all of p; it waits until the connection's write deadline.
func (s *Conn) Write(p []byte) (int, error) {
	s.out = p
	err := s.raw.Write(s.write)
	n := len(p) - len(s.out)
	s.out = nil
	if err == nil && n < len(p) {
		err = s.outErr
	}
	return n, err
}
