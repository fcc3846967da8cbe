package storetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/materializer"
)

// concurrent lets readers look while a writer replaces the same rows batch by batch. Every batch
// writes one number into all of them, so a reader that finds two numbers in one scan has seen half
// a batch.
func (s suite) concurrent(t *testing.T) {
	t.Run("ReadersSeeWholeBatches", s.readersAndWriter)
	t.Run("WritersDoNotLoseRows", s.writers)
	t.Run("CloseWhileInUse", s.closeWhileInUse)
}

const (
	readers       = 3
	concurrentRow = 8 // rows that are written together
)

// writeNumber commits a batch that sets all rows to the number.
func writeNumber(b materializer.Batch, number uint64) error {
	value := binary.BigEndian.AppendUint64(nil, number)
	for i := range concurrentRow {
		if err := b.Put([]byte{'r', byte(i)}, value); err != nil {
			return err
		}
	}
	return b.Commit()
}

// readNumber returns the number in the rows and fails the test if they do not agree.
func readNumber(t testing.TB, r materializer.Reader) (uint64, error) {
	var first []byte
	count := 0
	err := r.Scan([]byte("r"), []byte("s"), func(_, value []byte) bool {
		if count++; count == 1 {
			first = bytes.Clone(value)
		} else if !bytes.Equal(first, value) {
			t.Errorf("one scan sees %x and %x: half a batch", first, value)
			return false
		}
		return true
	})
	if err != nil || count == 0 {
		return 0, err
	}
	if count != concurrentRow {
		t.Errorf("one scan sees %d rows of %d: half a batch", count, concurrentRow)
	}
	return binary.BigEndian.Uint64(first), nil
}

// numberBothWays goes over the rows forwards and back with one iterator.
func numberBothWays(t testing.TB, r materializer.Reader) {
	rows := r.Iterator([]byte("r"), []byte("s"))
	var seen [][]byte
	for more := rows.First(); more; more = rows.Next() {
		seen = append(seen, bytes.Clone(rows.Value()))
	}
	for more := rows.Last(); more; more = rows.Prev() {
		seen = append(seen, bytes.Clone(rows.Value()))
	}
	if err := rows.Close(); err != nil {
		t.Error(err)
	}
	if len(seen) != 0 && len(seen) != 2*concurrentRow {
		t.Errorf("an iterator sees %d rows forwards and back, want %d each", len(seen), concurrentRow)
	}
	for _, value := range seen {
		if !bytes.Equal(value, seen[0]) {
			t.Errorf("one iterator sees %x and %x: half a batch", seen[0], value)
			return
		}
	}
}

func (s suite) readersAndWriter(t *testing.T) {
	const batches = 2000
	store := s.open(t)
	var committed atomic.Uint64
	var users sync.WaitGroup
	for range readers {
		users.Go(func() {
			for committed.Load() < batches {
				floor := committed.Load()
				snapshot := store.Snapshot()
				number, err := readNumber(t, snapshot)
				if err = errors.Join(err, snapshot.Close()); err != nil {
					t.Error(err)
					return
				}
				if number < floor {
					t.Errorf("a snapshot shows batch %d after batch %d was committed", number, floor)
				}
				if _, err := readNumber(t, store); err != nil {
					t.Error(err)
				}
			}
		})
	}
	users.Go(func() {
		for committed.Load() < batches {
			numberBothWays(t, store)
		}
	})
	b := store.NewBatch()
	for number := uint64(1); number <= batches; number++ {
		err := writeNumber(b, number)
		if number%500 == 0 {
			err = errors.Join(err, store.Flush(), store.Ingest(each(parseAll("z=1")...)), store.DropRange([]byte("y"), nil))
		}
		if err != nil {
			t.Error(err)
		}
		committed.Store(number)
	}
	users.Wait()
	check(t, b.Close())
}

func (s suite) writers(t *testing.T) {
	const writers, perWriter = 4, 200
	store := s.open(t)
	var users sync.WaitGroup
	for w := range writers {
		users.Go(func() {
			b := store.NewBatch()
			for i := range perWriter {
				row := materializer.Row{Key: []byte{byte(w), byte(i)}, Value: []byte{byte(i)}} //nolint:gosec // both fit
				err := b.Put(row.Key, row.Value)
				if err = errors.Join(err, b.Commit()); err == nil && i%50 == 0 {
					row.Key = append(row.Key, 'i')
					err = store.Ingest(each(row))
				}
				if err != nil {
					t.Error(err)
				}
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	users.Wait()
	rows := 0
	check(t, store.Scan(nil, nil, func(_, _ []byte) bool { rows++; return true }))
	if want := writers * (perWriter + perWriter/50); rows != want {
		t.Errorf("%d rows, want %d", rows, want)
	}
}

func (s suite) closeWhileInUse(t *testing.T) {
	store := s.Open(t)
	var users sync.WaitGroup
	started := make(chan struct{}, 3*readers)
	use := func(step func() error) {
		users.Go(func() {
			err := step()
			started <- struct{}{}
			for err == nil {
				err = step()
			}
			if !errors.Is(err, fs.ErrClosed) {
				t.Errorf("use during Close: %v, want fs.ErrClosed", err)
			}
		})
	}
	for range readers {
		use(func() error {
			snapshot := store.Snapshot()
			_, err := readNumber(t, snapshot)
			return errors.Join(err, snapshot.Close())
		})
		b := store.NewBatch()
		use(func() error { return writeNumber(b, 1) })
		rows := store.Iterator([]byte("r"), []byte("s"))
		use(func() error {
			if rows.First() && bytes.Equal(rows.Key(), rows.Value()) {
				t.Errorf("the row %q has its key as value", rows.Key())
			}
			return rows.Error()
		})
	}
	for range 3 * readers {
		<-started
	}
	check(t, store.Close())
	users.Wait()
}
