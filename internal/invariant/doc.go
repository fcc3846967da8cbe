// Package invariant has assertions for checked builds (build tag "checked"); in others they cost
// nothing.
//
// A violated invariant is a bug in millrace. Bad input and failing disks are errors. It starts no
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
