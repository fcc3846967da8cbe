package harness

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// Number reads a number, 1 or more, from an environment variable; without one it is otherwise.
func Number[N int | uint64](t testing.TB, variable string, otherwise N) N {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q: give a number, 1 or more", variable, text)
	}
	return N(n)
}

// Duration reads a duration, more than 0, from an environment variable; without one it is 0.
func Duration(t testing.TB, variable string) time.Duration {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s is %q: give a duration, as in 90s or 8h", variable, text)
	}
	return d
}
