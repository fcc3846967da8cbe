// Package brokertest is the conformance suite of broker.Log. Every implementation runs it from one test:
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, brokertest.Options{Open: openForTest})
//	}
//
// The suite makes topics of its own with unique names, so it may run against a log that others use. It never sleeps: every
// wait ends with what it waits for or with Options.Timeout. What a log can do beyond the port (being opened again on the
// same data, being shared by several clients) is said in Options; cases that need it are left out where it is missing.
//
// The suite starts goroutines for writers and readers and waits for all of them before a case ends.
package brokertest
