package query

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/entities"
)

func testSealer(t testing.TB) sealer {
	t.Helper()
	s, err := newSealer([KeySize]byte(testKey))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPageTokens: what is sealed is opened; nothing else is.
func TestPageTokens(t *testing.T) {
	s := testSealer(t)
	want := &page{
		dataset: 7, table: 12, method: "/x/List", arguments: [32]byte{1, 2, 3}, frontier: []byte("a\x00\x01b"),
		positions: []entities.Position{{Partition: 3, Next: 1 << 40}, {Partition: 4095, Next: 1}},
	}
	token := s.seal(pageVersion, want, [nonceSize]byte{9})
	if got, err := s.open(pageVersion, token); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("opened %+v, %v", got, err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, want.frontier) || bytes.Contains(raw, []byte(want.method)) {
		t.Error("it can be read")
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 0x40
		if _, err := s.open(pageVersion, base64.RawURLEncoding.EncodeToString(changed)); err == nil {
			t.Errorf("byte %d was changed, and it is opened", i)
		}
		if _, err := s.open(pageVersion, base64.RawURLEncoding.EncodeToString(raw[:i])); err == nil {
			t.Errorf("it is cut after %d bytes, and opened", i)
		}
	}
}

// FuzzPageToken: a token from outside is refused, or was sealed by us; content that is damaged is
// refused.
func FuzzPageToken(f *testing.F) {
	s := testSealer(f)
	p := &page{dataset: 7, method: "/x/List", frontier: []byte("abc"), positions: []entities.Position{{Partition: 3, Next: 9}}}
	token := s.seal(pageVersion, p, [nonceSize]byte{1})
	f.Add(token, []byte{})
	f.Add("", bytes.Repeat([]byte{pageVersion}, 60))
	f.Fuzz(func(t *testing.T, text string, content []byte) {
		if got, err := s.open(pageVersion, text); err == nil && !reflect.DeepEqual(got, p) {
			t.Errorf("%q is opened as %+v", text, got)
		}
		if got, err := parsePage(pageVersion, content); err == nil {
			again, err := s.open(pageVersion, s.seal(pageVersion, got, [nonceSize]byte{2}))
			if err != nil && len(got.frontier) < maxPageToken/4 ||
				err == nil && (string(again.frontier) != string(got.frontier) || again.method != got.method) {
				t.Errorf("%x: %+v becomes %+v, %v", content, got, again, err)
			}
		}
	})
}

// TestScanLimit: a page ends where it has examined enough, without a row, and the next one goes on;
// so all rows are found.
func TestScanLimit(t *testing.T) {
	for _, partitions := range []int32{1, 4} {
		b := orders(t, partitions, func(o *Options) { o.MaxExamined = 7 })
		fill(b)
		b.put(`order_id: "o05" small: 5 note: "x"`)
		b.put(`order_id: "o28" small: 28 note: "x"`)
		var found []string
		token, pages, empty := "", 0, 0
		for ; pages < 20; pages++ {
			ids, next := b.ids("ListScan", fmt.Sprintf(`above: 3 filter: "note = \"*x\"" page_token: %q`, token))
			if ids == "" {
				empty++
			} else {
				found = append(found, ids)
			}
			if token = next; token == "" {
				break
			}
		}
		if got := strings.Join(found, " "); got != "o05 o28" || pages != 4 || empty != 3 {
			t.Errorf("%d partitions: %s in %d pages, %d of them empty", partitions, got, pages+1, empty)
		}
	}
}

// TestReplyLimit: a page ends when its rows have enough bytes, with at least one row.
func TestReplyLimit(t *testing.T) {
	b := orders(t, 4, func(o *Options) { o.MaxReply = 100 })
	for i := range 4 {
		b.put(fmt.Sprintf(`order_id: "o%d" customer_id: "c" note: %q placed_at: {seconds: %d}`, i,
			strings.Repeat("x", 60*i), 100-i))
	}
	var pages []string
	for token := ""; len(pages) < 10; {
		ids, next := b.ids("ListByCustomer", fmt.Sprintf(`customer_id: "c" page_token: %q`, token))
		pages = append(pages, ids)
		if token = next; token == "" {
			break
		}
	}
	if got := strings.Join(pages, "|"); got != "o0 o1 o2|o3" {
		t.Errorf("pages %s", got)
	}
}

// TestAWorkerThatDies: a list goes on behind the last entry with the rows of another replica, and
// at no earlier moment.
func TestAWorkerThatDies(t *testing.T) {
	for _, order := range []string{"placed_at", "placed_at desc"} {
		for _, fails := range [][]int{{1}, {3}, {2, 2, 2}} {
			b := orders(t, 1)
			fill(b)
			b.position[0] = 77
			request := fmt.Sprintf(`customer_id: "c1" page_size: 5 order_by: %q`, order)
			want, _ := b.ids("ListByCustomer", request)
			b.failAfter, b.scans = fails, nil
			if got, _ := b.ids("ListByCustomer", request); got != want || len(b.scans) != len(fails)+1 {
				t.Errorf("%s %v: %s in %d scans, want %s", order, fails, got, len(b.scans), want)
			}
			if b.scans[1].Reach != 77 {
				t.Errorf("it may go back: %+v", b.scans[1])
			}
		}
	}
	b := orders(t, 1)
	fill(b)
	b.failAfter = []int{1, 1, 1, 1, 1}
	_, err := b.call("ListByCustomer", `customer_id: "c1"`)
	wantRefusal(t, "again and again", err, "INTERNAL: orders.ListByCustomer: the rows cannot be read: the worker is gone")
}

// TestPagesWhileRowsChange: a page includes what the page before included, and rows that stay in
// their place are returned once.
func TestPagesWhileRowsChange(t *testing.T) {
	b := orders(t, 4)
	fill(b)
	for i := range b.position {
		b.position[i], b.committed[i] = 100, 100
	}
	first, token := b.ids("ListByCustomer", `customer_id: "c1"`)
	delete(b.rows, "o22")
	delete(b.rows, "o19")
	b.put(`order_id: "new" customer_id: "c1" placed_at: {seconds: 2000000}`)
	b.scans = nil
	second, _ := b.ids("ListByCustomer", fmt.Sprintf(`customer_id: "c1" page_token: %q`, token))
	if first != "o28 o25 o22" || second != "o16 o13 o10" {
		t.Errorf("pages %s and %s", first, second)
	}
	for _, s := range b.scans {
		if s.Reach != 100 {
			t.Errorf("the second page need not include what the first had: %+v", s)
		}
	}
}
