// Package clock is time as a value that is passed in, so that tests can turn it by hand; the machine's own notices when the machine was
// suspended. It starts no goroutine.
package clock
