//go:build !linux

package harness

import "syscall"

// attributes has nothing to set: tests that are killed leave their processes behind.
func attributes() *syscall.SysProcAttr { return nil }
