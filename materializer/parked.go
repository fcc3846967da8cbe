package materializer

import (
	"strings"

	"github.com/millrace-io/millrace/entities/record"
)

// ParkedFilter chooses parked effects. What is empty does not count.
type ParkedFilter struct {
	// Service is the full name of the target's service, Method the bare name of its method.
	Service, Method string
	// Error is a part of the last attempt's error.
	Error string
}

// Matches reports whether the filter chooses an effect to this target. An effect whose target
// cannot be read is chosen by its error only.
func (f *ParkedFilter) Matches(e *Effect) bool {
	if f.Service != "" || f.Method != "" {
		target, err := record.DecodeTarget(e.Target, e.Payload)
		if err != nil || (f.Service != "" && f.Service != target.Service) || (f.Method != "" && f.Method != target.Method) {
			return false
		}
	}
	return strings.Contains(e.Parked, f.Error)
}
