//go:build !checked

package invariant

// Enabled reports whether this is a checked build.
const Enabled = false

// Check does nothing in this build; with the build tag "checked" it panics when cond does not hold.
func Check(bool, string, ...any) {}
