package kafkaserver

import "syscall"

// processAttributes has nothing to set: a test that is killed leaves its broker behind.
func processAttributes(bool) *syscall.SysProcAttr { return nil }

// Windows cannot pause a process; sending these reports an error.
const (
	pauseSignal  = syscall.Signal(0x13)
	resumeSignal = syscall.Signal(0x12)
)
