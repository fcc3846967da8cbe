package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/millrace-io/millrace/entities"
	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// full has every field that this version writes.
func full() Envelope {
	return Envelope{
		Kind: Snapshot, Epoch: 3, Nonce: 0x1122334455667788, LogTime: 1_790_000_000_123_456_789, Index: 1, Count: 2,
		Sequence: 100,
		TypeURL:  "type.googleapis.com/shop.v1.Cart", PreviousSnapshot: 50, Ordinal: 7, CommandID: "order-17",
		Principal: "alice", PayloadHash: 0xfeedface,
		Answer: []byte{1, 2, 3}, Cause: &Cause{Generation: 1, Partition: 5, Offset: 77, Index: 1, CommandID: "parent"},
		CorrelationID: "c-1", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Claim: &ClaimInfo{Worker: "w-1", ReadTo: 12, PreviousEpoch: 2, PreviousNonce: 9},
	}
}

// TestEncodedSize: the core computes the size of appends with it, so no field may be left out.
func TestEncodedSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Envelope{
			Kind: Kind(rapid.Int32Range(1, 40).Draw(t, "kind")), Epoch: rapid.Uint64().Draw(t, "epoch"),
			Nonce:   rapid.Uint64().Draw(t, "nonce"),
			LogTime: rapid.Int64().Draw(t, "time"), Index: rapid.Uint32().Draw(t, "index"),
			Count:    rapid.Uint32().Draw(t, "count"),
			Sequence: rapid.Uint64().Draw(t, "sequence"), TypeURL: rapid.String().Draw(t, "type"),
			PreviousSnapshot: rapid.Uint64().Draw(t, "snapshot"),
			Ordinal:          rapid.Uint64().Draw(t, "ordinal"), CommandID: rapid.String().Draw(t, "id"),
			Principal:   rapid.String().Draw(t, "principal"),
			PayloadHash: rapid.Uint64().Draw(t, "hash"), Answer: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "answer"),
			CorrelationID: rapid.String().Draw(t, "correlation"), TraceParent: rapid.String().Draw(t, "trace"),
			Target: rapid.SliceOf(rapid.Byte()).Draw(t, "target"), Timer: rapid.SliceOf(rapid.Byte()).Draw(t, "timer"),
			Restores: rapid.Uint64().Draw(t, "restores"), Refuses: rapid.Uint64().Draw(t, "refuses"),
		}
		if rapid.Bool().Draw(t, "has cause") {
			e.Cause = &Cause{
				Generation: rapid.Uint32().Draw(t, "generation"), Partition: rapid.Uint32().Draw(t, "partition"),
				Offset: rapid.Uint64().Draw(t, "offset"),
				Index:  rapid.Uint32().Draw(t, "cause index"), CommandID: rapid.String().Draw(t, "cause id"),
				Settled: rapid.Uint64().Draw(t, "settled"),
			}
		}
		if rapid.Bool().Draw(t, "has claim") {
			e.Claim = &ClaimInfo{
				Worker: rapid.String().Draw(t, "worker"), ReadTo: rapid.Uint64().Draw(t, "read to"),
				PreviousEpoch: rapid.Uint64().Draw(t, "previous epoch"), Types: rapid.SliceOf(rapid.String()).Draw(t, "types"),
			}
		}
		if got, want := e.EncodedSize(), len(e.Append(nil)); got != want {
			t.Fatalf("%d bytes are counted and %d written of %+v", got, want, e)
		}
	})
	e := full()
	if got, want := e.EncodedSize(), len(e.Append(nil)); got != want {
		t.Errorf("%d bytes are counted and %d written of an envelope with every field", got, want)
	}
}

var update = flag.Bool("update", false, "write golden files that are missing")

