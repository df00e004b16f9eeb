//go:build !linux || race

// The race detector learns from syscall.Read and syscall.Write what happens
// before what on both sides of a socket; raw calls would hide it.

package sock

import "syscall"

// Recv reads what is there; syscall.EAGAIN if nothing is, 0 at the end.
func Recv(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}

// Send writes what the socket takes; syscall.EAGAIN if it takes nothing.
func Send(fd uintptr, p []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), p)
		if err != syscall.EINTR {
			return max(n, 0), err
		}
	}
}
