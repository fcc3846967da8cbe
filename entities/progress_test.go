package entities

import "testing"

// TestProgress: which effects a progress covers, and which of two is later.
func TestProgress(t *testing.T) {
	p := Progress{Through: 10, Open: []int64{3, 7}}
	for offset, done := range map[int64]bool{
		0: true, 2: true, 3: false, 4: true, 7: false, 9: true, 10: false, 11: false,
	} {
		if p.Done(offset) != done {
			t.Errorf("Done(%d) is %v", offset, !done)
		}
	}
	less := Progress{Through: 9}
	fewer := Progress{Through: 10, Open: []int64{7}}
	for name, test := range map[string]struct{ a, b, want Progress }{
		"further":                {less, p, p},
		"fewer exceptions":       {p, fewer, fewer},
		"nothing is known":       {Progress{}, less, less},
		"nothing new is said":    {p, Progress{}, p},
		"further, in any order":  {p, less, p},
		"as far, with more open": {fewer, p, fewer},
	} {
		if got := test.a.Latest(test.b); got.Through != test.want.Through || len(got.Open) != len(test.want.Open) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
