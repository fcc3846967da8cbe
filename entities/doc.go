// Package entities has the types that all other packages share: commands, the outcome that a user
// function decides, and the errors that callers get. It imports only the standard library and the
// mutation tests' switch.
//
// Nothing here has a goroutine or a clock. Values are plain data: a receiver may keep them and must
// not change them, except where a comment says that a buffer is only lent.
package entities
