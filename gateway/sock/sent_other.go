//go:build !linux

package sock

// Sent would tell how many bytes the peer has acknowledged, and whether bytes
// wait here because it takes no more; this system does not say.
func Sent(uintptr) (acked uint64, waiting, ok bool) { return 0, false, false }
