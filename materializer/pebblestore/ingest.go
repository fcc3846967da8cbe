package pebblestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/millrace-io/millrace/materializer"
)

// Ingest writes the rows as sorted tables beside the store and adds them with one entry of the
// manifest: all of them or none. Commits go on while the tables are built and wait only while the
// tables are added. A row's slices are read before next is called again.
func (s *Store) Ingest(next func() (materializer.Row, bool)) error {
	if !s.gate.enter() {
		return s.closed("ingest")
	}
	defer s.gate.leave()
	if err := s.refusal(); err != nil {
		return err
	}
	tables, err := s.buildTables(next)
	if err == nil {
		err = s.takeIn(tables)
	}
	if err != nil {
		return errors.Join(err, s.removeTables(tables))
	}
	s.counters.ingests.Add(1)
	return nil
}

// takeIn makes the tables part of the store, after everything that was committed before. The first
// flush does most of the work while commits still go on, so that the second has little to do.
func (s *Store) takeIn(tables []string) error {
	if err := s.flush(); err != nil {
		return err
	}
	if len(tables) == 0 {
		return nil
	}
	s.order.Lock()
	defer s.order.Unlock()
	if err := s.flush(); err != nil {
		return err
	}
	// Not to be cancelled: an ingest is short once the tables are there.
	err := s.db.Ingest(context.Background(), tables)
	return s.health.explain("ingest", err)
}

// buildTables writes the rows into tables of bounded size and returns their paths, also those
// written before an error.
func (s *Store) buildTables(next func() (materializer.Row, bool)) (paths []string, err error) {
	var table *table
	var last []byte
	for row, ok := next(); ok; row, ok = next() {
		if table == nil && len(row.Key) == 0 {
			return nil, fmt.Errorf("ingest into store %s: %w", s.dir, errEmptyKey)
		}
		if table != nil && bytes.Compare(last, row.Key) >= 0 {
			err := fmt.Errorf("ingest into store %s: key %q follows %q: keys must ascend strictly", s.dir, row.Key, last)
			return paths, errors.Join(err, table.abandon())
		}
		last = append(last[:0], row.Key...)
		if table != nil && table.size() >= s.options.IngestTableBytes {
			if err := table.finish(); err != nil {
				return paths, s.health.explain("ingest", err)
			}
			table = nil
		}
		if table == nil {
			if table, err = s.newTable(); err != nil {
				return paths, s.health.explain("ingest", err)
			}
			paths = append(paths, table.path)
		}
		if err := table.add(row); err != nil {
			return paths, s.health.explain("ingest", errors.Join(err, table.abandon()))
		}
	}
	if table != nil {
		err = table.finish()
	}
	return paths, s.health.explain("ingest", err)
}

// removeTables removes the tables of an ingest that failed.
func (s *Store) removeTables(paths []string) error {
	var errs []error
	for _, path := range paths {
		if err := s.options.FS.Remove(path); err != nil {
			errs = append(errs, fmt.Errorf("store %s: remove table of a refused ingest: %w", s.dir, err))
		}
	}
	return errors.Join(errs...)
}

// table is a sorted table that is being written.
type table struct {
	path   string
	writer *sstable.Writer
}

func (s *Store) newTable() (*table, error) {
	files := s.options.FS
	if err := files.MkdirAll(s.ingestDir(), 0o755); err != nil {
		return nil, err
	}
	path := files.PathJoin(s.ingestDir(), fmt.Sprintf("%06d.sst", s.ingested.Add(1)))
	file, err := files.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	// The settings of level 0: those of the lowest level would let it forget removals that rows
	// beneath still need.
	settings := s.tuning.MakeWriterOptions(0, s.db.TableFormat())
	return &table{path, sstable.NewWriter(objstorageprovider.NewFileWritable(file), settings)}, nil
}

func (t *table) add(row materializer.Row) error {
	if row.Delete {
		return t.writer.Delete(row.Key)
	}
	return t.writer.Set(row.Key, row.Value)
}

func (t *table) size() uint64 { return t.writer.Raw().EstimatedSize() }

// finish completes the table and syncs its file.
func (t *table) finish() error { return t.writer.Close() }

// abandon closes the file; the table must not be used then.
func (t *table) abandon() error { return t.writer.Close() }
