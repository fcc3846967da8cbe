package invariant_test

import (
	"testing"

	"github.com/millrace-io/millrace/internal/invariant"
	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestCheckPanicsOnlyInCheckedBuilds(t *testing.T) {
	for _, tc := range []struct {
		cond bool
		want any
	}{
		{true, nil},
		{false, "invariant broken: offset 7 follows 9"},
	} {
		want := tc.want
		if !invariant.Enabled {
			want = nil
		}
		if got := recovered(func() { invariant.Check(tc.cond, "offset %d follows %d", 7, 9) }); got != want {
			t.Errorf("Check(%v) panicked with %v, want %v", tc.cond, got, want)
		}
	}
}

func recovered(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}
