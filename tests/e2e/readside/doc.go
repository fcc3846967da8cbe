// Package readside holds the views of examples/orders to their promise with real processes: a
// caller reads its own writes, and whatever is killed, rows, indexes and aggregates are those of
// the log, which tests/readside computes again. While versions of a projection are put in force and
// back, no answer has rows of two of them.
package readside
