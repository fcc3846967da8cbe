package simlog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/internal/clock/clocktest"
)

var (
	part    = broker.Partition{Topic: "orders"}
	errGone = errors.New("connection reset")
)

// desk is a manual world with two clients, and their results in order.
type desk struct {
	*testing.T
	world   *simlog.World
	a, b    *simlog.Client
	results []string
}

func newDesk(t *testing.T) *desk {
	world := simlog.New(simlog.Options{Manual: true, Clock: clocktest.NewManual(time.Unix(1000, 0))})
	d := &desk{T: t, world: world, a: world.Client("a"), b: world.Client("b")}
	if err := d.a.Create(t.Context(), broker.TopicSpec{Name: part.Topic, Partitions: 2, MaxRecordBytes: 200}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = d.a.Close(), d.b.Close() })
	return d
}

// send appends one record per value.
func (d *desk) send(c *simlog.Client, values ...string) {
	var records []broker.Record
	for _, v := range values {
		records = append(records, broker.Record{Value: []byte(v)})
	}
	name := strings.Join(values, "+")
	c.Append(part, records, func(r broker.AppendResult) {
		switch {
		case r.Err == nil:
			d.results = append(d.results, fmt.Sprintf("%s at %d-%d", name, r.Base, r.Last))
		case errors.Is(r.Err, errGone):
			d.results = append(d.results, name+" gone")
		case errors.Is(r.Err, broker.ErrClosed):
			d.results = append(d.results, name+" closed")
		case errors.Is(r.Err, broker.ErrTooLarge):
			d.results = append(d.results, name[:1]+" too large")
		default:
			d.results = append(d.results, name+" "+r.Err.Error())
		}
	})
}

func (d *desk) want(log string, results ...string) {
	d.Helper()
	var values []string
	for _, r := range d.world.Records(part) {
		values = append(values, string(r.Value))
	}
	if got := strings.Join(values, " "); got != log {
		d.Errorf("the log holds %q, want %q", got, log)
	}
	if !slices.Equal(d.results, results) {
		d.Errorf("client results are %q, want %q", d.results, results)
	}
}

func TestNothingHappensByItself(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1", "2")
	d.want("")
	d.world.Apply(1)
	d.want("1 2")
	d.world.Answer(1)
	d.want("1 2", "1+2 at 0-1")
}

func TestLostAcknowledgement(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1")
	d.world.Apply(1)
	d.world.Fail(1, errGone)
	d.want("1", "1 gone")
}

func TestLateArrival(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1")
	d.world.Fail(1, errGone)
	d.send(d.b, "2")
	d.world.Deliver(2)
	d.world.DeliverAll() // does not touch what the client has given up
	d.want("2", "1 gone", "2 at 0-0")
	d.world.Apply(1)
	d.want("2 1", "1 gone", "2 at 0-0")
	d.world.Answer(1) // no client waits for it
	d.want("2 1", "1 gone", "2 at 0-0")
}

func TestNeverWritten(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1")
	d.world.Fail(1, errGone)
	d.world.Discard(1)
	if left := d.world.Pending(); len(left) != 0 {
		t.Errorf("the network holds %+v", left)
	}
	d.want("", "1 gone")
}

func TestDuplicateAndReorder(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1")
	d.send(d.a, "2")
	d.world.Deliver(2)
	d.world.Apply(1)
	d.world.Apply(1)
	d.world.Answer(1)
	d.want("2 1 1", "2 at 0-0", "1 at 1-1")
}

func TestRefusedInOrder(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1")
	d.send(d.a, strings.Repeat("x", 201))
	d.world.DeliverAll()
	d.want("1", "1 at 0-0", "x too large")
}

func TestCloseAndCrash(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1")
	d.send(d.b, "2")
	d.a.Crash()
	if err := d.b.Close(); err != nil {
		t.Fatal(err)
	}
	d.want("", "2 closed")
	d.world.Apply(2) // what was in the network arrives all the same
	d.world.Apply(1)
	d.want("2 1", "2 closed")
	d.send(d.a, "3")
	d.want("2 1", "2 closed", "3 closed")
}

