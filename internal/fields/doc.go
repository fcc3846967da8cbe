// Package fields writes and reads protobuf messages by hand, field by field: without a message
// object in between, and so that a message can be appended to what stands before it. The bytes are
// those of protobuf itself, which the tests of the packages that use it compare: a field with the
// value zero is absent.
//
// It starts no goroutine.
package fields
