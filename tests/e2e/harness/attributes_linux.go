package harness

import "syscall"

// attributes let a process die with the tests, however those end.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
