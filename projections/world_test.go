package projections_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/projections/definition"
)

var (
	journal = broker.Partition{Topic: "app.journal", ID: 0}
	address = materializer.Address{Generation: 1}
)

// schema has the messages of the definitions' tests. It is made once, outside of all bubbles.
var schema = sync.OnceValues(func() (*definition.Schema, error) {
	const path = "shop/v1/shop.proto"
	text, err := os.ReadFile(filepath.Join("definition", "testdata", filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{path: string(text)}),
	})}
	files, err := compiler.Compile(context.Background(), path) //nolint:forbidigo // it is made once, for all tests
	if err != nil {
		return nil, err
	}
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if !seen[file.Path()] {
			seen[file.Path()] = true
			for i := range file.Imports().Len() {
				add(file.Imports().Get(i).FileDescriptor)
			}
			set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
		}
	}
	for _, file := range files {
		add(file)
	}
	return definition.NewSchema(set, []definition.EntityType{
		{Name: "order", Events: true, Service: "shop.v1.Orders"},
		{Name: "payment", Service: "shop.v1.Payments"},
		{Name: "customer", Events: true, Service: "shop.v1.Customers"},
		{Name: "parcel", Service: "shop.v1.Parcels"},
	})
})

// projection checks a definition.
func projection(t testing.TB, text string) *definition.Projection {
	t.Helper()
	s, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	set := definition.Check([]definition.Source{{Name: "test.yaml", Text: []byte(text)}}, definition.Options{Schema: s})
	if err := set.Report.Err(); err != nil {
		t.Fatal(err)
	}
	return set.Definitions[0].(*definition.Projection)
}

// message is the wire form of a message of the schema.
func message(t testing.TB, of protoreflect.MessageDescriptor, fields map[protoreflect.Name]any) []byte {
	t.Helper()
	m := dynamicpb.NewMessage(of)
	for name, value := range fields {
		m.Set(of.Fields().ByName(name), protoreflect.ValueOf(value))
	}
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

// world is a journal of one partition, and a worker's image of it.
type world struct {
	t     testing.TB
	rnd   *rand.Rand
	world *simlog.World
	log   broker.Log
	epoch uint64
	// ordinal is that of the owner's last record, now the log time.
	ordinal uint64
	now     int64

	image    *materializer.Image
	feeds    *materializer.Feeds
	feed     *materializer.Feed
	role     materializer.Role
	fold     *materializer.Fold
	tap      *materializer.Tap
	follower *materializer.Follower
	// at is how far the image has read; most is how many records it reads next.
	at   int64
	most int
}

func newWorld(t testing.TB, seed uint64, feedBytes int) *world {
	t.Helper()
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(seed, 7)), world: simlog.New(simlog.Options{}), now: 1_700_000_000_000_000_000,
		feeds: materializer.NewFeeds(feedBytes),
	}
	w.log = w.world.Client("w")
	t.Cleanup(func() { _ = w.log.Close() })
	if err := w.log.Create(t.Context(), broker.TopicSpec{
		Name: journal.Topic, Partitions: 1, MaxRecordBytes: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	w.image = &materializer.Image{
		Log: w.log, Journal: journal, TopicID: "topic", Store: memstore.New(), Address: address,
		Rebuilds: make(chan struct{}, 1),
	}
	w.feed = w.feeds.Feed(w.image)
	w.claim(nil)
	return w
}

// Address, Feed, Role and Folded make it a Replica.
func (w *world) Address() materializer.Address { return address }
func (w *world) Feed() *materializer.Feed      { return w.feed }
func (w *world) Role() materializer.Role       { return w.feed.Role() }
func (w *world) Folded() (int64, bool)         { return w.feed.Position() }

// put appends a record of the owner.
func (w *world) put(key string, value []byte, env record.Envelope) int64 {
	if env.Epoch == 0 {
		w.ordinal++
		env.Epoch, env.Nonce, env.Ordinal = w.epoch, 7, w.ordinal
	}
	if env.LogTime == 0 {
		w.now += 1 + w.rnd.Int64N(1e9)
		env.LogTime = w.now
	}
	r := broker.Record{Value: value, Headers: []broker.Header{{Key: record.HeaderKey, Value: env.Append(nil)}}}
	if key != "" {
		r.Key = []byte(key)
	}
	return w.world.Inject(journal, r)
}

func (w *world) claim(info *record.ClaimInfo) {
	w.epoch++
	w.ordinal = 0
	w.put("", nil, record.Envelope{Kind: record.Claim, Epoch: w.epoch, Nonce: 7, Claim: info})
}

func (w *world) end() int64 {
	end, err := w.log.End(w.t.Context(), journal)
	if err != nil {
		w.t.Fatal(err)
	}
	return end
}

// begin gives the worker a role, at its store's position.
func (w *world) begin(role materializer.Role) {
	w.t.Helper()
	meta, _, err := w.image.View().Meta()
	if err != nil {
		w.t.Fatal(err)
	}
	w.fold = materializer.NewFold(address, "topic", meta)
	w.role, w.at = role, meta.Next
	w.follower = materializer.NewFollower(w, w.image.Store, w.fold)
	w.tap = w.feed.Open(w.fold, role)
}

// leave takes the role away.
func (w *world) leave(reason materializer.FeedReason) {
	if w.role != materializer.NoRole {
		w.tap.End(reason, fmt.Errorf("the test"))
		w.role = materializer.NoRole
	}
}

// Next gives the follower a few records.
func (w *world) Next(context.Context) (broker.Batch, error) {
	end := w.end()
	all := w.world.Records(journal)
	from := slices.IndexFunc(all, func(r broker.Record) bool { return r.Offset >= w.at })
	records := slices.Clone(all[from:min(from+w.most, len(all))])
	w.at = records[len(records)-1].Offset + 1
	return broker.Batch{Records: records, Next: w.at, End: end}, nil
}

func (w *world) Close() error { return nil }

// turn folds a few records into the image, and publishes them.
func (w *world) turn(most int) {
	w.t.Helper()
	if w.role == materializer.NoRole || w.at >= w.end() {
		return
	}
	w.most = most
	if _, err := w.follower.Follow(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.tap.Publish()
}

// catchUp folds all that the log has.
func (w *world) catchUp() {
	w.t.Helper()
	if w.role == materializer.NoRole {
		w.begin(materializer.Following)
	}
	for w.at < w.end() {
		w.turn(500)
	}
}

// effective are the records that take effect, up to an offset.
func (w *world) effective(until int64) (entries []materializer.Entry) {
	w.t.Helper()
	reader, err := w.log.Read(journal, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer reader.Close()
	j := materializer.NewJournal(reader, address, "topic", materializer.Meta{})
	for read, err := range j.Until(w.t.Context(), until) {
		if err != nil {
			w.t.Fatal(err)
		}
		for e := range read.Effective {
			entries = append(entries, e.Clone())
		}
	}
	return entries
}

// stateOf is the envelope of a value.
func stateOf(name string) record.Envelope {
	return record.Envelope{Kind: record.State, TypeURL: typePrefix + name}
}
