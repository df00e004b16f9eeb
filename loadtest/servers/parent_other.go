//go:build !linux

package servers

import "syscall"

// dieWithParent returns attr unchanged: only Linux can tie a process to its
// parent, so elsewhere a test binary that panics leaves its servers running.
func dieWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr { return attr }
