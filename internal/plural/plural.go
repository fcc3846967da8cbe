// Package plural writes numbers with their nouns.
package plural

import (
	"fmt"
	"strings"
)

// Integer is any type of whole numbers.
type Integer interface {
	~int | ~int32 | ~int64 | ~uint | ~uint16 | ~uint32 | ~uint64
}

// Of returns a number with its noun, as in "1 worker" and "2 workers". The noun is in the singular.
func Of[N Integer](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, found := strings.CutSuffix(noun, "y"); found {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	if strings.HasSuffix(noun, "s") || strings.HasSuffix(noun, "ch") {
		return fmt.Sprintf("%d %ses", n, noun)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
