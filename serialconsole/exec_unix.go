//go:build unix

package serialconsole

import (
	"os/exec"
	"syscall"
)

// ownGroup has a program and its children be ended together.
func ownGroup(command *exec.Cmd) { command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// The errors say that there is no one left to end.

func terminate(command *exec.Cmd) { _ = syscall.Kill(-command.Process.Pid, syscall.SIGTERM) }
func kill(command *exec.Cmd)      { _ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
