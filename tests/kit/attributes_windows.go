package kit

import "syscall"

// attributes has nothing to set: a test that is killed leaves its processes behind.
func attributes(bool) *syscall.SysProcAttr { return nil }

// Windows cannot pause a process; sending these reports an error.
const (
	pauseSignal  = syscall.Signal(0x13)
	resumeSignal = syscall.Signal(0x12)
)

// IsPaused is known on Linux only.
func (p *Process) IsPaused() bool { return true }
