package broker_test

import (
	"slices"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// TestTable: a table answers who owns and who follows, and for names and partitions that it does not have.
func TestTable(t *testing.T) {
	table := &broker.Table{
		Members:  []broker.Member{{Name: "a", Address: "a:1"}, {Name: "b", Address: "b:1"}},
		Owners:   []int32{1, 0, -1, 1},
		Standbys: [][]int32{{0}, {1}, {0, 1}, nil},
	}
	if m, ok := table.Owner(0); !ok || m.Name != "b" {
		t.Errorf("partition 0 is owned by %v, %v", m, ok)
	}
	for _, p := range []int32{-1, 2, 4} {
		if m, ok := table.Owner(p); ok {
			t.Errorf("partition %d is owned by %v", p, m)
		}
	}
	if owned := table.Owned("b"); !slices.Equal(owned, []int32{0, 3}) {
		t.Errorf("b owns %v", owned)
	}
	if followed := table.Followed("a"); !slices.Equal(followed, []int32{0, 2}) {
		t.Errorf("a follows %v", followed)
	}
	if _, ok := table.Member("c"); ok || table.Owned("c") != nil || table.Followed("c") != nil {
		t.Error("c has a place in the table")
	}
	var none *broker.Table
	if _, ok := none.Owner(0); ok || none.Followed("a") != nil {
		t.Error("no table names an owner")
	}
}
