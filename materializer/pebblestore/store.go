package pebblestore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/millrace-io/millrace/materializer"
)

var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("directory is in use")
	// ErrEnded: this Store refuses all writes; the store must be opened again.
	ErrEnded = errors.New("the store must be opened again")
	// ErrLowDisk: the disk has less free space than Options.MinFreeBytes.
	ErrLowDisk = errors.New("free disk space is below the low-water mark")
)

// Store is a materializer.Store on Pebble. Make it with Open.
type Store struct {
	dir     string
	options Options
	tuning  *pebble.Options
	db      *pebble.DB
	lock    *pebble.Lock
	gate    gate
	health  health

	// order is held shared by commits and alone by an ingest: between the flush of what was
	// committed before an ingest and the ingest itself there must be no commit, or a crash could
	// keep the ingest and forget the commit.
	order sync.RWMutex

	openMu    sync.Mutex
	snapshots map[*snapshot]struct{} // those that are open
	iterators map[*iterator]struct{}

	flushMu sync.Mutex
	asked   <-chan struct{} // the last flush that was asked of Pebble; closed when it is done

	closeOnce sync.Once
	closing   chan struct{}
	closeErr  error

	ingested atomic.Uint64 // number of the last table built for an ingest
	counters counters
}

var _ materializer.Store = (*Store)(nil)

// Open opens the store in a directory, or makes an empty one there. See the package's documentation
// for its errors.
func Open(o Options) (*Store, error) {
	o, err := o.validated()
	if err != nil {
		return nil, err
	}
	if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make store %s: %w", o.Dir, err)
	}
	lock, err := lockDirectory(o)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir: o.Dir, options: o, lock: lock, gate: newGate(), closing: make(chan struct{}),
		snapshots: map[*snapshot]struct{}{}, iterators: map[*iterator]struct{}{},
	}
	s.health.init(o)
	s.tuning = o.pebble(s)
	s.tuning.Lock = lock
	if err := s.openFiles(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if o.Cache != nil {
		o.Cache.join(o.MemTableBytes)
	}
	return s, nil
}

// refusal returns why rows cannot be added, or nil.
func (s *Store) refusal() error {
	if err := s.health.refusal(); err != nil || s.options.MinFreeBytes == 0 {
		return err
	}
	disk, err := s.options.FS.GetDiskUsage(s.dir)
	if err == nil && disk.AvailBytes < s.options.MinFreeBytes { // some file systems cannot tell
		return fmt.Errorf("store %s: %w: %d MiB are free, it leaves %d MiB to others; free space, and it goes on by itself",
			s.dir, ErrLowDisk, disk.AvailBytes>>20, s.options.MinFreeBytes>>20)
	}
	return nil
}

