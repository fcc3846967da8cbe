package discovery

import (
	"fmt"
	"strings"
)

// RejectedError says that a function's answer to discovery cannot be served. It names everything
// that is wrong, so that all of it can be fixed at once.
type RejectedError struct {
	// Problems are sentences for the function's author: what is wrong, where, and how to fix it.
	// Never empty.
	Problems []string
}

// Error returns all problems in one line.
func (e *RejectedError) Error() string {
	return "the user function cannot be served: " + strings.Join(e.Problems, "; ")
}

// problems collects what is wrong with one answer.
type problems []string

func (p *problems) addf(format string, args ...any) {
	*p = append(*p, fmt.Sprintf(format, args...))
}

// err returns the rejection, nil when nothing is wrong.
func (p *problems) err() error {
	if len(*p) == 0 {
		return nil
	}
	return &RejectedError{Problems: *p}
}
