//go:build !failpoints

package failpoint

import "time"

// Hit does nothing in this build.
func Hit(string) {}

// Shift is nothing in this build.
func Shift() time.Duration { return 0 }
