package readside_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/embedded"
	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/entities/record"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/internal/leaktest"
	"github.com/millrace-io/millrace/tests/readside"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// history makes records, one second apart.
type history struct {
	t       *testing.T
	records []readside.Record
}

func (h *history) add(kind record.Kind, key string, m proto.Message) {
	h.t.Helper()
	entity, err := entities.ParseKey(key)
	if err != nil {
		h.t.Fatal(err)
	}
	r := readside.Record{
		Offset: int64(len(h.records)), Kind: kind, Entity: entity, Time: time.Unix(int64(100+len(h.records)), 0),
	}
	if m != nil {
		if r.Value, err = proto.Marshal(m); err != nil {
			h.t.Fatal(err)
		}
		r.Type = string(m.ProtoReflect().Descriptor().FullName())
	}
	h.records = append(h.records, r)
}

func placed(customer string, cents ...int64) *ordersv1.OrderPlaced {
	e := &ordersv1.OrderPlaced{CustomerId: customer}
	for _, c := range cents {
		e.Lines = append(e.Lines, &ordersv1.Line{Sku: "bolt", Quantity: 2, Cents: c})
	}
	return e
}

// TestFoldOfAHistory holds the fold to rows that were written by hand.
func TestFoldOfAHistory(t *testing.T) {
	h := &history{t: t}
	h.add(record.State, "customer/ada", &ordersv1.Customer{CustomerId: "ada", Name: "Ada", City: "London"})
	h.add(record.Event, "order/1", placed("ada", 5, 7))
	h.add(record.Event, "order/2", placed("bob", 1))
	h.add(record.Event, "order/1", &ordersv1.OrderShipped{Carrier: "rail"})
	h.add(record.Event, "order/3", placed("ada", 9))
	h.add(record.Event, "order/3", &ordersv1.OrderNoted{Text: "x"})
	h.add(record.Event, "order/2", &ordersv1.OrderCancelled{})
	h.add(record.Event, "order/2", &ordersv1.OrderDeleted{})
	h.add(record.State, "customer/bob", &ordersv1.Customer{Name: "Bob", City: "London"})
	h.add(record.Delete, "customer/bob", nil)
	rows, err := readside.Fold(h.records)
	if err != nil {
		t.Fatal(err)
	}
	first := &ordersv1.OrderRow{
		OrderId: "1", CustomerId: "ada", CustomerName: "Ada", TotalCents: 24, Pieces: 4,
		Status: ordersv1.Status_STATUS_SHIPPED, PlacedAt: &timestamppb.Timestamp{Seconds: 101}, Carrier: "rail",
	}
	third := &ordersv1.OrderRow{
		OrderId: "3", CustomerId: "ada", CustomerName: "Ada", TotalCents: 18, Pieces: 2,
		Status: ordersv1.Status_STATUS_OPEN, PlacedAt: &timestamppb.Timestamp{Seconds: 104},
	}
	mustList(t, "of ada", rows.ListByCustomer("ada"), third, first)
	mustList(t, "of bob", rows.ListByCustomer("bob"))
	mustList(t, "open", rows.ListOpen(), third)
	groups := rows.CountByStatus()
	if len(groups) != 2 || groups[ordersv1.Status_STATUS_SHIPPED] != (readside.Group{Orders: 1, Cents: 24}) ||
		groups[ordersv1.Status_STATUS_OPEN] != (readside.Group{Orders: 1, Cents: 18}) {
		t.Errorf("groups %v", groups)
	}
	if list := rows.ListByCity("London"); len(list) != 1 || list[0].GetName() != "Ada" {
		t.Errorf("customers of London %v", list)
	}
}

func mustList(t *testing.T, what string, got []*ordersv1.OrderRow, want ...*ordersv1.OrderRow) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("orders %s: %v, want %v", what, got, want)
		return
	}
	for i := range got {
		if !proto.Equal(got[i], want[i]) {
			t.Errorf("order %d %s is %v, want %v", i, what, got[i], want[i])
		}
	}
}

