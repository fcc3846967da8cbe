//go:build mutation

package mutation

import (
	"fmt"
	"os"
	"slices"
)

var out = chosen() //nolint:gochecknoglobals // the environment's choice, read once

func chosen() string {
	name := os.Getenv(Variable)
	if name != "" && !slices.Contains(Lines(), name) {
		panic(fmt.Sprintf("%s=%q: there is no such line; there are %v", Variable, name, Lines()))
	}
	return name
}

// On says whether a safety line is taken out.
func On(line string) bool { return line == out }
