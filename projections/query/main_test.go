package query

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/projections/definition"
	"github.com/millrace-io/millrace/projections/mapping"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// spec is the projection of most tests; its rows are shop.v1.OrderRow.
const spec = `apiVersion: millrace/v1
kind: Projection
metadata: {name: orders, version: %d}
spec:
  row: shop.v1.OrderRow
  key: [order_id]
  visible: row.items != 99u
  from:
    - {entity: order, events: {OrderPlaced: {set: {customer_id: '${event.customer_id}'}}}}
  indexes:
    - {name: by_customer, fields: [customer_id, placed_at desc], include: all}
    - {name: by_status, fields: [status, total_cents]}
    - {name: by_note, fields: [note]}
    - {name: by_ratio, fields: [ratio]}
    - {name: empty, fields: [order_id], where: row.note == '' && row.express}
  aggregates:
    - {name: by_status, groupBy: [status], count: orders, sum: {cents: total_cents, items: items}}
  queries:
    ListByCustomer:
      params: {customer_id: string}
      where: row.customer_id == params.customer_id
      filterable: [status, total_cents, placed_at, note, tags, express, weight, patience, ratio, raw]
      orderable: [[placed_at desc], [placed_at]]
      page: {default: 3, max: 5}
      count: true
    ListByStatus:
      params: {status: {type: shop.v1.Status}, from: {type: int64}}
      where: row.status == params.status && row.total_cents >= params.from
      count: true
    ListOfStatus:
      params: {status: {type: shop.v1.Status}}
      where: row.status == params.status
      count: true
    ListAll:
      filterable: [customer_id, status, note, total_cents]
    ListScan:
      params: {above: int64}
      where: row.small > params.above
      allowScan: true
      filterable: [note]
      count: true
    ListByNote:
      params: {note: string}
      where: row.note == params.note
    ListBelow:
      params: {note: string}
      where: row.note < params.note
    ListOne:
      params: {order_id: string}
      where: row.order_id == params.order_id
    ListRatio:
      params: {from: double}
      where: row.ratio < params.from
    ListNotNote:
      params: {note: string}
      where: (row.note != params.note || row.small == 7) && !(row.small == 8 && params.note == row.note)
      allowScan: true
    ListEmpty: {where: row.note == '' && row.express}
    Statuses: {aggregate: by_status}
`

