// Package memstore is a materializer.Store in memory, for tests. It implements the whole contract,
// crash behaviour included: Crash gives the store that a power cut would leave. It does not last
// longer than the process; for a worker without a disk, pebblestore on a file system in memory
// needs less memory per row.
//
// Rows lie in a persistent search tree, so that a snapshot is a pointer, readers never wait, and a
// batch appears at once. A store may be used from many goroutines; writers take turns with one
// lock. A Batch belongs to one goroutine. No goroutine is started. The only errors are uses after
// Close (fs.ErrClosed) and an ingest whose keys do not ascend.
package memstore