// TestGoldenBytes: records of older versions stay readable. Files are added, never rewritten; each
// name begins with the version that wrote it.
func TestGoldenBytes(t *testing.T) {
	golden := map[string]Envelope{
		"1-event": {Kind: Event, Epoch: 1, Nonce: 2, LogTime: 3, Sequence: 4, Ordinal: 1, TypeURL: "type.googleapis.com/shop.v1.ItemAdded"},
		"1-state": {Kind: State, Epoch: 1, Nonce: 2, LogTime: 3, Ordinal: 2, TypeURL: "type.googleapis.com/counter.v1.Counter"},
		"1-state-json": {
			Kind: State, Epoch: 1, Nonce: 2, LogTime: 3, Ordinal: 3, TypeURL: "json.cloudstate.io/com.example.Cart",
		},
		"1-claim":   {Kind: Claim, Epoch: 2, Nonce: 0xabcdef, Claim: &ClaimInfo{Worker: "w-1", ReadTo: 10, PreviousEpoch: 1, PreviousNonce: 7}},
		"1-barrier": {Kind: Barrier, Epoch: 2, Nonce: 0xabcdef, LogTime: 5, Ordinal: 2},
		"1-full":    full(),
		"1-effect": {
			Kind: Effect, Epoch: 2, Nonce: 3, LogTime: 4, Index: 1, Count: 2, Ordinal: 5,
			TypeURL: "type.googleapis.com/shop.v1.Reserve",
			Target:  []byte{0x0a, 1, 'S', 0x12, 1, 'M'}, Cause: &Cause{
				Generation: 1, Partition: 2, Offset: 3, Index: 4, Settled: 5,
			},
		},
		"1-timer-set": {Kind: TimerSet, Epoch: 2, Nonce: 3, LogTime: 4, Ordinal: 6, Timer: []byte{0x0a, 1, 't'}, Target: []byte{0x12, 1, 'M'}},
		"1-repair":    {Kind: Claim, Epoch: 3, Nonce: 5, Claim: &ClaimInfo{Worker: "w-1", ReadTo: 51, PreviousEpoch: 1, PreviousNonce: 7, Floor: 100}},
		"1-claim-layout": {Kind: Claim, Epoch: 2, Nonce: 0xabcdef, Claim: &ClaimInfo{
			Worker: "w-1", ReadTo: 10, PreviousEpoch: 1, PreviousNonce: 7, Layout: entities.LayoutOf("shop", 16),
		}},
		"1-declaration": {Kind: Claim, Nonce: 0xabcdef, Claim: &ClaimInfo{Worker: "w-1", Layout: entities.LayoutOf("shop", 16)}},
		"1-served":      {Kind: Claim, Epoch: 3, Nonce: 5, Claim: &ClaimInfo{Worker: "w-1", ReadTo: 51, PreviousEpoch: 1, PreviousNonce: 7, Types: []string{"cart", "order"}}},
		"1-answered":    {Kind: Answered, Epoch: 3, Nonce: 5, LogTime: 4, Ordinal: 1, CommandID: "order-17", PayloadHash: 9, Answer: []byte{1}, Restores: 77},
		"1-exceptions": {
			Kind: Event, Epoch: 2, Nonce: 3, LogTime: 4, Ordinal: 7, Sequence: 1,
			TypeURL: "type.googleapis.com/shop.v1.Reserved",
			Cause:   &Cause{Generation: 1, Partition: 2, Offset: 900, Settled: 800, Open: []uint64{3, 300, 799}},
		},
		"1-refused":  {Kind: Refused, Epoch: 3, Nonce: 5, LogTime: 4, Ordinal: 2, TypeURL: "type.googleapis.com/shop.v1.Reserve", Answer: []byte{0x20, 9}, Target: []byte{0x12, 1, 'M'}, Refuses: 70},
		"1-accepted": {Kind: Claim, Epoch: 3, Nonce: 5, Claim: &ClaimInfo{Worker: "w-1", ReadTo: 51, PreviousEpoch: 1, PreviousNonce: 7, Floor: 51, Lost: 12}},
	}
	for name, want := range golden {
		path := filepath.Join("testdata", name+".hex")
		content, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && *update {
			content = []byte(hex.EncodeToString(want.Append(nil)) + "\n")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
		stored, err := hex.DecodeString(strings.TrimSpace(string(content)))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		var got Envelope
		var p Parser
		if err := p.Parse(stored, &got); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: read %+v, want %+v", name, got, want)
		}
		if written := want.Append(nil); !bytes.Equal(written, stored) {
			t.Errorf("%s: written as %x, stored as %x", name, written, stored)
		}
	}
}

// TestTypeName: a reader finds the header type on events and values, and on nothing else, so that
// it needs no other knowledge to tell them from the rest.
func TestTypeName(t *testing.T) {
	for number := range recordv1.Kind_name {
		e := Envelope{Kind: Kind(number), TypeURL: "type.googleapis.com/shop.v1.ItemAdded"}
		want := ""
		if e.Kind == Event || e.Kind == State {
			want = "shop.v1.ItemAdded"
		}
		if got := e.TypeName(); got != want {
			t.Errorf("%s: %q, want %q", e.Kind, got, want)
		}
	}
	for url, want := range map[string]string{
		"":                                     "",
		"json.cloudstate.io/com.example.Added": "json.cloudstate.io/com.example.Added",
		"example.com/shop.v1.ItemAdded":        "example.com/shop.v1.ItemAdded",
	} {
		if e := (Envelope{Kind: Event, TypeURL: url}); e.TypeName() != want {
			t.Errorf("type URL %q: %q, want %q", url, e.TypeName(), want)
		}
	}
}

