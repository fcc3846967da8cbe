//go:build !mutation

package mutation

// On says whether a safety line is taken out; never in this build.
func On(string) bool { return false }
