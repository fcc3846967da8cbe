//go:build unix

package node

import (
	"os/exec"
	"syscall"
)

// ownGroup gives a process a group of its own: `go run` and npm start the real program as a child,
// which must end with them, and a Ctrl-C at the terminal is for us to pass on.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
}

// killGroup ends what there is of a process and its children.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
