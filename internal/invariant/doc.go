// Package invariant holds assertions that live only in checked builds (build tag "checked"); elsewhere they cost nothing.
//
// A broken invariant is a bug in millrace, never bad input or bad luck with a disk: those are errors. It starts no
// goroutine; Check may be called from anywhere.
//
// Arguments of Check are evaluated in every build. Where that costs something, write
//
//	if invariant.Enabled {
//		invariant.Check(...)
//	}
//
// which the compiler drops when the tag is absent.
package invariant
