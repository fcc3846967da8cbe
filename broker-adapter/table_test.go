package broker_test

import (
	"slices"
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
)

// TestTable: who owns and who follows, also for names and partitions that the table does not have.
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

// TestTablesAreChecked: a table that names workers or partitions beyond its own is refused, and
// nothing in it is used as an index.
func TestTablesAreChecked(t *testing.T) {
	members := []broker.Member{{Name: "a"}, {Name: "b"}}
	for name, test := range map[string]struct {
		table broker.Table
		right bool
	}{
		"empty":                     {broker.Table{}, true},
		"whole":                     {broker.Table{Members: members, Leaving: 1, Owners: []int32{0, -1, 1}, Standbys: [][]int32{{1}, nil, {0}}, HandedOver: []int32{2}}, true},
		"no followers":              {broker.Table{Members: members, Owners: []int32{0, 1}}, true},
		"an owner beyond":           {broker.Table{Members: members, Owners: []int32{2}}, false},
		"an owner below":            {broker.Table{Members: members, Owners: []int32{-2}}, false},
		"an owner without members":  {broker.Table{Owners: []int32{0}}, false},
		"a standby beyond":          {broker.Table{Members: members, Owners: []int32{0}, Standbys: [][]int32{{2}}}, false},
		"a standby below":           {broker.Table{Members: members, Owners: []int32{0}, Standbys: [][]int32{{-1}}}, false},
		"standbys of more":          {broker.Table{Members: members, Owners: []int32{0}, Standbys: make([][]int32, 2)}, false},
		"handed over beyond":        {broker.Table{Members: members, Owners: []int32{0}, HandedOver: []int32{1}}, false},
		"more leave than there are": {broker.Table{Members: members, Leaving: 3, Owners: []int32{0}}, false},
		"fewer than none leave":     {broker.Table{Members: members, Leaving: -1, Owners: []int32{0}}, false},
	} {
		if err := test.table.Check(); (err == nil) != test.right {
			t.Errorf("%s: %v", name, err)
		}
	}
}
