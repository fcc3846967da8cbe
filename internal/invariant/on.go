//go:build checked

package invariant

import "fmt"

// Enabled reports whether this is a checked build.
const Enabled = true

// Check panics with the message when cond does not hold.
func Check(cond bool, format string, args ...any) {
	if !cond {
		panic("invariant broken: " + fmt.Sprintf(format, args...))
	}
}
