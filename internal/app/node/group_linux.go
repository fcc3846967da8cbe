package node

import "syscall"

// endWithParent has the kernel kill the process when the thread that starts it ends, and so with
// this process. The thread must not end before.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGKILL }
