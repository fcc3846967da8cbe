//go:build unix

package node

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// ownGroup gives a process a group of its own: `go run` and npm start the real program as a child,
// which must end with them, and a Ctrl-C at the terminal is for us to pass on.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
}

// killGroup ends what there is of a process and its children.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// guardScript waits for the end of its input and kills a process group.
const guardScript = `trap "" HUP INT QUIT TERM; read -r _; kill -KILL -"$1"`

// guard starts a shell in the group of a process, which kills the group when this process ends in
// any way: its input is a pipe, whose other end only this process has. It is a member of the group,
// so that the group's number is not given to another one, and killGroup ends it. Where there is no
// shell, or the process has ended already, there is no guard.
func guard(cmd *exec.Cmd) (release func()) {
	read, write, err := os.Pipe()
	if err != nil {
		return func() {}
	}
	g := exec.Command("/bin/sh", "-c", guardScript, "sh", strconv.Itoa(cmd.Process.Pid)) //nolint:gosec,noctx // a number; release ends it
	g.Stdin = read
	g.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: cmd.Process.Pid}
	err = g.Start()
	_ = read.Close()
	return func() {
		_ = write.Close()
		if err == nil {
			_ = g.Process.Kill()
			_ = g.Wait()
		}
	}
}
