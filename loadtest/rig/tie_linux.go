package rig

import (
	"os/exec"
	"syscall"
)

// tieToUs has the kernel end the process when the test binary dies without its
// clean-ups.
func tieToUs(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