func TestLogChanges(t *testing.T) {
	d := newDesk(t)
	d.world.Inject(part, broker.Record{Value: []byte("f")}, broker.Record{Value: []byte("g")},
		broker.Record{Value: []byte("h")})
	d.want("f g h")
	d.world.Truncate(part, 2)
	d.want("f g")
	wantRead(t, d.a, 3, broker.ErrOutOfRange)
	d.world.Trim(part, 1)
	d.want("g")
	wantRead(t, d.a, 0, broker.ErrOutOfRange)
	wantRead(t, d.a, 1, nil)
	before, err := d.a.Describe(t.Context(), part.Topic)
	if err != nil {
		t.Fatal(err)
	}
	d.world.Recreate(part.Topic)
	d.world.Violate(part.Topic, broker.Violation{Setting: "retention.ms"})
	after, err := d.a.Describe(t.Context(), part.Topic)
	if err != nil || after.ID == before.ID || len(after.Violations) != 1 {
		t.Errorf("the topic made again: %+v, %v", after, err)
	}
	d.want("")
}

// wantRead reads once from an offset.
func wantRead(t *testing.T, c *simlog.Client, from int64, want error) {
	t.Helper()
	r, err := c.Read(part, from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := r.Next(t.Context()); !errors.Is(err, want) {
		t.Errorf("read from %d: %v, want %v", from, err, want)
	}
}

func TestStaleClientSeesAnOldEnd(t *testing.T) {
	d := newDesk(t)
	d.world.Inject(part, broker.Record{Value: []byte("1")}, broker.Record{Value: []byte("2")})
	d.a.Stale(part, 1)
	for c, want := range map[*simlog.Client]int64{d.a: 1, d.b: 2} {
		if end, err := c.End(t.Context(), part); err != nil || end != want {
			t.Errorf("end is %d, %v; want %d", end, err, want)
		}
	}
	r, err := d.a.Read(part, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if batch, err := r.Next(t.Context()); err != nil || batch.Next != 1 || batch.End != 1 {
		t.Errorf("a stale reader got %+v, %v", batch, err)
	}
	d.a.Stale(part, -1)
	if batch, err := r.Next(t.Context()); err != nil || batch.Next != 2 || string(batch.Records[0].Value) != "2" {
		t.Errorf("a reader that is stale no more got %+v, %v", batch, err)
	}
}

func TestLentRecordsAreOverwritten(t *testing.T) {
	d := newDesk(t)
	d.world.Inject(part, broker.Record{Value: []byte("1")})
	r, err := d.a.Read(part, 0)
	if err != nil {
		t.Fatal(err)
	}
	batch, err := r.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kept := batch.Records[0].Value
	if err := r.Close(); err != nil || string(kept) == "1" {
		t.Errorf("a record kept beyond its time is still %q (%v)", kept, err)
	}
}

func TestAwait(t *testing.T) {
	d := newDesk(t)
	var sending sync.WaitGroup
	sending.Go(func() { d.send(d.a, "1") })
	open, err := d.world.Await(t.Context(), 1)
	sending.Wait()
	if err != nil || len(open) != 1 || open[0].Client != "a" || string(open[0].Records[0].Value) != "1" {
		t.Errorf("awaited %+v, %v", open, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.world.Await(ended, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("await with a context that has ended: %v", err)
	}
}

func TestSenselessStepsPanic(t *testing.T) {
	d := newDesk(t)
	d.send(d.a, "1")
	steps := map[string]func(){
		"unknown op":       func() { d.world.Apply(7) },
		"answer too early": func() { d.world.Answer(1) },
		"truncate beyond":  func() { d.world.Truncate(part, 5) },
		"missing topic":    func() { d.world.Recreate("none") },
		"missing member":   func() { d.world.Assign("g", "w", broker.AssignmentEvent{}) },
	}
	for name, step := range steps {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s did not panic", name)
				}
			}()
			step()
		}()
	}
	d.world.DeliverAll()
	d.want("1", "1 at 0-0")
}
