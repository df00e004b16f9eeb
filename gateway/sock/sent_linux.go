package sock

import "golang.org/x/sys/unix"

// Sent tells how many bytes the peer has acknowledged since the connection
// began, and whether bytes wait here because it takes no more. ok is false where
// the system does not tell.
func Sent(fd uintptr) (acked uint64, waiting, ok bool) {
	info, err := unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, false, false
	}
	return info.Bytes_acked, info.Notsent_bytes > 0, true
}
