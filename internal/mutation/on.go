//go:build mutation

package mutation

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

var out = chosen() //nolint:gochecknoglobals // the environment's choice, read once

func chosen() []string {
	text := os.Getenv(Variable)
	if text == "" {
		return nil
	}
	names := strings.Split(text, ",")
	for _, name := range names {
		if !slices.Contains(Lines(), name) {
			panic(fmt.Sprintf("%s=%q: there is no line %q; there are %v", Variable, text, name, Lines()))
		}
	}
	return names
}

// On reports whether a safety line is removed.
func On(line string) bool { return slices.Contains(out, line) }
