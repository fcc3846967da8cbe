package leaktest

import (
	"fmt"
	"os"

	"go.uber.org/goleak"
)

// Main runs the tests of a package and then looks for leaked goroutines. It ends the
// process: with the tests' own status, or with 1 and the stacks when something leaked. m is a
// *testing.M, or runs one.
func Main(m goleak.TestingM) {
	goleak.VerifyTestMain(m)
}

// Twice returns a runner that runs all tests, calls change, and runs them again. change returns a
// description of what it changed.
func Twice(m goleak.TestingM, change func() string) goleak.TestingM { return &twice{m, change} }

type twice struct {
	tests  goleak.TestingM
	change func() string
}

// Run implements goleak.TestingM.
func (t *twice) Run() int {
	if code := t.tests.Run(); code != 0 {
		return code
	}
	difference := t.change()
	code := t.tests.Run()
	if code != 0 {
		fmt.Fprintln(os.Stderr, "that was", difference)
	}
	return code
}
