package servers

import "syscall"

// dieWithParent returns attr with the wish that the kernel kills the process
// when the test binary ends without its clean-ups, as on a panic or time-out.
func dieWithParent(attr *syscall.SysProcAttr) *syscall.SysProcAttr {
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.Pdeathsig = syscall.SIGKILL
	return attr
}
