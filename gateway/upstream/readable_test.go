package upstream

import (
	"syscall"
	"testing"
)

// waitReadable waits until the socket has data or its end, and takes neither.
func waitReadable(t testing.TB, s *socket) {
	t.Helper()
	eventually(t, "something to read", func() (ok bool) {
		err := s.raw.Control(func(fd uintptr) {
			_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			ok = err == nil
		})
		return ok || err != nil
	})
}
