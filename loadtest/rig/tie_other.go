//go:build !linux

package rig

import "os/exec"

// tieToUs does nothing: only Linux can tie a process to its parent.
func tieToUs(*exec.Cmd) {}
