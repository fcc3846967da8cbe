package embedded

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
)

// Defaults of Options, and bounds that are not options.
const (
	DefaultMemTableBytes  = 32 << 20
	DefaultQueueBytes     = 32 << 20
	DefaultQueueAppends   = 16 << 10
	DefaultMaxRecordBytes = 1 << 20

	// maxGroupBytes bounds one synced commit, so that a burst of large appends does not delay small
	// ones for long.
	maxGroupBytes = 4 << 20
	// minMemTableBytes is enough for a whole group: Pebble treats a batch above half of it
	// specially.
	minMemTableBytes = 1 << 20
	// steadyFor is how long a reopened log must have worked before the backoff starts again.
	steadyFor = 10 * time.Second
)

// Options configures a log. Dir is required unless Ephemeral is set; every zero value means its
// default.
type Options struct {
	// Dir is the directory of this log; nothing else may be in it. It is created if it does not
	// exist.
	Dir string
	// Ephemeral keeps everything in memory instead: the log ends with the process.
	Ephemeral bool
	// FS is the file system that holds Dir. Nil: the machine's.
	FS vfs.FS
	// BlockCache is the size of the block cache in bytes. 0: what the memtables leave.
	BlockCache int
	// MemTableBytes is the size of one memtable (up to four may exist at a time).
	MemTableBytes int
	// QueueBytes and QueueAppends bound what waits for the committer; an Append beyond them blocks.
	QueueBytes   int
	QueueAppends int
	// Retry is the pause between attempts to open the log again after the disk failed.
	Retry backoff.Policy
	// Clock gives append times and waits for retries. Nil: the machine's.
	Clock clock.Clock
}

// withDefaults returns the options with defaults filled in.
func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Ephemeral && o.FS == nil:
		o.FS = vfs.NewMem()
		o.Dir = "/ephemeral"
	case o.Dir == "":
		return o, errors.New(
			"open log: no directory given: set Options.Dir, or Options.Ephemeral to keep everything in memory")
	case o.FS == nil:
		// Inside a process the lock is identified by its path, so a directory must have only one.
		dir, err := filepath.Abs(o.Dir)
		if err != nil {
			return o, fmt.Errorf("open log in %s: %w", o.Dir, err)
		}
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dir = resolved
		}
		o.FS, o.Dir = vfs.Default, dir
	}
	setDefault(&o.MemTableBytes, DefaultMemTableBytes)
	setDefault(&o.QueueBytes, DefaultQueueBytes)
	setDefault(&o.QueueAppends, DefaultQueueAppends)
	if o.MemTableBytes < minMemTableBytes {
		return o, fmt.Errorf("open log in %s: MemTableBytes is %d, at least %d are needed", o.Dir, o.MemTableBytes,
			minMemTableBytes)
	}
	if o.QueueBytes < 0 || o.QueueAppends < 0 || o.BlockCache < 0 {
		return o, fmt.Errorf("open log in %s: QueueBytes, QueueAppends and BlockCache must not be negative", o.Dir)
	}
	if o.Retry == (backoff.Policy{}) {
		o.Retry = backoff.Policy{First: 100 * time.Millisecond, Max: 5 * time.Second, Jitter: 0.2}
	}
	if o.Clock == nil {
		o.Clock = clock.Wall{}
	}
	return o, nil
}

func setDefault[T int | int64](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}
