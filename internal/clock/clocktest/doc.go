// Package clocktest has a clock that stands still until a test turns it. Only tests import it, and
// sdktest, which shows it to users. It starts no goroutine.
package clocktest
