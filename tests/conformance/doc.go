// Package conformance tests that millrace implements the Cloudstate protocol, like the acceptance
// tests of the reference implementation: a client calls millrace, millrace calls a user function
// through an interceptor, and the tests compare what the client got and all exchanged messages.
//
//	client -> millrace -> interceptor -> user function
//
// The same cases run with millrace in the test's own process and as the real binary, and with
// functions written directly against the protocol (package byhand, with the behaviours of two
// families of SDKs) and with package sdk (package bysdk). After every case there must be no
// unexpected call of millrace.
//
// Replicated entities are declared and refused; there are no cases for them, nor for event logs.
package conformance
