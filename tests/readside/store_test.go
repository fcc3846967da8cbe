package readside_test

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities/record"
	ordersv1 "github.com/millrace-io/millrace/examples/orders/orders/v1"
	"github.com/millrace-io/millrace/materializer/memstore"
	"github.com/millrace-io/millrace/tests/readside"
)

// write writes the rows of a partition as docs/views-keyspace.md says: orders are dataset 1,
// customers dataset 2.
func write(t *testing.T, store *memstore.Store, partition uint16, rows *readside.Rows) {
	t.Helper()
	orders, err := rows.StoredOrders()
	if err != nil {
		t.Fatal(err)
	}
	customers, err := rows.StoredCustomers()
	if err != nil {
		t.Fatal(err)
	}
	batch := store.NewBatch()
	put := func(number uint32, kind byte, key string, value []byte) {
		k := binary.BigEndian.AppendUint16([]byte{0, 1}, partition)
		k = append(binary.BigEndian.AppendUint32(k, number), kind)
		if err := batch.Put(append(k, key...), value); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range []*readside.Dataset{orders, customers} {
		number := uint32(i + 1)
		put(number, 'm', "", []byte("position"))
		for key, value := range d.Rows {
			put(number, 'r', key, append([]byte{0, 1, 200, 1}, value...))
		}
		for n, entries := range d.Indexes {
			for key, e := range entries {
				var value []byte
				if e.Row != nil {
					value = append([]byte{0, 1, 200, 1}, e.Row...)
				}
				put(number, 'i', string([]byte{0, byte(n + 1)})+key, value)
			}
		}
		for n, groups := range d.Aggregates {
			for key, g := range groups {
				value := binary.AppendVarint(nil, g.Orders)
				value = binary.BigEndian.AppendUint64(append(value, make([]byte, 8)...), uint64(g.Cents))
				put(number, 'g', string([]byte{0, byte(n + 1)})+key, value)
			}
		}
	}
	if err := batch.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestCompareStore finds each way in which a store can differ from the log.
func TestCompareStore(t *testing.T) {
	var partitions []readside.Partition
	for _, id := range []string{"1", "2"} {
		h := &history{t: t}
		h.add(record.Event, "order/"+id, placed("ada", 3))
		h.add(record.State, "customer/c"+id, &ordersv1.Customer{Name: "C" + id, City: "London"})
		partitions = append(partitions, readside.Partition{Records: h.records})
	}
	made := func() *memstore.Store {
		store := memstore.New()
		for i := range partitions {
			rows, err := readside.Fold(partitions[i].Records)
			if err != nil {
				t.Fatal(err)
			}
			write(t, store, uint16(i), rows)
		}
		return store
	}
	compared, err := readside.CompareStore(made(), partitions)
	if err != nil || len(compared.Different) > 0 || compared.Rows != 4 || compared.Entries != 6 || compared.Groups != 2 {
		t.Fatalf("the same: %+v (%v)", compared, err)
	}
	var header [9]byte
	copy(header[:], "\x00\x01\x00\x01\x00\x00\x00\x01r")
	at := func(kind byte, rest string) []byte { return append(append(header[:8:8], kind), rest...) }
	for want, change := range map[string]func(put func(key, value []byte), remove func(key []byte)){
		`row "2\x00\x01" is missing`: func(_ func(_, _ []byte), remove func([]byte)) { remove(at('r', "2\x00\x01")) },
		`row "3\x00\x01" is there`:   func(put func(_, _ []byte), _ func([]byte)) { put(at('r', "3\x00\x01"), []byte{0, 0}) },
		`row "2\x00\x01" is 7878, want`: func(put func(_, _ []byte), _ func([]byte)) {
			put(at('r', "2\x00\x01"), []byte("\x00\x00xx"))
		},
		"the header is not that of a visible row": func(put func(_, _ []byte), _ func([]byte)) {
			put(at('r', "2\x00\x01"), []byte{1, 0})
		},
		"the header ends too early": func(put func(_, _ []byte), _ func([]byte)) { put(at('r', "2\x00\x01"), []byte{0, 1}) },
		`entity "2" is parked`:      func(put func(_, _ []byte), _ func([]byte)) { put(at('k', "2"), []byte("why")) },
		`entry "\x00\x02x" is there`: func(put func(_, _ []byte), _ func([]byte)) {
			put(at('i', "\x00\x02x"), nil)
		},
		`group "\x00\x01\x80\x00\x00\x01" is 04`: func(put func(_, _ []byte), _ func([]byte)) {
			put(at('g', "\x00\x01\x80\x00\x00\x01"), append([]byte{4}, make([]byte, 16)...))
		},
	} {
		store := made()
		batch := store.NewBatch()
		change(func(key, value []byte) { _ = batch.Put(key, value) }, func(key []byte) { _ = batch.Delete(key) })
		if err := batch.Commit(); err != nil {
			t.Fatal(err)
		}
		compared, err := readside.CompareStore(store, partitions)
		if err != nil || len(compared.Different) != 1 || !strings.Contains(compared.Different[0], want) {
			t.Errorf("%s: %+v (%v)", want, compared, err)
		}
	}
}
