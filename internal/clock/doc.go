// Package clock makes time a value that is passed in, so that tests control it. The machine's clock
// detects when the machine was suspended. The package starts no goroutine.
package clock
