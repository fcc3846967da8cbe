// Package definition turns YAML files into checked definitions: strict YAML with positions,
// names and types against the descriptors of the functions, CEL expressions with a bounded cost,
// a static plan for every query, the descriptors of the generated API, a hash of the fold, and
// the difference of two definitions in words.
//
// What a file may hold is decided by its kind (Kind). Projection is one, others register in the
// same way: they get the document as a tree of Nodes with positions, the reader of fields, the
// expressions and the report, and give back a Definition.
//
// The order is: Parse reads the text of one file, Check makes definitions of all documents.
// Neither stops at the first problem: a Report has all of them, each with file, line, column,
// the rule that it breaks and how to put it right. Rules lists them.
//
// The package is pure: the same files, descriptors and options give the same definitions, bytes
// and texts, in every process. It starts no goroutine.
package definition
