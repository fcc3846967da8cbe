package httprule

import "fmt"

// Place is a part of a request.
type Place string

// The places of a request.
const (
	Path  Place = "path"
	Query Place = "query"
	Body  Place = "body"
)

// Error says what in a request cannot be bound. The request must be changed.
type Error struct {
	Place Place
	// Field is the field or parameter, as the rule or the request names it; "" if there is none.
	Field string
	// Problem is the reason, and how to write it.
	Problem string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", e.Place, e.Problem)
	}
	return fmt.Sprintf("%s: %s: %s", e.Place, shown(e.Field), e.Problem)
}

// maxShown bounds what an error repeats of a request, in bytes: errors are logged, and sent back.
const maxShown = 64

// shown is a text of a request in an error.
func shown(text string) string {
	if len(text) > maxShown {
		return fmt.Sprintf("%q...", text[:maxShown])
	}
	return fmt.Sprintf("%q", text)
}
