// Package entities is the vocabulary of millrace: what a command is, what a user function decides about it, and what a
// caller is told. Every other package speaks in these words; this one imports nothing but the standard library
// and the mutation tests' switch.
//
// Nothing here has a goroutine or a clock. Values are plain data: whoever receives one may keep it, nobody may change it
// afterwards, except where a comment says that a buffer is only lent.
package entities
