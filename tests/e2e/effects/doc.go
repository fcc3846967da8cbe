// Package effects proves, on whole processes, that effects and timers take effect exactly once: a
// worker is killed at every named moment, its store is deleted, and its targets break for a while.
package effects
