//go:build unix && !linux

package kit

import "syscall"

// attributes let a detached process go on without its terminal. Only Linux can tie a child's life
// to its parent's: here a test that is killed leaves its processes behind.
func attributes(detached bool) *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: detached} }

const (
	pauseSignal  = syscall.SIGSTOP
	resumeSignal = syscall.SIGCONT
)

// IsPaused is known on Linux only.
func (p *Process) IsPaused() bool { return true }
