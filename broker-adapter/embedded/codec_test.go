package embedded

import (
	"bytes"
	"encoding/hex"
	"testing"
	"time"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// goldenV1 is a record as version 1 writes it. It must stay readable.
const goldenV1 = "01" + "576a9167" + "03" + "15cd5b0700000000" + "07636172742f3432" + "02" + "026d7203010203" +
	"0000" + "68656c6c6f"

func goldenRecord() broker.Record {
	return broker.Record{
		Key: []byte("cart/42"), Value: []byte("hello"),
		Headers: []broker.Header{{Key: "mr", Value: []byte{1, 2, 3}}, {Key: "", Value: []byte{}}},
	}
}

func encodeForTest(rowKey []byte, r broker.Record, at int64) []byte {
	row := make([]byte, encodedSize(&r))
	encode(row, rowKey, &r, at)
	return row
}

func TestRecordGoldenBytes(t *testing.T) {
	rowKey := recordKey(1, 2, 3)
	if got := hex.EncodeToString(encodeForTest(rowKey, goldenRecord(), 123456789)); got != goldenV1 {
		t.Errorf("encoded\n%s, want\n%s", got, goldenV1)
	}
	row, err := hex.DecodeString(goldenV1)
	if err != nil {
		t.Fatal(err)
	}
	d, got, want := decoder{names: map[string]string{}}, broker.Record{}, goldenRecord()
	if err := d.decode(rowKey, row, &got); err != nil {
		t.Fatal(err)
	}
	if got.Offset != 3 || !got.Time.Equal(time.Unix(0, 123456789)) || !bytes.Equal(got.Key, want.Key) ||
		!bytes.Equal(got.Value, want.Value) || !bytes.Equal(got.Header("mr"), want.Header("mr")) || len(got.Headers) != 2 {
		t.Errorf("decoded %+v", got)
	}
	if err := d.decode(recordKey(1, 2, 4), row, &got); err == nil {
		t.Error("a record at another offset than it was written for was accepted")
	}
}

// FuzzDecode feeds rows with a right checksum and any content.
func FuzzDecode(f *testing.F) {
	rowKey := recordKey(1, 2, 3)
	f.Add(encodeForTest(rowKey, goldenRecord(), 5))
	f.Add(encodeForTest(rowKey, broker.Record{}, -1))
	f.Fuzz(func(t *testing.T, row []byte) {
		if len(row) >= fixedSize {
			row[0] = recordVersion
			sum := checksum(rowKey, row)
			row[1], row[2], row[3], row[4] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		d, record := decoder{names: map[string]string{}}, broker.Record{}
		if err := d.decode(rowKey, row, &record); err != nil {
			return
		}
		again := broker.Record{}
		if err := d.decode(rowKey, encodeForTest(rowKey, record, record.Time.UnixNano()), &again); err != nil {
			t.Fatalf("a decoded record does not survive encoding: %v", err)
		}
		if !bytes.Equal(record.Key, again.Key) || !bytes.Equal(record.Value, again.Value) ||
			len(record.Headers) != len(again.Headers) {
			t.Fatalf("%+v came back as %+v", record, again)
		}
	})
}
