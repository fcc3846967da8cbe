// Package readside computes what the projections of examples/orders have to show, from the records
// of a journal and nothing else: the rows, the entries of their indexes, the groups of their
// aggregates, and the keys under which they are stored. It is slow and plain. It reads neither the
// YAML files nor CEL, and shares no code with the packages that fold: only the messages of the
// example. So a fault of the engine is not a fault here as well.
package readside
