//go:build unix && !linux

package node

import "syscall"

// endWithParent does nothing: here only the guard ends what is left.
func endWithParent(*syscall.SysProcAttr) {}
