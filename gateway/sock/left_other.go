//go:build !linux

package sock

import "golang.org/x/sys/unix"

// Left reports whether the peer has reset the connection. A side that was only
// closed for sending cannot be told from an open one here.
func Left(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p[:], 0)
	return n == 1 && err == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
