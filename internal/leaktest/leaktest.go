package leaktest

import "go.uber.org/goleak"

// Main runs the tests of a package and then looks for goroutines that are still there. It ends the process: with the tests'
// own status, or with 1 and the stacks when something leaked. m is a *testing.M, or runs one.
func Main(m goleak.TestingM) {
	goleak.VerifyTestMain(m)
}
