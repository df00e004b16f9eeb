//go:build !linux

package e2e

import "os/exec"

// tieToUs does nothing: only Linux can tie a process to its parent.
func tieToUs(*exec.Cmd) {}
