//go:build !linux

package sock

// LimitUnsent would have a connection take no more than bytes beyond what the
// network does; here the kernel's own bound holds.
func LimitUnsent(uintptr, int) error { return nil }
