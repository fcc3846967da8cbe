package core

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities/record"
	"github.com/millrace-io/millrace/materializer"
)

// golden returns the bytes of an envelope that entities/record keeps.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "entities", "record", "testdata", name+".hex"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHeadersOfRecords compares the headers of records, byte by byte, with what is documented: the
// envelope first, then the type of an event or a value.
func TestHeadersOfRecords(t *testing.T) {
	for _, tc := range []struct{ envelope, typeName string }{
		{"1-event", "shop.v1.ItemAdded"},
		{"1-exceptions", "shop.v1.Reserved"},
		{"1-state", "counter.v1.Counter"},
		{"1-state-json", "json.cloudstate.io/com.example.Cart"},
		{"1-effect", ""},
		{"1-timer-set", ""},
		{"1-refused", ""},
		{"1-full", ""},
		{"1-claim", ""},
		{"1-barrier", ""},
	} {
		var b Batch
		var p record.Parser
		stored := golden(t, tc.envelope)
		for range 2 { // a record's headers do not depend on its place in the batch
			b.Entries = append(b.Entries, materializer.Entry{Key: []byte("k"), Value: []byte("v")})
			if err := p.Parse(stored, &b.Entries[len(b.Entries)-1].Envelope); err != nil {
				t.Fatalf("%s: %v", tc.envelope, err)
			}
		}
		want := []broker.Header{{Key: "mr", Value: stored}}
		if tc.typeName != "" {
			want = append(want, broker.Header{Key: "type", Value: []byte(tc.typeName)})
		}
		for i, r := range b.Encode() {
			if len(r.Headers) != len(want) {
				t.Fatalf("%s: record %d has %d headers, want %d", tc.envelope, i, len(r.Headers), len(want))
			}
			for j, h := range r.Headers {
				if h.Key != want[j].Key || string(h.Value) != string(want[j].Value) {
					t.Errorf("%s: header %d of record %d is %s: %q, want %s: %q", tc.envelope, j, i,
						h.Key, h.Value, want[j].Key, want[j].Value)
				}
			}
		}
	}
}

// TestEntriesCountWhatIsAppended: the size by which a batch is cut is the one by which the log
// measures it, to the byte.
func TestEntriesCountWhatIsAppended(t *testing.T) {
	var b Batch
	size := broker.AppendOverhead
	for kind := range record.Kind(18) {
		for _, url := range []string{"", "type.googleapis.com/shop.v1.ItemAdded", "json.cloudstate.io/x"} {
			b.Entries = append(b.Entries, materializer.Entry{
				Key: []byte("cart/42"), Value: make([]byte, int(kind)),
				Envelope: record.Envelope{Kind: kind, Epoch: 7, Nonce: 1 << 60, LogTime: 1 << 60, TypeURL: url},
			})
			size += b.Entries[len(b.Entries)-1].Size()
		}
	}
	if got := broker.Size(b.Encode()); got != size {
		t.Errorf("the entries count %d bytes, the log %d", size, got)
	}
}
