package fields

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var errTest = errors.New("not a message of the test")

// TestNestedMessages closes messages whose length takes one byte, two, and more.
func TestNestedMessages(t *testing.T) {
	for _, size := range []int{0, 1, 127, 128, 1<<14 - 1, 1 << 14, 1 << 21} {
		content := bytes.Repeat([]byte{7}, size)
		want := protowire.AppendBytes(protowire.AppendTag([]byte("before"), 3, protowire.BytesType), content)
		b, at := Begin([]byte("before"), 3)
		if b = End(append(b, content...), at); !bytes.Equal(b, want) {
			t.Errorf("a message of %d bytes is not what protobuf writes", size)
		}
	}
}

// TestReader reads what was appended, skips unknown fields, and fails on malformed bytes.
func TestReader(t *testing.T) {
	b := AppendUint(nil, 1, 300)
	b = AppendFixed(b, 2, 1<<63)
	b = AppendBool(b, 3, true)
	b = AppendString(b, 4, "text")
	b = AppendBytes(b, 5, []byte("bytes"))
	whole := protowire.AppendFixed32(protowire.AppendTag(b, 6, protowire.Fixed32Type), 1)
	type field struct {
		number protowire.Number
		n      uint64
		b      string
	}
	want := []field{{1, 300, ""}, {2, 1 << 63, ""}, {3, 1, ""}, {4, 0, "text"}, {5, 0, "bytes"}, {0, 0, ""}}
	var got []field
	r := Of(whole, errTest)
	for r.Next() {
		got = append(got, field{r.Number, r.N, string(r.B)})
	}
	if r.Err != nil || !slices.Equal(got, want) {
		t.Errorf("read %v, %v", got, r.Err)
	}
	absent := AppendBytes(AppendString(AppendBool(AppendFixed(AppendUint(nil, 1, 0), 2, 0), 3, false), 4, ""), 5, nil)
	if len(absent) > 0 {
		t.Errorf("zero values are written as %x", absent)
	}
	for name, damaged := range map[string][]byte{"in a value": b[:len(b)-1], "in a tag": {0x80}} {
		r := Of(damaged, errTest)
		for r.Next() {
			continue
		}
		if !errors.Is(r.Err, errTest) || r.Next() {
			t.Errorf("%s: the end was %v", name, r.Err)
		}
	}
}
