package embedded

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// databaseFormat is the format of Pebble's own files. Its WAL chunks distinguish a torn tail from
// damage before the last sync. A directory with a raised format cannot go back.
const databaseFormat = pebble.FormatTableFormatV6

// Sizes that suit a log: values are read in long runs and never change.
const (
	blockBytes = 32 << 10
	tableBytes = 16 << 20
	// memTables bounds how many memtables wait to be flushed before writers wait for the disk.
	memTables = 4
	// usualMemTables are one that takes writes and one that is being flushed.
	usualMemTables = 2
	// retainedBatchBytes is what the committer's batch keeps between commits.
	retainedBatchBytes = 2 * maxGroupBytes
)

// database is one opening of the directory. A log may go through several.
type database struct {
	*pebble.DB
	fs *failStopFS
}

// openDatabase opens the directory of a log whose lock is held and reads where its partitions end.
func openDatabase(o Options, lock *pebble.Lock, topics *topicTable, stats *stats) (*database, error) {
	disk := o.FS
	if !o.Ephemeral {
		disk = aheadFS{disk}
	}
	d := &database{fs: newFailStopFS(disk, o.Dir)}
	db, err := openFiles(o, d.fs, lock, stats)
	if err != nil {
		return nil, directoryError("open log in", o.Dir, firstError(d.fs.failure(), err))
	}
	d.DB = db
	err = topics.load(db)
	if cause := d.fs.failure(); cause != nil {
		err = cause // what was loaded may have been created after the stop
	}
	if err != nil {
		_ = d.Close() // err is the one to report
		return nil, directoryError("open log in", o.Dir, err)
	}
	return d, nil
}

// openFiles opens Pebble. A new database begins its first WAL before it takes up its format: damage
// in that one would pass for a torn tail, and hide what was acknowledged. So a new database is
// closed and opened again before anything is written to it.
func openFiles(o Options, disk *failStopFS, lock *pebble.Lock, stats *stats) (*pebble.DB, error) {
	was, err := pebble.Peek(o.Dir, disk)
	if err != nil {
		return nil, err
	}
	db, err := pebble.Open(o.Dir, databaseOptions(o, disk, lock, stats))
	if err != nil || was.Exists {
		return db, err
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	return pebble.Open(o.Dir, databaseOptions(o, disk, lock, stats))
}

func databaseOptions(o Options, disk *failStopFS, lock *pebble.Lock, stats *stats) *pebble.Options {
	options := &pebble.Options{
		FS:                          disk,
		Lock:                        lock,
		FormatMajorVersion:          databaseFormat,
		CacheSize:                   int64(o.BlockCache + usualMemTables*o.MemTableBytes), // Pebble takes memtables out of it
		MemTableSize:                uint64(o.MemTableBytes),                              //nolint:gosec // validated
		MemTableStopWritesThreshold: memTables,
		Logger:                      pebbleLogger{dir: o.Dir},
		EventListener: &pebble.EventListener{
			BackgroundError: stats.note,
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				stats.note(fmt.Errorf("%w: %s: %w; %s", ErrCorrupt, info.Path, info.Details, restoreAdvice))
			},
		},
	}
	for i := range options.Levels {
		options.Levels[i].BlockSize = blockBytes
	}
	options.TargetFileSizes[0] = tableBytes
	return options
}

// pebbleLogger drops Pebble's messages; its events report what matters.
type pebbleLogger struct{ dir string }

func (pebbleLogger) Infof(string, ...any)  {}
func (pebbleLogger) Errorf(string, ...any) {}

// Fatalf ends the process, as Pebble demands: it calls this where it cannot go on. Disk errors do
// not get here (failStopFS), so the cause is an inconsistency inside the database.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("log in %s: %s", l.dir, fmt.Sprintf(format, args...)))
}
