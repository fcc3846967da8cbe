//go:build race

package harness

// raceDetector says that the tests run with the race detector; so do the programs then.
const raceDetector = true
