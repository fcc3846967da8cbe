package record

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	recordv1 "github.com/millrace-io/millrace/proto/gen/millrace/record/v1"
)

// TestRecordFormatDocument compares the tables of docs/record-format.md with the schema: every kind
// and every field must be there under its number, and nothing else.
func TestRecordFormatDocument(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "record-format.md"))
	if err != nil {
		t.Fatal(err)
	}
	document := string(content)
	var want []string
	kinds := recordv1.Kind(0).Descriptor().Values()
	for i := range kinds.Len() {
		if v := kinds.Get(i); v.Number() != 0 {
			want = append(want, row(int(v.Number()), strings.TrimPrefix(string(v.Name()), "KIND_")))
		}
	}
	fields := (&recordv1.Envelope{}).ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		want = append(want, row(int(f.Number()), string(f.Name()), f.Kind().String()))
	}
	for _, w := range want {
		if !strings.Contains(document, "\n"+w) {
			t.Errorf("docs/record-format.md has no line that begins %q", w)
		}
	}
	if got := len(regexp.MustCompile(`(?m)^\| \d+ \|`).FindAllString(document, -1)); got != len(want) {
		t.Errorf("docs/record-format.md has %d numbered lines, the schema %d kinds and fields", got, len(want))
	}
	for _, w := range []string{
		"# The record format, version " + strconv.Itoa(Version) + "\n", "**header `" + HeaderKey + "`**",
		"first byte is the version, " + strconv.Itoa(Version), "**header `" + TypeHeader + "`**",
	} {
		if !strings.Contains(document, w) {
			t.Errorf("docs/record-format.md does not say %q", w)
		}
	}
}

// TestWrittenKindsAreDocumented compares the column "since" with the kinds that this version knows.
func TestWrittenKindsAreDocumented(t *testing.T) {
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "record-format.md"))
	if err != nil {
		t.Fatal(err)
	}
	known := map[Kind]bool{
		Event: true, State: true, Delete: true, Snapshot: true, Effect: true, Settled: true, TimerSet: true,
		TimerCancelled: true, TimerFired: true, Claim: true, Barrier: true, Release: true, Answered: true, Refused: true,
	}
	for number, name := range recordv1.Kind_name {
		if number == 0 {
			continue
		}
		since := "later"
		if known[Kind(number)] {
			since = strconv.Itoa(Version)
		}
		if w := row(int(number), strings.TrimPrefix(name, "KIND_"), since); !strings.Contains(string(content), "\n"+w) {
			t.Errorf("docs/record-format.md has no line that begins %q", w)
		}
	}
}

// row matches the beginning of a line of a table.
func row(number int, cells ...string) string {
	return "| " + strconv.Itoa(number) + " | " + strings.Join(cells, " | ") + " |"
}
