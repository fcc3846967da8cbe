// Package leaktest fails a test binary in which a goroutine outlives the tests. Only tests import
// it:
//
//	func TestMain(m *testing.M) { leaktest.Main(m) }
//
// It starts no goroutine of its own.
package leaktest