func lockDirectory(o Options) (*pebble.Lock, error) {
	lock, err := pebble.LockDirectory(o.Dir, o.FS)
	if err == nil {
		return lock, nil
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok { // the lock file itself cannot be made
		return nil, fmt.Errorf("lock store %s: %w", o.Dir, err)
	}
	return nil, fmt.Errorf("store %s: %w (%w): stop the other millrace process, or give this one its own directory",
		o.Dir, ErrLocked, err)
}

// openFiles removes what an interrupted ingest left and opens Pebble. An error that is not one of
// the operating system means damaged files.
func (s *Store) openFiles() error {
	if err := s.options.FS.RemoveAll(s.ingestDir()); err != nil {
		return fmt.Errorf("open store %s: remove leftovers of an ingest: %w", s.dir, err)
	}
	db, err := s.openPebble()
	switch {
	case err == nil:
		s.db = db
		return nil
	case isDiskError(err) && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open store %s: %w", s.dir, err)
	default:
		return damaged(s.dir, "open store", err)
	}
}

// openGrace is how long Pebble gets to return from opening after an error that it cannot
// recover from.
const openGrace = time.Second

// openPebble opens Pebble. On a disk that has no room for its manifest, Pebble waits forever for a
// flush that cannot succeed, and tries it without pause. Then its goroutine is abandoned and
// blocked: it writes nothing, and ends with the process.
func (s *Store) openPebble() (*pebble.DB, error) {
	type opening struct {
		db  *pebble.DB
		err error
	}
	opened := make(chan opening, 1)
	go func() { // ends when Pebble has opened, or failed to; otherwise with the process, see above
		db, err := pebble.Open(s.dir, s.tuning)
		opened <- opening{db, err}
	}()
	select {
	case o := <-opened:
		return o.db, o.err
	case <-s.health.ended:
	}
	grace := time.NewTimer(openGrace)
	defer grace.Stop()
	select {
	case o := <-opened:
		return o.db, o.err
	case <-grace.C:
		s.health.abandoned.Store(true)
		return nil, s.health.refusal()
	}
}

// Get returns a copy of the row's value, or nil.
func (s *Store) Get(key []byte) ([]byte, error) {
	if !s.gate.enter() {
		return nil, s.closed("get")
	}
	defer s.gate.leave()
	return s.get(s.db, key)
}

// Scan yields the rows with lower <= key < upper as of the moment of the call; an empty upper is no
// bound.
func (s *Store) Scan(lower, upper []byte, yield func(key, value []byte) bool) error {
	if !s.gate.enter() {
		return s.closed("scan")
	}
	defer s.gate.leave()
	return s.scan(s.db, lower, upper, yield)
}

// DropRange removes the rows with lower <= key < upper; an empty upper is no bound. Compaction
// frees the disk space later.
func (s *Store) DropRange(lower, upper []byte) error {
	if !s.gate.enter() {
		return s.closed("drop range")
	}
	defer s.gate.leave()
	if err := s.health.refusal(); err != nil {
		return err
	}
	if err := s.deleteRange(lower, upper); err != nil {
		return s.health.explain("drop range", err)
	}
	return s.flush()
}

// deleteRange closes a range that is open at an end with the key there is, because a range
// tombstone needs two keys.
func (s *Store) deleteRange(lower, upper []byte) error {
	if len(upper) > 0 && bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	if len(lower) > 0 && len(upper) > 0 {
		s.order.RLock()
		defer s.order.RUnlock()
		return s.db.DeleteRange(lower, upper, pebble.NoSync)
	}
	s.order.Lock() // no row may appear beyond the ends meanwhile
	defer s.order.Unlock()
	first, last, err := s.ends(lower, upper)
	if err != nil || first == nil {
		return err
	}
	return s.db.DeleteRange(first, append(last, 0), pebble.NoSync)
}

// ends returns copies of the first and the last key within the bounds, or nil.
func (s *Store) ends(lower, upper []byte) (first, last []byte, err error) {
	rows, err := s.db.NewIter(&pebble.IterOptions{LowerBound: bound(lower), UpperBound: bound(upper)})
	if err != nil {
		return nil, nil, err
	}
	if rows.First() {
		first = slices.Clone(rows.Key())
	}
	if rows.Last() {
		last = slices.Clone(rows.Key())
	}
	return first, last, rows.Close()
}

// Flush makes everything that was committed durable. While the disk fails it waits for Pebble's
// next attempt and returns its error.
func (s *Store) Flush() error {
	if !s.gate.enter() {
		return s.closed("flush")
	}
	defer s.gate.leave()
	return s.flush()
}

// flush waits until the present memtable is written, or until Pebble, which goes on trying, fails
// to.
func (s *Store) flush() error {
	for {
		failed, final, transient := s.health.flushState()
		if final != nil {
			return final
		}
		flushed, all, err := s.askForFlush(transient != nil)
		if err != nil {
			return s.health.explain("flush", err)
		}
		select {
		case <-flushed:
			s.health.flushed()
			if all {
				return nil
			}
		case <-failed:
			if _, final, transient := s.health.flushState(); final != nil || transient != nil {
				return cmp.Or(final, transient)
			} // else a later attempt has succeeded already: check whether it was ours
		}
	}
}

// askForFlush returns a channel that is closed when the memtable is written, and whether that is
// the present one. Each flush that is asked for begins a new memtable; if flushes are failing those
// would pile up until Pebble blocks, so then the flush that is not done yet has to do.
func (s *Store) askForFlush(failing bool) (flushed <-chan struct{}, all bool, err error) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if failing && s.asked != nil {
		select {
		case <-s.asked:
		default:
			return s.asked, false, nil
		}
	}
	s.asked, err = s.db.AsyncFlush()
	return s.asked, true, err
}

// Size returns the bytes on disk; 0 after Close.
func (s *Store) Size() uint64 { return s.Stats().DiskBytes }

// Close makes everything durable and closes the store with all its snapshots and iterators. The
// error says what could not be made durable; the store is closed all the same. It may be called
// again, with the same result.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.gate.close()
		snapshots, iterators := s.open()
		for _, open := range iterators {
			_ = open.Close() // what it has to say its user gets
		}
		for _, open := range snapshots {
			_ = open.Close() // never fails
		}
		s.closeErr = errors.Join(
			s.flush(),
			s.health.explain("close", s.db.Close()),
			s.health.explain("unlock", s.lock.Close()),
		)
	})
	return s.closeErr
}

func (s *Store) closed(doing string) error {
	return fmt.Errorf("%s: store %s: %w", doing, s.dir, fs.ErrClosed)
}

// get copies the row's value out of Pebble's memory.
func (s *Store) get(r pebble.Reader, key []byte) ([]byte, error) {
	if len(key) == 0 { // no row has it
		return nil, nil
	}
	value, release, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, s.health.explain("get", err)
	}
	own := append(make([]byte, 0, len(value)), value...)
	return own, s.health.explain("get", release.Close())
}

func (s *Store) scan(r pebble.Reader, lower, upper []byte, yield func(key, value []byte) bool) error {
	if len(upper) > 0 && bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	rows, err := r.NewIter(&pebble.IterOptions{LowerBound: bound(lower), UpperBound: bound(upper)})
	if err != nil {
		return s.health.explain("scan", err)
	}
	for ok := rows.First(); ok; ok = rows.Next() {
		value, err := rows.ValueAndErr()
		if err != nil {
			return s.health.explain("scan", errors.Join(err, rows.Close()))
		}
		if !yield(rows.Key(), value) {
			break
		}
	}
	return s.health.explain("scan", rows.Close())
}

// bound returns nil for an empty bound: Pebble takes only that for none.
func bound(key []byte) []byte {
	if len(key) == 0 {
		return nil
	}
	return key
}

// ingestDir holds tables until they are ingested. It lies in the store's directory so that they can
// be linked in.
func (s *Store) ingestDir() string { return s.options.FS.PathJoin(s.dir, "ingest") }
