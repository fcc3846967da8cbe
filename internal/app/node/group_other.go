//go:build !unix

package node

import "os/exec"

// ownGroup does nothing: there are no groups of processes here.
func ownGroup(*exec.Cmd) {}

// killGroup ends the process.
func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

// guard does nothing.
func guard(*exec.Cmd) (release func()) { return func() {} }
