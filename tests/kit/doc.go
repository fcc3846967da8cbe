// Package kit is what tests and benchmarks need of the machine: processes with captured output and
// a bounded end, free ports, conditions that are waited for, and settings from the environment,
// which README.md in the folder above lists.
//
// Any test may import it; the benchmarks and the servers of tests do too. It knows nothing of
// millrace: package harness, which runs millrace as processes, is built on it. What takes a
// testing.TB ends the test where it cannot do its work, everything else returns an error.
//
// A Process owns the goroutine that waits for its end; Kill and Stop wait for it.
package kit
