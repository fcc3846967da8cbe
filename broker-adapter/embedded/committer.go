package embedded

import (
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"github.com/cockroachdb/pebble/v2"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// maxRest bounds the pause between two syncs on a slow disk.
const maxRest = 250 * time.Microsecond

// createRequest is a call of Create for the committer.
type createRequest struct {
	spec  broker.TopicSpec
	reply chan error // holds one
}

// commitLoop is the committer, the one goroutine of a log. Close stops it and waits for it.
func (l *Log) commitLoop() {
	for {
		select {
		case <-l.queue.ready:
			l.commitWaiting()
		case r := <-l.creates:
			r.reply <- l.createTopic(r.spec)
		case <-l.stopped():
			l.fail(l.db.fs.failure())
		case <-l.retry:
			l.reopen()
		case <-l.closing:
			l.finish()
			return
		}
	}
}

// stopped is closed when the disk failed in the background, in a flush or a compaction.
func (l *Log) stopped() <-chan struct{} {
	if l.db == nil {
		return nil
	}
	return l.db.fs.out
}

// commitWaiting commits one group of waiting appends and delivers its results in the order of the
// Append calls.
func (l *Log) commitWaiting() {
	l.rest()
	// Let goroutines that are about to append do so first: under load that merges several syncs
	// into one.
	runtime.Gosched()
	group := l.queue.take(maxGroupBytes)
	if l.failure == nil {
		l.commitGroup(group)
	} else {
		refuse(group, l.failure)
	}
	deliver(group)
}

// rest pauses between two syncs, as long as the last one took, at most maxRest. Appends made
// meanwhile join the same group: a sync costs far more than one more record in it. A single caller
// is not delayed, since its next append takes longer to arrive.
func (l *Log) rest() {
	pause := min(l.syncTook, maxRest) - l.opts.Clock.Now().Sub(l.syncedAt)
	if pause <= 0 {
		return
	}
	over, stop := l.opts.Clock.After(pause)
	defer stop()
	select {
	case <-over:
	case <-l.closing:
	}
}

// refuse sets the error of every request that has none yet.
func refuse(group []request, err error) {
	for i := range group {
		if group[i].result.Err == nil {
			group[i].result = broker.AppendResult{Err: err}
		}
	}
}

func deliver(group []request) {
	for i := range group {
		group[i].done(group[i].result)
	}
}

// commitGroup makes a group durable. Requests that were refused before stay refused.
func (l *Log) commitGroup(group []request) {
	l.openBatch()
	at := l.opts.Clock.Now().UnixNano()
	for i := range group {
		l.stage(&group[i], at)
	}
	clear(l.newest)
	if l.batch.Empty() {
		return
	}
	if err := l.commit(); err != nil {
		refuse(group, fmt.Errorf("append to log in %s: %w: %w", l.opts.Dir, ErrOutcomeUnknown, err))
		l.fail(err)
		return
	}
	for i := range group {
		r := &group[i]
		if r.result.Err != nil {
			continue
		}
		if r.partition.end.Load() != r.partition.next {
			r.partition.publish(r.partition.next)
		}
		l.stats.appends.Add(1)
		l.stats.records.Add(uint64(len(r.records)))
		l.stats.bytes.Add(uint64(r.bytes)) //nolint:gosec // sizes are not negative
	}
}

// openBatch makes sure that there is an empty batch. It is reused while the database is open.
func (l *Log) openBatch() {
	if l.batch == nil {
		l.batch = l.db.NewBatch(pebble.WithMaxRetainedSizeBytes(retainedBatchBytes))
	}
}

// stage encodes the records of a request straight into the batch and gives them offsets.
func (l *Log) stage(r *request, at int64) {
	if r.result.Err != nil {
		return
	}
	p := r.partition
	if p.topic.Compacted {
		if err := l.findNewest(r); err != nil {
			r.result.Err = fmt.Errorf("append to topic %s, partition %d: %w: %w",
				p.topic.Name, p.id, ErrFailed, directoryError("look up keys in", l.opts.Dir, err))
			return
		}
	}
	r.result.Base = p.next
	for i := range r.records {
		record := &r.records[i]
		op := l.batch.SetDeferred(recordKeySize, encodedSize(record))
		putRecordKey(op.Key, p.topic.Number, p.id, p.next)
		encode(op.Value, op.Key, record, at)
		_ = op.Finish() // cannot fail: the batch has no index
		if p.topic.Compacted {
			l.supersede(p, record, p.next)
		}
		p.next++
	}
	r.result.Last = p.next - 1
}

// commit writes the batch and waits until it is synced. An error leaves the outcome unknown.
func (l *Log) commit() error {
	start := l.opts.Clock.Now()
	if err := l.db.ApplyNoSyncWait(l.batch, pebble.Sync); err != nil {
		return err
	}
	if err := l.batch.SyncWait(); err != nil {
		return err
	}
	// The sync counts only if nothing failed meanwhile: see failStopFS.
	if err := l.db.fs.failure(); err != nil {
		return err
	}
	l.syncedAt = l.opts.Clock.Now()
	l.syncTook = l.syncedAt.Sub(start)
	l.stats.syncTime.Add(int64(l.syncTook))
	l.stats.commits.Add(1)
	l.batch.Reset()
	return nil
}

// createTopic stores a topic. It raises the limit of an existing one if that is lower than
// requested.
func (l *Log) createTopic(spec broker.TopicSpec) error {
	known := l.topics.get(spec.Name)
	if known == nil {
		row := newTopicRow(spec, l.topics.nextNumber())
		if err := l.writeTopic("create", row); err != nil {
			return err
		}
		l.topics.add(newTopic(row))
		return nil
	}
	if int64(spec.MaxRecordBytes) <= known.limit.Load() {
		return nil
	}
	row := known.topicRow
	row.MaxRecordBytes = spec.MaxRecordBytes
	if err := l.writeTopic("raise the limit of", row); err != nil {
		return err
	}
	known.limit.Store(int64(row.MaxRecordBytes))
	return nil
}

func (l *Log) writeTopic(doing string, row topicRow) error {
	if l.failure != nil {
		return fmt.Errorf("%s topic %s: %w", doing, row.Name, l.failure)
	}
	value, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("%s topic %s: %w", doing, row.Name, err)
	}
	l.openBatch()
	_ = l.batch.Set(topicKey(row.Name), value, nil) // cannot fail: it only writes to memory
	if err := l.commit(); err != nil {
		l.fail(err)
		return fmt.Errorf("%s topic %s in %s: %w: %w", doing, row.Name, l.opts.Dir, ErrOutcomeUnknown, err)
	}
	return nil
}

