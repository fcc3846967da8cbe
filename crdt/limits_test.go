package crdt

import (
	"errors"
	"strings"
	"testing"
)

// TestLimits: what is at a limit may be written, and one more is refused with the limit's name.
func TestLimits(t *testing.T) {
	element := func(bytes int) Element { return Element{TypeURL: "t", Value: strings.Repeat("x", bytes-1)} }
	path := func(depth int) []Step {
		steps := make([]Step, depth)
		for i := range steps {
			steps[i] = Step{Key: element(2), Type: ORMap}
		}
		return steps
	}
	for name, test := range map[string]struct {
		make  func(n int) []Change
		limit int
		want  string
	}{
		"nesting": {
			func(n int) []Change { return []Change{{Op: OpTouch, Path: path(n)}} }, 8,
			"change 1: nested maps: 9, and the limit is 8; nothing was written: above the limit",
		},
		"element": {
			func(n int) []Change { return []Change{{Op: OpAdd, Element: element(n)}} }, 64 << 10,
			"change 1: bytes of an element: 65537, and the limit is 65536; nothing was written: above the limit",
		},
		"key": {
			func(n int) []Change { return []Change{{Op: OpTouch, Path: []Step{{Key: element(n), Type: Flag}}}} }, 64 << 10,
			"change 1: bytes of a key: 65537, and the limit is 65536; nothing was written: above the limit",
		},
		"register": {
			func(n int) []Change { return []Change{{Op: OpSet, Element: element(n)}} }, 512 << 10,
			"change 1: bytes of a register: 524289, and the limit is 524288; nothing was written: above the limit",
		},
		"changes": {
			func(n int) []Change { return make([]Change, n) }, 10_000,
			"changes of one command: 10001, and the limit is 10000; nothing was written: above the limit",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := DefaultLimits().Check(&Command{Changes: test.make(test.limit)}); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			err := DefaultLimits().Check(&Command{Changes: test.make(test.limit + 1)})
			if !errors.Is(err, ErrLimit) || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}
