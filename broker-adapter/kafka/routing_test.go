package kafka

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func exampleTable() *RoutingTable {
	return &RoutingTable{workers: []worker{{"a", "10.0.0.1:7"}, {"b", "10.0.0.2:7"}}, owners: []uint16{1, 2, 0, 2}}
}

// TestTableBytes holds the encoded form: workers of two releases share a group while they are being replaced.
func TestTableBytes(t *testing.T) {
	const golden = "01" + "02" + "0161" + "0a31302e302e302e313a37" + "0162" + "0a31302e302e302e323a37" + "04" + "0001000200000002"
	if got := hex.EncodeToString(exampleTable().encode()); got != golden {
		t.Errorf("encoded %s, want %s", got, golden)
	}
	table, err := decodeTable(exampleTable().encode())
	if err != nil {
		t.Fatal(err)
	}
	if name, address, ok := table.Owner(1); !ok || name != "b" || address != "10.0.0.2:7" {
		t.Errorf("owner of 1: %s at %s, %t", name, address, ok)
	}
	for _, p := range []int32{2, 4, -1} {
		if name, _, ok := table.Owner(p); ok {
			t.Errorf("owner of %d: %s", p, name)
		}
	}
	if address, ok := table.Address("a"); !ok || address != "10.0.0.1:7" {
		t.Errorf("address of a: %s, %t", address, ok)
	}
	if _, ok := table.Address("c"); ok {
		t.Error("c has an address")
	}
	if _, err := decodeTable([]byte{2}); err == nil {
		t.Error("a table of another version was read")
	}
}

func FuzzDecodeTable(f *testing.F) {
	whole := exampleTable().encode()
	for n := range whole {
		f.Add(whole[:n])
	}
	f.Add(whole)
	f.Add([]byte{1, 0, 1, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := decodeTable(b)
		if err != nil {
			return
		}
		for p := range int32(table.Partitions()) {
			table.Owner(p) // must not panic
		}
		again, err := decodeTable(table.encode())
		if err != nil || !bytes.Equal(again.encode(), table.encode()) {
			t.Errorf("table %+v does not survive encoding: %v", table, err)
		}
	})
}
