// Package query answers the generated services of projections: one row by its key, lists in the
// order of an index, counts and the groups of aggregates.
//
// Service is the coordinator. It decodes a request, finds the plan and the range of keys, opens the
// partitions that can have rows through an Executor, merges what they return by order and key, and
// encodes the answer; rows are passed on as bytes. Where rows lie, on this worker or on others, is
// the Executor's business alone.
//
// What is read is decided by this process: the dataset and the index are named in each Scan, and an
// Executor reads exactly these, or says that it has not got them. So no answer mixes two versions.
package query
