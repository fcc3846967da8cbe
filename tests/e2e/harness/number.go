package harness

import (
	"os"
	"strconv"
	"testing"
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
