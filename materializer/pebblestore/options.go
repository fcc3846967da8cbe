package pebblestore

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Defaults and fixed settings. The reasons for the numbers are measurements on two cores.
const (
	defaultIngestTableBytes = 64 << 20

	// formatVersion is raised only by a named step: a directory never goes back to an earlier one.
	formatVersion = pebble.FormatTableFormatV6

	bloomBitsPerKey       = 10 // one false positive in a hundred, for look-ups of rows that are not there
	l0CompactionThreshold = 4
	stopWritesMemTables   = 4 // flushes may fall this far behind before commits wait
	usualMemTables        = 2 // one that takes commits, one that is being flushed
	minCompactions        = 1
	defaultCompactions    = 2

	// minMemTableBytes is for tests: below it a single commit may not fit.
	minMemTableBytes = 16 << 10
)

// DefaultMemTableBytes is Options.MemTableBytes where that is 0.
const DefaultMemTableBytes = 64 << 20

// Options say where a store lies and what it may use. Only Dir is required.
type Options struct {
	// Dir is the directory of the store, made if it is missing. It belongs to the store alone.
	Dir string
	// FS is where Dir lies; nil is the operating system's. vfs.NewMem() gives a worker without a
	// disk.
	FS vfs.FS
	// BlockCache is the size in bytes of the cache of blocks read. 0: what memtables leave. On a
	// server 1 to 2 GiB pay off.
	BlockCache int
	// Cache is a cache that other stores have, too; then BlockCache must be 0. Nil: one of its own.
	Cache *Cache
	// Compactions is how many run at a time at most; 0 is 2.
	Compactions int
	// MinFreeBytes is a low-water mark: while the disk has less free space, commits and ingests are
	// refused with ErrLowDisk, so that the store leaves room for others. 0: it takes what there is.
	MinFreeBytes uint64
	// MemTableBytes is how much is collected in memory before Pebble flushes it; up to four such
	// tables are held. 0 is 64 MiB.
	MemTableBytes uint64
	// IngestTableBytes bounds one sorted table of an ingest; 0 is 64 MiB.
	IngestTableBytes uint64
	// OnFailure is called when the store begins to refuse writes, and again, with ErrEnded, if only
	// opening it anew can help. It is called from a goroutine that must not be kept waiting, and
	// must not call the store. May be nil.
	OnFailure func(error)
	// OnWarning is called with Pebble's warnings, under the same conditions. May be nil.
	OnWarning func(message string)
}

// validated returns the options with defaults filled in, or an error that names every one that is
// wrong.
func (o Options) validated() (Options, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	if o.IngestTableBytes == 0 {
		o.IngestTableBytes = defaultIngestTableBytes
	}
	if o.Compactions == 0 {
		o.Compactions = defaultCompactions
	}
	if o.OnFailure == nil {
		o.OnFailure = func(error) {}
	}
	if o.OnWarning == nil {
		o.OnWarning = func(string) {}
	}
	var wrong []error
	if o.Dir == "" {
		wrong = append(wrong, errors.New("store has no directory: set Dir"))
	}
	if o.BlockCache < 0 {
		wrong = append(wrong, fmt.Errorf("store %s: BlockCache is %d: it must not be negative", o.Dir, o.BlockCache))
	}
	if o.Cache != nil && o.BlockCache != 0 {
		wrong = append(wrong, fmt.Errorf("store %s: BlockCache is %d: with a shared Cache it must be 0", o.Dir, o.BlockCache))
	}
	if o.Compactions < minCompactions {
		wrong = append(wrong,
			fmt.Errorf("store %s: Compactions is %d: the least is %d", o.Dir, o.Compactions, minCompactions))
	}
	if o.MemTableBytes < minMemTableBytes {
		wrong = append(wrong,
			fmt.Errorf("store %s: MemTableBytes is %d: the least is %d", o.Dir, o.MemTableBytes, minMemTableBytes))
	}
	return o, errors.Join(wrong...)
}

// cacheSize is the size that Pebble needs: it takes the memory of memtables out of its cache, and
// without room for them a cache as large as a memtable holds nothing.
func (o Options) cacheSize() int64 {
	return int64(o.BlockCache) + usualMemTables*int64(o.MemTableBytes) //nolint:gosec // fits into memory
}

// pebble returns the settings for Pebble.
func (o Options) pebble(s *Store) *pebble.Options {
	p := &pebble.Options{
		FS:                          restingFS{o.FS, &s.health, s.closing},
		DisableWAL:                  true,
		FormatMajorVersion:          formatVersion,
		CacheSize:                   o.cacheSize(),
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: stopWritesMemTables,
		L0CompactionThreshold:       l0CompactionThreshold,
		CompactionConcurrencyRange:  func() (lower, upper int) { return minCompactions, o.Compactions },
		Logger:                      logger{&s.health},
		EventListener:               s.health.listener(),
	}
	if o.Cache != nil {
		p.Cache = o.Cache.blocks
	}
	for level := range p.Levels {
		p.Levels[level].FilterPolicy = bloom.FilterPolicy(bloomBitsPerKey)
	}
	// An ingest that waits in the queue of memtables is durable only with a write-ahead log, which is
	// off.
	p.Experimental.DisableIngestAsFlushable = func() bool { return true }
	p.EnsureDefaults()
	return p
}
