// Package mapping compiles projections: a Fold turns records into rows, rows into entries of
// indexes and groups of aggregates. It also has the tuples of which their keys are made. It is
// pure: the same definition, records and rows give the same bytes in every process and version.
//
// Literals, what a record says of itself, and paths of the event whose value is of the field's
// class are wire copies: the event's bytes are read once and the row's written once, no message is
// decoded. All else is a CEL program; paths to single values in it are read from the bytes, too.
//
// A row has the canonical wire form: known fields by number, each once, entries of maps by key,
// unknown fields dropped, zero left out where a field has no presence.
//
// A tuple is a list of values, encoded so that tuples of one Shape sort, byte by byte, as their
// values do, field by field. docs/views-keyspace.md has the encoding.
package mapping