// TestCodecAgreesWithProtobuf compares the hand-written codec with the generated one, both ways.
func TestCodecAgreesWithProtobuf(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, e Envelope) {
		encoded := e.Append(nil)
		generated := &recordv1.Envelope{}
		if err := proto.Unmarshal(encoded[1:], generated); err != nil {
			t.Fatalf("generated code cannot read %x: %v", encoded, err)
		}
		if len(generated.ProtoReflect().GetUnknown()) > 0 {
			t.Fatalf("fields unknown to the schema: %x", generated.ProtoReflect().GetUnknown())
		}
		again, err := proto.MarshalOptions{Deterministic: true}.Marshal(generated)
		if err != nil {
			t.Fatalf("%v", err)
		}
		if !bytes.Equal(again, encoded[1:]) {
			t.Fatalf("hand-written %x, generated %x", encoded[1:], again)
		}
		var got Envelope
		var p Parser
		if err := p.Parse(encoded, &got); err != nil {
			t.Fatalf("%v", err)
		}
		if !reflect.DeepEqual(got, e) {
			t.Fatalf("read %+v, written %+v", got, e)
		}
	}
	check(t, full())
	claim := Envelope{
		Kind: Claim, Epoch: 1, Nonce: 2, Claim: &ClaimInfo{Worker: "w", Layout: entities.LayoutOf("shop", 4096)},
	}
	check(t, claim)
	rapid.Check(t, func(t *rapid.T) {
		e := Envelope{
			Kind:  rapid.SampledFrom([]Kind{Event, State, Delete, Snapshot, Barrier, Release}).Draw(t, "kind"),
			Epoch: rapid.Uint64().Draw(t, "epoch"),
			Nonce: rapid.Uint64().Draw(t, "nonce"), LogTime: rapid.Int64().Draw(t, "time"),
			Count:    rapid.Uint32Range(1, 9).Draw(t, "count"),
			Sequence: rapid.Uint64().Draw(t, "sequence"), TypeURL: rapid.String().Draw(t, "type"),
			CommandID: rapid.String().Draw(t, "id"),
			Principal: rapid.String().Draw(t, "principal"), PayloadHash: rapid.Uint64().Draw(t, "hash"),
		}
		e.Index = rapid.Uint32Range(0, e.Count-1).Draw(t, "index")
		check(t, e)
	})
}

// TestForeignRecordsAreRefused: bytes that are not an envelope give an error with the reason.
func TestForeignRecordsAreRefused(t *testing.T) {
	var p Parser
	var e Envelope
	for name, test := range map[string]struct {
		header []byte
		want   error
	}{
		"no header":      {nil, ErrNoEnvelope},
		"newer version":  {[]byte{2, 8, 1}, ErrVersion},
		"cut":            {[]byte{1, 8}, ErrMalformed},
		"no kind":        {[]byte{1}, ErrMalformed},
		"index too high": {(&Envelope{Kind: Event, Index: 2, Count: 2}).Append(nil), ErrMalformed},
	} {
		if err := p.Parse(test.header, &e); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// TestInvalidLayouts: an invalid layout in a claim never equals that of this process, nor the zero
// layout.
func TestInvalidLayouts(t *testing.T) {
	mine := entities.LayoutOf("shop", 4)
	for name, encoded := range map[string][]byte{
		"cut":                       AppendLayout(nil, mine)[:3],
		"no message":                {0xff},
		"partitions beyond 32 bits": protowire.AppendVarint(protowire.AppendTag(AppendLayout(nil, mine), 3, protowire.VarintType), 1<<32+4),
		"generation beyond 16 bits": protowire.AppendVarint(protowire.AppendTag(AppendLayout(nil, mine), 2, protowire.VarintType), 1<<16+1),
	} {
		if got := ParseLayout(encoded); got == mine || (got == (entities.Layout{}) && len(encoded) > 0) {
			t.Errorf("%s: read as %s", name, got)
		}
	}
}

// FuzzParse: no input panics, and a parsed envelope survives encoding.
func FuzzParse(f *testing.F) {
	e := full()
	f.Add(e.Append(nil))
	f.Add([]byte{1, 8, 1})
	f.Fuzz(func(t *testing.T, header []byte) {
		var p Parser
		var got, again Envelope
		if p.Parse(header, &got) != nil {
			return
		}
		if err := p.Parse(got.Append(nil), &again); err != nil {
			t.Fatalf("own bytes of %+v: %v", got, err)
		}
		if !reflect.DeepEqual(got, again) {
			t.Fatalf("read %+v, then %+v", got, again)
		}
	})
}

// BenchmarkParse measures the parsing of a record in a rebuild.
func BenchmarkParse(b *testing.B) {
	e := Envelope{
		Kind: Event, Epoch: 1, Nonce: 2, LogTime: 3, Sequence: 4, TypeURL: "type.googleapis.com/shop.v1.ItemAdded",
	}
	encoded := e.Append(nil)
	var p Parser
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Parse(encoded, &e); err != nil {
			b.Fatal(err)
		}
	}
}
