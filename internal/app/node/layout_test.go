package node

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/internal/app/admin"
	"github.com/millrace-io/millrace/materializer"
	adminv1 "github.com/millrace-io/millrace/proto/gen/millrace/admin/v1"
)

// start starts another worker of the app, as a process with an empty data directory is started.
func (a *app) start(name string, given bool, partitions int) (*Node, error) {
	c := a.config()
	c.Worker, c.Partitions = name, partitions
	c.ContractCheck, c.MovePatience = 10*time.Millisecond, 10*time.Millisecond
	return Start(a.t.Context(),
		Options{Config: c, PartitionsGiven: given, Local: local(a.t, "counter"), Log: a.world.Client(name)})
}

const counters = 20

// incremented increments every counter under an id of its own, which repeats nothing, and wants it
// to be 1.
func (a *app) incremented(at string) {
	a.t.Helper()
	for i := range counters {
		if v, err := a.increment(at, fmt.Sprint("e", i), "idempotency-key", fmt.Sprint("K", i)); err != nil || v != 1 {
			a.t.Errorf("e%d is %d, %v; want 1, once", i, v, err)
		}
	}
}

// TestPartitionsAreAdded does what an operator does for more parallelism: data in four partitions,
// four added, another worker. Nothing is answered by the wrong partition, no id takes effect twice,
// no process ends, and each reports why it does not serve and what to do.
func TestPartitionsAreAdded(t *testing.T) {
	a := &app{t: t, world: simlog.New(simlog.Options{})}
	old, err := a.start("old", false, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { end(t, old) }()
	awaitReady(t, old)
	a.incremented(old.PublicAddress())

	a.world.Grow("millrace.journal", 8)
	remedy := []string{"has 8 partitions", "data was written with 4", "--partitions 4"}
	eventually(t, "the old worker to give its partitions up", func() bool { return old.NotReady() != nil })
	page := old.Status(t.Context())
	mustContain(t, "the old worker's status", page.GetNotReadyReason(), remedy...)
	if page.GetPartitionsOfData() != 4 || page.GetPartitionsOfTopic() != 8 {
		t.Errorf("the status shows %d partitions with data, %d of the topic", page.GetPartitionsOfData(),
			page.GetPartitionsOfTopic())
	}
	if _, err := a.increment(old.PublicAddress(), "e0", "idempotency-key", "K0"); status.Code(err) == codes.OK {
		t.Error("the old worker answers")
	}
	if _, err := a.start("fresh", false, 4); err == nil {
		t.Error("a fresh worker serves eight partitions")
	} else {
		mustContain(t, "the fresh worker's error", err.Error(), "is for 4 partitions, this process uses 8", "--partitions 4")
	}
	if _, err := a.start("mistaken", true, 8); err == nil || !strings.Contains(err.Error(), "--partitions 4") {
		t.Errorf("a worker that was told 8: %v", err)
	}

	told, err := a.start("told", true, 4)
	if err != nil {
		t.Fatalf("with the remedy: %v", err)
	}
	defer func() { end(t, told) }()
	end(t, old)
	if old, err = a.start("old", true, 4); err != nil {
		t.Fatalf("the old worker with the remedy: %v", err)
	}
	a.workers = []*Node{told, old}
	a.balanced()
	a.incremented(told.PublicAddress())
	a.incremented(old.PublicAddress())
	for p := range int32(4) {
		if r := a.world.Records(broker.Partition{Topic: "millrace.journal", ID: p + 4}); len(r) > 0 {
			t.Errorf("partition %d has %d records", p+4, len(r))
		}
	}

	c := a.config()
	c.MovePatience = 10 * time.Millisecond
	g, err := StartGateway(context.WithoutCancel(t.Context()), Options{Config: c, Log: a.world.Client("gateway")})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gateway to hear of four partitions", func() bool {
		why := g.NotReady()
		return why != nil && strings.Contains(why.Error(), "routing table is for 4 partitions, this process uses 8")
	})
	if _, err := a.increment(g.public.Addr().String(), "e0"); status.Code(err) == codes.OK {
		t.Error("the gateway answers by eight partitions")
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	right, err := StartGateway(context.WithoutCancel(t.Context()),
		Options{Config: c, PartitionsGiven: true, Log: a.world.Client("gateway2")})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, "a gateway with the remedy", right.Ready())
	a.incremented(right.public.Addr().String())
	right.Stop()
	if err := right.Wait(); err != nil {
		t.Error(err)
	}
}

