// Package layering tests the architecture: which package may import which, where libraries may be
// used, which code must be pure, package comments, skipped tests, words and line lengths, that the
// repository holds no binaries, and that generated code and pages match the sources.
//
// ARCHITECTURE.md has the overview; the tables that the tests read are in packages_test.go
// (packages of this module) and libraries_test.go (others). A package without a row fails the test:
// a new package needs a row that says what it is for. An import without a row fails, too, and so
// does a row without an import, so that tables and code cannot drift apart.
//
// The package has tests only. They read the source with the standard library's parser, whatever its
// build tags, and start no goroutine.
package layering
