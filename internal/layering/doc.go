// Package layering is the architecture as tests: who may import whom, which library is known where,
// which code must be pure, what every package must say of itself, which tests may be left out, that
// the repository holds no programs, and that generated code and pages fit the sources.
//
// The drawing on the wall is ARCHITECTURE.md; the table that the tests read is in rooms_test.go (our own packages) and
// libraries_test.go (other people's). A package without a row fails the test: adding one means saying in a line what it is
// for. An edge without a row fails too, and an edge that nothing uses any more, so that table and code cannot drift apart.
//
// The package has tests only. They read the source with the standard library's parser, whatever its build tags, and start
// no goroutine.
package layering