// schema has the descriptors of projections/definition's tests.
func schema(t testing.TB) *definition.Schema {
	t.Helper()
	read := func(path string) string {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	texts := map[string]string{
		"shop/v1/shop.proto":           read("../definition/testdata/shop/v1/shop.proto"),
		"google/api/annotations.proto": read("../../proto/google/api/annotations.proto"),
		"google/api/http.proto":        read("../../proto/google/api/http.proto"),
	}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(texts),
	})}
	files, err := compiler.Compile(t.Context(), "shop/v1/shop.proto")
	if err != nil {
		t.Fatal(err)
	}
	set, seen := &descriptorpb.FileDescriptorSet{}, map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	for _, file := range files {
		add(file)
	}
	s, err := definition.NewSchema(set, []definition.EntityType{
		{Name: "order", Events: true, Service: "shop.v1.Orders"},
		{Name: "payment", Service: "shop.v1.Payments"},
		{Name: "customer", Events: true, Service: "shop.v1.Customers"},
		{Name: "parcel", Service: "shop.v1.Parcels"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// viewOf checks definitions and returns a promoted view of the first projection.
func viewOf(t testing.TB, text string) *View {
	t.Helper()
	set := definition.Check([]definition.Source{{Name: "x.yaml", Text: []byte(text)}}, definition.Options{Schema: schema(t)})
	if err := set.Report.Err(); err != nil {
		t.Fatal(err)
	}
	v := &View{Projection: set.Definitions[0].(*definition.Projection), Dataset: 7, Promoted: true, Version: "4"}
	for i := range v.Projection.Indexes {
		v.Indexes = append(v.Indexes, uint16(i+11))
	}
	for i := range v.Projection.Aggregates {
		v.Aggregates = append(v.Aggregates, uint16(i+21))
	}
	return v
}

// fake is an Executor and a Freshness: rows in memory, and positions that a test sets.
type fake struct {
	view       *View
	partitions int32
	rows       map[string]*dynamicpb.Message // by entity id
	parked     map[string]bool
	position   []int64 // of the rows
	committed  []int64 // at the owners
	age        time.Duration
	now        func() time.Time
	onOpen     func(*Scan) error
	onConfirm  func() error
	// failAfter: the numbers of the calls of Next that fail, one for each scan.
	failAfter []int

	// mu guards the fields below. asked counts questions to owners; confirmed is the last answer of
	// each.
	mu        sync.Mutex
	asked     int
	confirmed map[int32]time.Time

	opened, closed int
	scans          []*Scan
}

func (f *fake) Partitions() int32               { return f.partitions }
func (f *fake) PartitionOf(entity string) int32 { return entities.Partition(entity, int(f.partitions)) }

func (f *fake) Confirm(ctx context.Context, partition int32) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.confirmed == nil {
		f.confirmed = map[int32]time.Time{}
	}
	f.confirmed[partition] = f.now()
	if f.onConfirm != nil {
		if err := f.onConfirm(); err != nil {
			return 0, err
		}
	}
	return f.committed[partition], ctx.Err()
}

func (f *fake) Confirmed(partition int32) (int64, time.Time, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.confirmed[partition]
	return f.committed[partition], at, ok
}

func (f *fake) Open(ctx context.Context, scan *Scan) (Rows, error) {
	f.mu.Lock()
	f.scans = append(f.scans, scan)
	f.mu.Unlock()
	if f.onOpen != nil {
		if err := f.onOpen(scan); err != nil {
			return nil, err
		}
	}
	if scan.Dataset != f.view.Dataset {
		return nil, &NotHereError{Partition: scan.Partition, State: "BUILDING", Progress: "40 of 100 records"}
	}
	if scan.Reach > f.position[scan.Partition] {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	r := &fakeRows{fake: f, at: At{Position: f.position[scan.Partition], End: f.committed[scan.Partition], Age: f.age}}
	for _, e := range f.entries(scan) {
		if string(e.Tuple) >= string(scan.Lower) && (scan.Upper == nil || string(e.Tuple) < string(scan.Upper)) {
			r.entries = append(r.entries, e)
		}
	}
	slices.SortFunc(r.entries, func(a, b *Entry) int { return strings.Compare(string(a.Tuple), string(b.Tuple)) })
	if scan.Reverse {
		slices.Reverse(r.entries)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	if len(f.failAfter) > 0 {
		r.failAfter, f.failAfter = f.failAfter[0], f.failAfter[1:]
	}
	return r, nil
}

// Changes are none.
func (f *fake) Changes(ctx context.Context, _ *Scan, _ int64, _ time.Duration) (*Changes, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fake) entries(scan *Scan) (all []*Entry) {
	p := f.view.Projection
	var index *definition.Index
	if scan.Table == ByIndex {
		index = p.Indexes[slices.Index(f.view.Indexes, scan.Number)]
	}
	tuples, err := tableOf(p, index)
	if err != nil {
		panic(err)
	}
	groups := map[string]*Entry{}
	for id, row := range f.rows {
		if f.PartitionOf(id) != scan.Partition {
			continue
		}
		visible := row.Get(p.Row.Fields().ByName("items")).Uint() != 99
		if scan.Table == Groups {
			if visible {
				f.addGroup(groups, p.Aggregates[slices.Index(f.view.Aggregates, scan.Number)], row)
			}
			continue
		}
		if !visible {
			continue
		}
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(row)
		if err != nil {
			panic(err)
		}
		tuple := tuples.shape.Append(nil, valuesOf(row, tuples.fields)...)
		all = append(all, &Entry{Tuple: tuple, Row: encoded, Stale: f.parked[id]})
	}
	for _, e := range groups {
		all = append(all, e)
	}
	return all
}

func (f *fake) addGroup(groups map[string]*Entry, a *definition.Aggregate, row *dynamicpb.Message) {
	tuples, err := groupsOf(a)
	if err != nil {
		panic(err)
	}
	tuple := tuples.shape.Append(nil, valuesOf(row, a.GroupBy)...)
	e := groups[string(tuple)]
	if e == nil {
		e = &Entry{Tuple: tuple, Sums: make([]Sum, len(a.Sums))}
		groups[string(tuple)] = e
	}
	e.Count++
	for i, s := range a.Sums {
		v := mapping.ValueOf(row, s.Field)
		add := Sum{Low: v.Uint()}
		if !isUnsigned(s.Field) {
			add.High = v.Int() >> 63
		}
		e.Sums[i], _ = e.Sums[i].plus(add)
	}
}

func valuesOf(row protoreflect.Message, fields []protoreflect.FieldDescriptor) (values []mapping.Value) {
	for _, fd := range fields {
		values = append(values, mapping.ValueOf(row, fd))
	}
	return values
}

type fakeRows struct {
	fake    *fake
	at      At
	entries []*Entry
	last    *Entry
	// failAfter: that call of Next fails.
	failAfter int
}

func (r *fakeRows) At() At { return r.at }

func (r *fakeRows) Next(context.Context) (*Entry, error) {
	if r.last != nil { // it is valid until now
		for i := range r.last.Tuple {
			r.last.Tuple[i] = 0xee
		}
		clear(r.last.Row)
		r.last = nil
	}
	if r.failAfter--; r.failAfter == 0 {
		return nil, errors.New("the worker is gone")
	}
	if len(r.entries) == 0 {
		return nil, nil
	}
	r.last, r.entries = r.entries[0], r.entries[1:]
	return r.last, nil
}

func (r *fakeRows) Close() { r.fake.closed++ }

// bench is a service over a fake.
type bench struct {
	t testing.TB
	*fake

	service *Service
	clock   *steps
}

// steps is a clock that goes on when a test says so.
type steps struct{ at time.Time }

func (s *steps) Now() time.Time { return s.at }
func (s *steps) After(time.Duration) (<-chan time.Time, func()) {
	now := make(chan time.Time, 1)
	now <- s.at // pauses are over at once
	return now, func() {}
}

var testKey = []byte("0123456789abcdef0123456789abcdef")

func newBench(t testing.TB, text string, partitions int32, options ...func(*Options)) *bench {
	t.Helper()
	clock := &steps{at: time.Unix(1_700_000_000, 0)}
	f := &fake{
		view: viewOf(t, text), partitions: partitions, rows: map[string]*dynamicpb.Message{}, now: clock.Now,
		position: make([]int64, partitions), committed: make([]int64, partitions), parked: map[string]bool{},
	}
	o := Options{App: "shop", Executor: f, Freshness: f, Clock: clock}
	for _, option := range options {
		option(&o)
	}
	b := &bench{t: t, fake: f, service: New(o), clock: clock}
	if err := b.service.Define([]*View{f.view}, testKey); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if f.opened != f.closed {
			t.Errorf("%d scans were opened, and %d closed", f.opened, f.closed)
		}
	})
	return b
}

func orders(t testing.TB, partitions int32, options ...func(*Options)) *bench {
	t.Helper()
	return newBench(t, fmt.Sprintf(spec, 4), partitions, options...)
}

// put adds a row, in the text form of protobuf.
func (b *bench) put(text string) {
	b.t.Helper()
	row := dynamicpb.NewMessage(b.view.Projection.Row)
	if err := prototext.Unmarshal([]byte(text), row); err != nil {
		b.t.Fatal(err)
	}
	b.rows[row.Get(b.view.Projection.Key[0]).String()] = row
}

// call calls a method with a request in the text form; the reply is JSON.
func (b *bench) call(method, text string, options ...func(*entities.Command)) (string, error) {
	b.t.Helper()
	reply, err := b.reply(method, text, options...)
	if err != nil {
		return "", err
	}
	return b.json(method, reply), nil
}

func (b *bench) reply(method, text string, options ...func(*entities.Command)) (*entities.Reply, error) {
	b.t.Helper()
	const service = "millrace.query.orders.OrdersQuery"
	m := b.service.Catalog().Service(service).Method(method)
	if m == nil {
		b.t.Fatalf("there is no method %s", method)
	}
	in := dynamicpb.NewMessage(m.Input)
	if err := (prototext.UnmarshalOptions{Resolver: b.service.Catalog().Types()}).Unmarshal([]byte(text), in); err != nil {
		b.t.Fatal(err)
	}
	payload, err := proto.Marshal(in)
	if err != nil {
		b.t.Fatal(err)
	}
	cmd, err := m.Command(payload, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, option := range options {
		option(cmd)
	}
	return b.service.Handle(b.t.Context(), cmd)
}

func (b *bench) json(method string, reply *entities.Reply) string {
	b.t.Helper()
	m := b.service.Catalog().Service("millrace.query.orders.OrdersQuery").Method(method)
	if reply.Payload.TypeURL != m.OutputType {
		b.t.Errorf("the reply is a %s", reply.Payload.TypeURL)
	}
	out := dynamicpb.NewMessage(m.Output)
	if err := proto.Unmarshal(reply.Payload.Value, out); err != nil {
		b.t.Fatal(err)
	}
	if len(out.GetUnknown()) > 0 {
		b.t.Errorf("the reply has unknown fields: %x", out.GetUnknown())
	}
	encoded, err := (protojson.MarshalOptions{UseProtoNames: true}).Marshal(out)
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.ReplaceAll(string(encoded), ", ", ",") // protojson adds blanks at random
}

// ids returns the keys of the rows of a reply, with the token of the next page.
func (b *bench) ids(method, text string, options ...func(*entities.Command)) (ids string, next string) {
	b.t.Helper()
	reply, err := b.reply(method, text, options...)
	if err != nil {
		b.t.Fatalf("%s {%s}: %v", method, text, err)
	}
	m := b.service.Catalog().Service("millrace.query.orders.OrdersQuery").Method(method)
	out := dynamicpb.NewMessage(m.Output)
	if err := proto.Unmarshal(reply.Payload.Value, out); err != nil {
		b.t.Fatal(err)
	}
	list := out.Get(m.Output.Fields().ByNumber(1)).List()
	var all []string
	for i := range list.Len() {
		row := list.Get(i).Message()
		all = append(all, row.Get(row.Descriptor().Fields().ByNumber(1)).String())
	}
	return strings.Join(all, " "), out.Get(m.Output.Fields().ByNumber(2)).String()
}

func queryNamed(p *definition.Projection, name string) int {
	return slices.IndexFunc(p.Queries, func(q *definition.Query) bool { return q.Name == name })
}
