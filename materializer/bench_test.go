package materializer_test

import (
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
)

// sink is a store that keeps nothing, so that a benchmark measures what is above it.
type sink struct{ materializer.Store }

func (sink) NewBatch() materializer.Batch { return sink{} }
func (sink) Put(_, _ []byte) error        { return nil }
func (sink) Delete([]byte) error          { return nil }
func (sink) Commit() error                { return nil }
func (sink) Close() error                 { return nil }

func (sink) Ingest(next func() (materializer.Row, bool)) error {
	for _, more := next(); more; {
		_, more = next()
	}
	return nil
}

// benchLog is a log of every kind of record that a worker writes.
func benchLog(b *testing.B) *story {
	b.Helper()
	s := newStory(b, 1)
	s.follow()
	for s.end() < 20_000 {
		s.command()
	}
	return s
}

// BenchmarkFold is the fold of one record, without a store: as an owner folds its own records, as
// records are read, and through the overlay of a bulk rebuild.
func BenchmarkFold(b *testing.B) {
	s := benchLog(b)
	records := s.world.Records(journal)
	entries := make([]materializer.Entry, len(records))
	for i := range records {
		var parser record.Parser
		r := &records[i]
		entries[i] = materializer.Entry{Offset: r.Offset, Key: r.Key, Value: r.Value}
		if err := parser.Parse(r.Header(record.HeaderKey), &entries[i].Envelope); err != nil {
			b.Fatal(err)
		}
	}
	perRecord := func(b *testing.B) {
		b.Helper()
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(records)), "ns/record")
	}
	b.Run("owner", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			fold := materializer.NewFold(address, "topic", materializer.Meta{})
			for i := range entries {
				if _, err := fold.Step(sink{}, &entries[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
		perRecord(b)
	})
	for _, consumed := range []bool{false, true} {
		name := "owner with a feed"
		if consumed {
			name = "owner with a consumer"
		}
		b.Run(name, func(b *testing.B) {
			image := &materializer.Image{
				Log: s.log, Journal: journal, TopicID: "topic", Store: memstore.New(), Address: address,
			}
			feed := materializer.NewFeeds(materializer.DefaultFeedBytes).Feed(image)
			b.ReportAllocs()
			for b.Loop() {
				fold := materializer.NewFold(address, "topic", materializer.Meta{})
				var c *materializer.Consumer
				if consumed {
					c = feed.Consume(materializer.Meta{}, materializer.EveryType())
				}
				tap := feed.Open(fold, materializer.Owning)
				for i := range entries {
					if _, err := fold.Step(sink{}, &entries[i]); err != nil {
						b.Fatal(err)
					}
					if i%16 < 15 {
						continue
					}
					if tap.Publish(); consumed {
						if _, err := c.Next(b.Context()); err != nil {
							b.Fatal(err)
						}
					}
				}
				if consumed {
					c.Close()
				}
			}
			perRecord(b)
		})
	}
	b.Run("reader", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			fold := materializer.NewFold(address, "topic", materializer.Meta{})
			for i := range records {
				if _, err := fold.Record(sink{}, &records[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
		perRecord(b)
	})
	follow := func(b *testing.B, how func(f *materializer.Follower) error) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			reader, err := s.log.Read(journal, 0)
			if err != nil {
				b.Fatal(err)
			}
			fold := materializer.NewFold(address, "topic", materializer.Meta{})
			if err := how(materializer.NewFollower(reader, sink{}, fold)); err != nil {
				b.Fatal(err)
			}
			if err := reader.Close(); err != nil {
				b.Fatal(err)
			}
		}
		perRecord(b)
	}
	end := s.end()
	b.Run("batched", func(b *testing.B) {
		follow(b, func(f *materializer.Follower) error {
			for f.Position() < end {
				if _, err := f.Follow(b.Context()); err != nil {
					return err
				}
			}
			return nil
		})
	})
	b.Run("bulk", func(b *testing.B) {
		follow(b, func(f *materializer.Follower) error { return f.Bulk(b.Context(), end, 1<<20) })
	})
}

// BenchmarkRows is what reads every row of a partition: the comparison with a fold of the log, and
// the count of what lies after an offset.
func BenchmarkRows(b *testing.B) {
	s := benchLog(b)
	store := memstore.New()
	s.foldInto(store, address)
	s.foldInto(store, address.ForRepair())
	have := materializer.Partition{Rows: store, Address: address}
	want := materializer.Partition{Rows: store, Address: address.ForRepair()}
	b.Run("compare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := materializer.Compare(have, want, false, func(d materializer.Difference) error {
				b.Error(d)
				return nil
			}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("beyond", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := have.Beyond(s.end()/2, 5); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkVerify reads a log as `millrace log verify` does.
func BenchmarkVerify(b *testing.B) {
	s := benchLog(b)
	b.ReportAllocs()
	for b.Loop() {
		v := materializer.Verification{
			Log: s.log, Partition: broker.Partition{Topic: journal.Topic}, Address: address,
			TopicID: "topic",
		}
		if _, err := v.Run(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