// fail gives up the database after the disk failed and arranges the next attempt to open it.
func (l *Log) fail(cause error) {
	now := l.opts.Clock.Now()
	if now.Sub(l.openedAt) > steadyFor {
		l.attempts = 0
	}
	l.failure = directoryError("append to log in", l.opts.Dir, fmt.Errorf("%w: %w", ErrFailed, cause))
	l.stats.failures.Add(1)
	l.stats.note(l.failure)
	l.stats.enter(StateFailed)
	_ = l.closeDatabase() // the cause is known
	l.retryLater()
}

// retryLater has the committer open the database again after a pause, which grows with each attempt
// until the log has worked for steadyFor.
func (l *Log) retryLater() {
	l.attempts++
	l.retry, l.stopRetry = l.opts.Clock.After(l.opts.Retry.Pause(l.attempts))
}

// reopen tries to open the database again. Ends are read from the disk: records with unknown
// outcome may have become part of the log.
func (l *Log) reopen() {
	l.retry = nil
	db, err := openDatabase(l.opts, l.lock, l.topics, l.stats)
	if err != nil {
		l.failure = fmt.Errorf("%w: %w", ErrFailed, err)
		l.stats.note(l.failure)
		l.retryLater()
		return
	}
	l.use(db)
	l.stats.reopened.Add(1)
}

// use starts to work with a database.
func (l *Log) use(db *database) {
	l.db, l.failure, l.openedAt = db, nil, l.opts.Clock.Now()
	l.current.Store(db)
	l.stats.enter(StateReady)
	l.back.broadcast()
}

// closeDatabase closes the iterators of all readers, then the database.
func (l *Log) closeDatabase() error {
	if l.db == nil {
		return nil
	}
	l.current.Store(nil) // before the readers: none of them opens another iterator
	l.suspendReaders()
	err := l.db.Close()
	l.db, l.batch = nil, nil
	return err
}

// finish fails the open appends and closes everything. It ends the committer.
func (l *Log) finish() {
	l.queue.close()
	for !l.queue.sealIfEmpty() {
		group := l.queue.take(maxGroupBytes)
		refuse(group, fmt.Errorf("append to log in %s: %w", l.opts.Dir, broker.ErrClosed))
		deliver(group)
	}
	if l.retry != nil {
		l.stopRetry()
	}
	healthy := l.db != nil && l.db.fs.failure() == nil
	err := l.closeDatabase()
	if healthy && err == nil {
		err = writeEnds(l.opts.FS, l.opts.Dir, l.topics.ends())
	}
	l.closeErr = firstError(err, l.lock.Close())
	l.stats.enter(StateClosed)
}
