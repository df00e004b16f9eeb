package sock

import "golang.org/x/sys/unix"

// LimitUnsent has a connection take no more than bytes beyond what the network
// does, however large the buffer that the kernel would grow for it.
func LimitUnsent(fd uintptr, bytes int) error {
	return unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
}
