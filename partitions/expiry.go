package partitions

import (
	"errors"
	"time"

	"github.com/millrace-io/millrace/entities"
	"github.com/millrace-io/millrace/materializer"
)

// expiry frees the space of what is no longer needed: command ids outside their window, and effects
// that are done at their source.
type expiry struct {
	// last is when command ids were removed last.
	last time.Time
	// forgetting: rows of effects of other partitions are being removed, from the row next on.
	forgetting bool
	next       []byte
}

const (
	// mostExpired bounds the command ids that are removed at a time.
	mostExpired = 10_000
	// mostForgotten bounds the rows of effects that are examined at a time.
	mostForgotten = 1024
)

// run removes a few rows. n is the number of command ids among them.
func (e *expiry) run(image *materializer.Image, now time.Time, logTime int64, window time.Duration) (n int, err error) {
	if now.Sub(e.last) >= expireEvery {
		e.last, e.forgetting = now, true
		n, err = materializer.Expire(
			image.Store, image.Address, logTime-int64(window), logTime-int64(entities.RoutedWindow), mostExpired,
		)
	}
	if !e.forgetting {
		return n, err
	}
	var failed error
	e.next, _, failed = materializer.Forget(image.Store, image.Address, e.next, mostForgotten)
	e.forgetting = e.next != nil
	return n, errors.Join(err, failed)
}