// TestStoredForm compares keys and values with bytes of docs/views-keyspace.md.
func TestStoredForm(t *testing.T) {
	h := &history{t: t}
	h.add(record.Event, "order/ab", placed("c\x00", 1))
	h.records[0].Time = time.Unix(1, 2)
	rows, err := readside.Fold(h.records)
	if err != nil {
		t.Fatal(err)
	}
	d, err := rows.StoredOrders()
	if err != nil {
		t.Fatal(err)
	}
	const key = "ab\x00\x01"
	placedAt := "\x01\x80\x00\x00\x00\x00\x00\x00\x01\x80\x00\x00\x02"
	desc := "\xfe\x7f\xff\xff\xff\xff\xff\xff\xfe\x7f\xff\xff\xfd"
	row := "\n\x02ab\x12\x02c\x00\x18\x02\x20\x02\x28\x01\x32\x04\x08\x01\x10\x02"
	for what, got := range map[string][]byte{
		"the row":              d.Rows[key],
		"the row in the index": d.Indexes[0]["c\x00\xff\x00\x01"+desc+key].Row,
	} {
		if string(got) != row {
			t.Errorf("%s is %x, want %x", what, got, row)
		}
	}
	if v, ok := d.Indexes[1][placedAt+key]; !ok || len(v.Row) > 0 || len(d.Indexes[1]) != 1 {
		t.Errorf("open_only is %x", d.Indexes[1])
	}
	if g := d.Aggregates[0]["\x80\x00\x00\x01"]; g != (readside.Group{Orders: 1, Cents: 2}) {
		t.Errorf("by_status is %v", d.Aggregates[0])
	}
}

// TestReadTakesWhatTakesEffect reads a log with a group that is not complete, records of a former
// owner, and one without an envelope.
func TestReadTakesWhatTakesEffect(t *testing.T) {
	log, err := embedded.Open(embedded.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const topic = "shop.journal"
	if err := log.Create(t.Context(), broker.TopicSpec{Name: topic, Partitions: 2, MaxRecordBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	write := func(key string, e record.Envelope) {
		t.Helper()
		r := broker.Record{Key: []byte(key), Headers: []broker.Header{{Key: record.HeaderKey, Value: e.Append(nil)}}}
		done := make(chan error, 1)
		log.Append(broker.Partition{Topic: topic, ID: 1}, []broker.Record{r}, func(r broker.AppendResult) { done <- r.Err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	event := func(nonce, ordinal uint64, index, count uint32) record.Envelope {
		return record.Envelope{
			Kind: record.Event, Epoch: 1, Nonce: nonce, Ordinal: ordinal, Index: index, Count: count, LogTime: 7e9,
			TypeURL: "type.googleapis.com/orders.v1.OrderDeleted",
		}
	}
	write("", record.Envelope{Kind: record.Claim, Epoch: 1, Nonce: 5, Claim: &record.ClaimInfo{}})
	write("order/1", event(5, 1, 0, 0))
	write("order/void", event(6, 1, 0, 0))
	write("order/2", event(5, 2, 0, 2))
	write("order/2", event(5, 3, 1, 2))
	write("order/open", event(5, 4, 0, 2))
	partitions, err := readside.Read(t.Context(), log, topic)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range partitions[1].Records {
		got = append(got, r.Entity.String())
	}
	if len(partitions) != 2 || len(got) != 3 || got[0] != "order/1" || got[1] != "order/2" || got[2] != "order/2" ||
		partitions[1].Void != 1 || partitions[1].Next != 6 {
		t.Errorf("partition 1 has %q, %d void records, and ends at %d", got, partitions[1].Void, partitions[1].Next)
	}
	if r := partitions[1].Records[0]; r.Type != "orders.v1.OrderDeleted" || !r.Time.Equal(time.Unix(7, 0)) {
		t.Errorf("the first record is %+v", r)
	}
}
