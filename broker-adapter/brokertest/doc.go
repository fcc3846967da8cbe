// Package brokertest is the conformance suite of broker.Log. Every implementation runs it from one
// test:
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, brokertest.Options{Open: openForTest})
//	}
//
// The suite creates topics with unique names, so it may run against a log that others use. It never
// sleeps: every wait ends with its condition or with Options.Timeout. Options says what a log can
// do beyond the port (reopening on the same data, several clients); cases that need a capability
// which the log lacks are left out.
//
// The suite starts goroutines for writers and readers and waits for all of them before a case ends.
package brokertest
