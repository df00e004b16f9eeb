package main

import (
	"bytes"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// wire is the origin and all clients on one epoll descriptor, so that they cost
// the load core no switch between threads. It is used by one goroutine at a
// time, and the origin answers only while drive runs.
type wire struct {
	epoll  int
	listen int
	port   int
	peers  []*peer // by file descriptor
	events []unix.EpollEvent
	answer []byte // what the origin sends
	served int    // requests that the origin answered
	head   []byte // head of the last one
}

// peer is one connection: of the origin with a proxy, or of a client with one.
type peer struct {
	fd     int
	client *client // nil: the origin's
	buf    []byte
	n      int
}

// originContent is what the origin answers: 256 bytes.
var originContent = bytes.Repeat([]byte("0123456789abcdef"), 16)

func newWire() (*wire, error) {
	w := &wire{events: make([]unix.EpollEvent, 256), epoll: -1, listen: -1}
	w.answer = []byte("HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n" +
		"Content-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(originContent)) + "\r\n\r\n" +
		string(originContent))
	if err := w.open(); err != nil {
		w.close()
		return nil, fmt.Errorf("starting the origin: %w", err)
	}
	return w, nil
}

func (w *wire) open() (err error) {
	if w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if w.listen, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	if err = unix.Bind(w.listen, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err = unix.Listen(w.listen, 1024); err != nil {
		return err
	}
	name, err := unix.Getsockname(w.listen)
	if err != nil {
		return err
	}
	w.port = name.(*unix.SockaddrInet4).Port
	return w.add(&peer{fd: w.listen})
}

func (w *wire) close() {
	for _, p := range w.peers {
		if p != nil && p.fd != w.listen {
			w.drop(p)
		}
	}
	for _, fd := range []int{w.listen, w.epoll} {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing is left to write
		}
	}
}

// connect opens one client connection to a port of loopback.
func (w *wire) connect(port int, c *client) (*peer, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return nil, err
	}
	p := &peer{fd: fd, client: c}
	return p, w.adopt(p)
}

// adopt readies a connected socket and watches it.
func (w *wire) adopt(p *peer) error {
	if err := unix.SetsockoptInt(p.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	p.buf = make([]byte, 8192)
	return w.add(p)
}

func (w *wire) add(p *peer) error {
	for len(w.peers) <= p.fd {
		w.peers = append(w.peers, nil)
	}
	w.peers[p.fd] = p
	return unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, p.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(p.fd)})
}

func (w *wire) drop(p *peer) {
	w.peers[p.fd] = nil
	_ = unix.Close(p.fd) // leaves the epoll set with it
}

// wait returns the peers that have something to read, at most 10 ms later.
func (w *wire) wait() ([]unix.EpollEvent, error) {
	n, err := unix.EpollWait(w.epoll, w.events, 10)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("waiting for sockets: %w", err)
	}
	return w.events[:n], nil
}

func (w *wire) accept() error {
	fd, _, err := unix.Accept4(w.listen, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err == unix.EAGAIN || err == unix.ECONNABORTED {
		return nil
	}
	if err != nil {
		return fmt.Errorf("accepting at the origin: %w", err)
	}
	return w.adopt(&peer{fd: fd})
}

// serve reads what a proxy sent and answers each whole request in it.
func (w *wire) serve(p *peer) {
	n, err := unix.Read(p.fd, p.buf[p.n:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if err != nil || n == 0 {
		w.drop(p)
		return
	}
	p.n += n
	for {
		end := bytes.Index(p.buf[:p.n], headEnd)
		if end < 0 {
			if p.n == len(p.buf) {
				w.drop(p) // the client will count the failure
			}
			return
		}
		end += len(headEnd)
		w.head = append(w.head[:0], p.buf[:end]...)
		p.n = copy(p.buf, p.buf[end:p.n])
		w.served++
		if n, err := unix.Write(p.fd, w.answer); err != nil || n != len(w.answer) {
			w.drop(p)
			return
		}
	}
}