// journalOf is a simulated journal of some partitions, each with these records.
func journalOf(t *testing.T, partitions int32, records map[int32][]broker.Record) *simlog.World {
	t.Helper()
	world := simlog.New(simlog.Options{})
	client := world.Client("before")
	if err := client.Create(t.Context(), broker.TopicSpec{Name: "millrace.journal", Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	for p, r := range records {
		world.Inject(broker.Partition{Topic: "millrace.journal", ID: p}, r...)
	}
	return world
}

func claimOf(l entities.Layout) []broker.Record {
	env := record.Envelope{Kind: record.Claim, Epoch: 1, Nonce: 7, Claim: &record.ClaimInfo{Worker: "before", Layout: l}}
	return []broker.Record{{Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}}}
}

func eventOf(id string) broker.Record {
	env := record.Envelope{Kind: record.Event, Epoch: 1, Nonce: 7, Ordinal: 1, Sequence: 1, TypeURL: "t/x"}
	return broker.Record{
		Key:     []byte("counter/" + id),
		Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}},
	}
}

// TestJournalsOfAnotherLayout: a worker with an empty directory finds out from the log by what it
// was written, before it owns anything.
func TestJournalsOfAnotherLayout(t *testing.T) {
	old, mine := claimOf(entities.Layout{}), entities.LayoutOf("millrace", 4)
	for name, test := range map[string]struct {
		topic   int32
		given   int
		records map[int32][]broker.Record
		want    string
	}{
		"new":                            {topic: 4},
		"new, and fewer are asked for":   {topic: 4, given: 2, want: "topic millrace.journal has 4 partitions, not 2: leave --partitions out"},
		"new, and no power of two":       {topic: 6, want: "topic millrace.journal has 6 partitions: a journal needs a power of two"},
		"new, and too many":              {topic: 8192, want: "has 8192 partitions: a journal needs a power of two, up to 4096"},
		"as it is":                       {topic: 4, records: map[int32][]broker.Record{0: claimOf(mine)}},
		"grown":                          {topic: 8, records: map[int32][]broker.Record{0: claimOf(mine)}, want: "is for 4 partitions, this process uses 8"},
		"grown to no power of two":       {topic: 5, records: map[int32][]broker.Record{0: claimOf(mine)}, want: "is for 4 partitions, this process uses 5"},
		"grown, and told":                {topic: 8, given: 4, records: map[int32][]broker.Record{0: claimOf(mine)}},
		"grown to no power, and told":    {topic: 5, given: 4, records: map[int32][]broker.Record{0: claimOf(mine)}},
		"told the wrong number":          {topic: 8, given: 2, records: map[int32][]broker.Record{0: claimOf(mine)}, want: "is for 4 partitions, this process uses 2"},
		"told more than there are":       {topic: 4, given: 8, records: map[int32][]broker.Record{0: claimOf(mine)}, want: "is for 4 partitions, this process uses 8"},
		"shrunk":                         {topic: 2, given: 4, records: map[int32][]broker.Record{0: claimOf(mine)}, want: "has 2 partitions, and its data was written with 4"},
		"another app":                    {topic: 4, records: map[int32][]broker.Record{0: claimOf(entities.LayoutOf("books", 4))}, want: `app "books"`},
		"another generation":             {topic: 4, records: map[int32][]broker.Record{0: claimOf(entities.Layout{App: "millrace", Generation: 2, Partitions: 4, Slots: 4096, Hash: "murmur2"})}, want: "generation 2"},
		"another hash":                   {topic: 4, records: map[int32][]broker.Record{0: claimOf(entities.Layout{App: "millrace", Generation: 1, Partitions: 4, Slots: 4096, Hash: "xxh64"})}, want: `hash "xxh64"`},
		"old":                            {topic: 2, records: map[int32][]broker.Record{0: old, 1: old}},
		"old and grown":                  {topic: 4, records: map[int32][]broker.Record{0: old, 1: old}, want: "is for 2 partitions, this process uses 4"},
		"old and grown, and told":        {topic: 4, given: 2, records: map[int32][]broker.Record{0: old, 1: old}},
		"old and grown, told the wrong":  {topic: 4, given: 1, records: map[int32][]broker.Record{0: old, 1: old}, want: "is for 2 partitions, this process uses 1"},
		"old, and it cannot be told":     {topic: 4, records: map[int32][]broker.Record{0: old, 2: old}, want: "start with --partitions and the number that the topic was created with"},
		"old, it cannot be told, told":   {topic: 4, given: 4, records: map[int32][]broker.Record{0: old, 2: old}},
		"what was added has claims":      {topic: 8, given: 4, records: map[int32][]broker.Record{0: claimOf(mine), 5: old}},
		"what was added has data":        {topic: 8, given: 4, records: map[int32][]broker.Record{0: claimOf(mine), 5: {old[0], eventOf("e1")}}, want: "partition 5 has a KIND_EVENT record at offset 1: it cannot be left out"},
		"what was added is foreign":      {topic: 8, given: 4, records: map[int32][]broker.Record{0: claimOf(mine), 5: {{Value: []byte("x")}}}},
		"foreign records before a claim": {topic: 8, records: map[int32][]broker.Record{0: {{Value: []byte("x")}, claimOf(mine)[0]}}, want: "is for 4 partitions, this process uses 8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &app{t: t, world: journalOf(t, test.topic, test.records)}
			n, err := a.start("w", test.given > 0, max(test.given, 1))
			if err == nil {
				end(t, n)
			}
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}

// TestVerifyComparesLayouts: those of the partitions of one journal, whichever is looked at first.
func TestVerifyComparesLayouts(t *testing.T) {
	mine, other := claimOf(entities.LayoutOf("millrace", 2)), claimOf(entities.LayoutOf("millrace", 4))
	for name, test := range map[string]struct {
		records map[int32][]broker.Record
		want    uint64
	}{
		"the same":            {map[int32][]broker.Record{0: mine, 1: mine}, 0},
		"one says nothing":    {map[int32][]broker.Record{1: mine}, 0},
		"one has another one": {map[int32][]broker.Record{0: mine, 1: other}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			log := journalOf(t, 2, test.records).Client("v")
			defer log.Close()
			info, err := log.Describe(t.Context(), "millrace.journal")
			if err != nil {
				t.Fatal(err)
			}
			var said []*adminv1.VerifyResponse
			w := &admin.Worker{Log: log, Topic: info}
			if err := w.Verify(t.Context(), &adminv1.VerifyRequest{}, func(r *adminv1.VerifyResponse) error {
				said = append(said, r)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			found, text := uint64(0), ""
			for _, r := range said {
				found += r.GetSummary().GetFindings()
				text += r.GetFinding().GetWhat()
			}
			if found != test.want || found > 0 && !strings.Contains(text, "4 partitions") {
				t.Errorf("%d findings: %s; want %d about 4 partitions", found, text, test.want)
			}
		})
	}
}

// TestStoreOfAnotherLayout: a store that was folded from the same topic by another layout ends the
// start, whatever the log says.
func TestStoreOfAnotherLayout(t *testing.T) {
	world := simlog.New(simlog.Options{})
	c := testConfig(t)
	c.Partitions = 4
	n := started(t, Options{Config: c, Local: local(t, "counter"), Log: world.Client("w")})
	eventually(t, "a claim to be folded", func() bool {
		meta, known, err := materializer.Partition{Rows: n.store, Address: materializer.Address{Generation: 1}}.Meta()
		return err == nil && known && meta.Layout == n.layout
	})
	end(t, n)
	world.Grow("millrace.journal", 8)
	_, err := Start(t.Context(), Options{Config: c, Local: local(t, "counter"), Log: world.Client("w")})
	if err == nil {
		t.Fatal("started")
	}
	mustContain(t, "the error", err.Error(), "the store in "+c.Data+" is for 4 partitions, this process uses 8", "--partitions 4")
}

// TestAdminArguments: what an operator asks for is checked before it is used.
func TestAdminArguments(t *testing.T) {
	n := started(t, Options{Config: testConfig(t), Local: local(t, "counter")})
	admin := adminOf(t, n)
	for _, p := range []int32{-1, 2, 4096, 1 << 30} {
		if _, err := all2(admin.Tail(t.Context(), &adminv1.TailRequest{Partition: &p})); err == nil {
			t.Errorf("tail of partition %d", p)
		}
		if _, err := all2(admin.Verify(t.Context(), &adminv1.VerifyRequest{Partition: &p})); err == nil {
			t.Errorf("verify of partition %d", p)
		}
		if _, err := all2(admin.Repair(t.Context(),
			&adminv1.RepairRequest{Partition: p, Choice: adminv1.RepairChoice_REPAIR_CHOICE_RETRY})); err == nil {
			t.Errorf("repair of partition %d", p)
		}
		if _, err := admin.ResolveParked(t.Context(), &adminv1.ResolveParkedRequest{Partition: p}); err == nil {
			t.Errorf("resolve in partition %d", p)
		}
		if _, err := n.router.Position(t.Context(), p); err == nil {
			t.Errorf("position of partition %d", p)
		}
	}
}

// all2 reads a stream to its end or its error.
func all2[T any](stream interface{ Recv() (T, error) }, err error) (last T, _ error) {
	for err == nil {
		last, err = stream.Recv()
	}
	if err.Error() == "EOF" {
		err = nil
	}
	return last, err
}
