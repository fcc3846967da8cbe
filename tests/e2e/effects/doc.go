// Package effects proves, on whole processes, that effects and timers take effect exactly once: a
// worker is killed at every failpoint, its store is deleted, and its targets fail for a while.
package effects
