//go:build unix

package node

import (
	"cmp"
	"os"
	"os/exec"
	"syscall"
)

// ownGroup gives a process a group of its own: `go run` and npm start the real program as a child,
// which must end with them, and a Ctrl-C at the terminal is for us to pass on. It starts the guard
// of the group, if there is a shell; release ends that.
func ownGroup(cmd *exec.Cmd) (release func()) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	endWithParent(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-group(cmd), syscall.SIGTERM) }
	cmd.SysProcAttr.Pgid, release = guard()
	return release
}

// group is the number of a process's group.
func group(cmd *exec.Cmd) int { return cmp.Or(cmd.SysProcAttr.Pgid, cmd.Process.Pid) }

// killGroup ends what there is of a process and its children. The guard holds the group's number
// until it is released.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-group(cmd), syscall.SIGKILL) }

// guardScript waits for the end of its input and kills its process group.
const guardScript = `trap "" HUP INT QUIT TERM; read -r _; kill -KILL 0`

// guard starts a shell in a process group of its own, which kills the group when this process ends
// in any way: its input is a pipe, whose other end only this process has. It is there before the
// first process that it guards. It returns the group, 0 if there is no shell.
func guard() (group int, release func()) {
	none := func() {}
	read, write, err := os.Pipe()
	if err != nil {
		return 0, none
	}
	g := exec.Command("/bin/sh", "-c", guardScript) //nolint:noctx // release ends it
	g.Stdin, g.SysProcAttr = read, &syscall.SysProcAttr{Setpgid: true}
	err = g.Start()
	_ = read.Close()
	if err != nil {
		_ = write.Close()
		return 0, none
	}
	return g.Process.Pid, func() {
		_ = g.Process.Kill()
		_ = g.Wait()
		_ = write.Close()
	}
}
