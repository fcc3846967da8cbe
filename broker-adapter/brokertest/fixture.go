package brokertest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// fixture is one case: a fresh log and helpers to use it. Its methods fail the test on any error.
type fixture struct {
	*testing.T
	opts Options
	log  broker.Log
}

func newFixture(t *testing.T, o Options) *fixture {
	f := &fixture{T: t, opts: o, log: o.Open(t)}
	t.Cleanup(func() {
		if err := f.log.Close(); err != nil && !errors.Is(err, broker.ErrClosed) {
			t.Errorf("close the log: %v", err)
		}
	})
	return f
}

// context returns a context that ends after Options.Timeout.
func (f *fixture) context() context.Context {
	ctx, cancel := context.WithTimeout(f.Context(), f.opts.Timeout)
	f.Cleanup(cancel)
	return ctx
}

// unique returns a name that no other run has used.
func unique(prefix string) string { return "brokertest." + prefix + "." + strings.ToLower(rand.Text()) }

// topic creates a topic with n partitions and returns its name.
func (f *fixture) topic(n int32) string {
	f.Helper()
	return f.topicWithLimit(n, maxRecordBytes)
}

func (f *fixture) topicWithLimit(n int32, limit int) string {
	f.Helper()
	spec := broker.TopicSpec{Name: unique("topic"), Partitions: n, MaxRecordBytes: limit}
	if err := f.log.Create(f.context(), spec); err != nil {
		f.Fatalf("create topic %s: %v", spec.Name, err)
	}
	return spec.Name
}

// partition creates a topic with one partition.
func (f *fixture) partition() broker.Partition {
	f.Helper()
	return broker.Partition{Topic: f.topic(1), ID: 0}
}

// start appends without waiting; the channel gets the one result.
func start(log broker.Log, p broker.Partition, records ...broker.Record) <-chan broker.AppendResult {
	result := make(chan broker.AppendResult, 1)
	log.Append(p, records, func(r broker.AppendResult) { result <- r })
	return result
}

// wait returns the result of start, or one with an error when there is none in time. Any goroutine
// may call it.
func (f *fixture) wait(result <-chan broker.AppendResult) broker.AppendResult {
	ctx, cancel := context.WithTimeout(f.Context(), f.opts.Timeout)
	defer cancel()
	select {
	case r := <-result:
		return r
	case <-ctx.Done():
		return broker.AppendResult{Err: fmt.Errorf("no result of an append within %v: %w", f.opts.Timeout, ctx.Err())}
	}
}

// append appends and waits for success.
func (f *fixture) append(p broker.Partition, records ...broker.Record) broker.AppendResult {
	f.Helper()
	r := f.wait(start(f.log, p, records...))
	if r.Err != nil {
		f.Fatalf("append %d records to %v: %v", len(records), p, r.Err)
	}
	return r
}

// reader opens a reader and closes it with the test.
func (f *fixture) reader(p broker.Partition, from int64) broker.Reader {
	f.Helper()
	r, err := f.log.Read(p, from)
	if err != nil {
		f.Fatalf("read %v from %d: %v", p, from, err)
	}
	f.Cleanup(func() { closeReader(f.T, r) })
	return r
}

func closeReader(t *testing.T, r broker.Reader) {
	t.Helper()
	if err := r.Close(); err != nil && !errors.Is(err, broker.ErrClosed) {
		t.Errorf("close a reader: %v", err)
	}
}

// firstError returns the error of reading at a position, from Read or from the first Next.
func (f *fixture) firstError(p broker.Partition, from int64) error {
	f.Helper()
	r, err := f.log.Read(p, from)
	if err != nil {
		return err
	}
	defer closeReader(f.T, r)
	_, err = r.Next(f.context())
	return err
}

// take reads n records and checks that their offsets are contiguous from the given one. The records
// are copies.
func (f *fixture) take(r broker.Reader, from int64, n int) []broker.Record {
	f.Helper()
	got, err := collect(f.context(), r, from, n)
	if err != nil {
		f.Fatal(err)
	}
	return got
}

// read opens a reader and takes n records.
func (f *fixture) read(p broker.Partition, from int64, n int) []broker.Record {
	f.Helper()
	return f.take(f.reader(p, from), from, n)
}

// collect reads exactly n records; more are an error, since no case reads while others still write.
func collect(ctx context.Context, r broker.Reader, from int64, n int) ([]broker.Record, error) {
	var got []broker.Record
	for len(got) < n {
		batch, err := r.Next(ctx)
		if err != nil {
			return got, fmt.Errorf("next after %d of %d records: %w", len(got), n, err)
		}
		if len(batch.Records) == 0 {
			return got, fmt.Errorf("next after %d records: an empty batch without an error", len(got))
		}
		for i := range batch.Records {
			want := from + int64(len(got))
			if batch.Records[i].Offset != want {
				return got, fmt.Errorf("read offset %d, want %d", batch.Records[i].Offset, want)
			}
			got = append(got, clone(batch.Records[i]))
		}
		if next := from + int64(len(got)); batch.Next != next {
			return got, fmt.Errorf("batch ends at offset %d but says Next=%d", next, batch.Next)
		}
		if batch.End < batch.Next {
			return got, fmt.Errorf("batch says End=%d below Next=%d", batch.End, batch.Next)
		}
	}
	if len(got) > n {
		return got, fmt.Errorf("read %d records, %d were acknowledged", len(got), n)
	}
	return got, nil
}

// clone copies a record out of the reader's buffer and keeps nil and empty keys apart.
func clone(r broker.Record) broker.Record {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	headers := make([]broker.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = broker.Header{Key: strings.Clone(h.Key), Value: bytes.Clone(h.Value)}
	}
	r.Headers = headers
	return r
}

func (f *fixture) end(p broker.Partition) int64 {
	f.Helper()
	end, err := f.log.End(f.context(), p)
	if err != nil {
		f.Fatalf("end of %v: %v", p, err)
	}
	return end
}

func (f *fixture) wantError(what string, got, want error) {
	f.Helper()
	if !errors.Is(got, want) {
		f.Errorf("%s: got error %v, want one that is %q", what, got, want)
	}
}

// text is a record with nothing but a value.
func text(format string, args ...any) broker.Record {
	return broker.Record{Value: fmt.Appendf(nil, format, args...)}
}

// noise returns n bytes that do not compress, so that a limit on compressed size applies as well.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never returns an error
	return b
}
