package sock

import "golang.org/x/sys/unix"

// Left reports whether the peer has closed at least its sending side. Bytes
// that nobody has read yet do not hide it, as they would from a recv that
// peeks.
func Left(fd uintptr) bool {
	p := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p[:], 0)
	return n == 1 && err == nil && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}
