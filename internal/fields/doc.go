// Package fields writes and reads protobuf messages field by field, without a message object, and
// appends to a buffer. The bytes equal those of package proto, which tests of the importing
// packages check: a field with the value zero is absent.
//
// It starts no goroutine.
package fields
