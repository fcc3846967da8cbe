// Package conformance holds millrace to the Cloudstate protocol as the reference's acceptance tests do: a client calls
// millrace, millrace calls a user function through an interceptor, and the tests compare what the client got and every
// message that was exchanged.
//
//	client -> millrace -> interceptor -> user function
//
// The same cases run with millrace in the test's own process and as the real binary, and with functions written straight
// against the protocol (package byhand, in the manners of two families of SDKs) and with our own sdk (package bysdk). After
// every case no call of millrace may be left that nobody asked for.
//
// Replicated entities are declared and refused here; their cases, and those of event logs, come with them.
package conformance
