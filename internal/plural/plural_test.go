package plural_test

import (
	"testing"

	"github.com/millrace-io/millrace/internal/plural"
)

func TestPlural(t *testing.T) {
	for want, got := range map[string]string{
		"1 worker": plural.Of(1, "worker"), "0 workers": plural.Of(0, "worker"), "2 workers": plural.Of(2, "worker"),
		"1 entity": plural.Of(uint64(1), "entity"), "3 entities": plural.Of(int64(3), "entity"),
		"1 loss": plural.Of(1, "loss"), "2 losses": plural.Of(2, "loss"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
