// Package storetest is the conformance suite of materializer.Store: a package that implements the
// contract runs it in its tests.
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, storetest.Options{Open: ..., Disk: ...})
//	}
//
// The suite judges a store by the contract alone. Random tests print their seed; a run repeats with
// Options.Seed. Beyond the contract it defines five cases: an empty bound is no bound, an empty key
// is refused, a use after Close is an error that wraps fs.ErrClosed, Close may be called again, and
// an ingest that is refused changes nothing.
//
// Goroutines are started only by the tests on concurrency, which wait for them.
package storetest
