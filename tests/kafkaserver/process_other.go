//go:build unix && !linux

package kafkaserver

import "syscall"

// processAttributes let a detached broker live on without its terminal. Only Linux can tie a child's life to its
// parent's: here a test that is killed leaves its broker behind.
func processAttributes(detached bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: detached}
}

const (
	pauseSignal  = syscall.SIGSTOP
	resumeSignal = syscall.SIGCONT
)
