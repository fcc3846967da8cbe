package routing

import (
	"errors"
	"time"

	"github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/entities"
)

// mixedRetry is when to send a command again whose method not every worker serves yet.
const mixedRetry = time.Second

// Mixed returns the error of a command. It differs from err if a worker did not know the method
// while the workers of the table serve different versions: then another worker may have the method,
// and the owner will have it when the upgrade is complete. So the command may be sent again, and an
// effect or a timer is kept and not given up.
func Mixed(t *broker.Table, err error) error {
	e, failed := errors.AsType[*entities.Error](err)
	if !failed || e.Reason != entities.UnknownMethod || t.Versions() < 2 {
		return err
	}
	return &entities.Error{
		Reason: entities.Unavailable, Outcome: e.Outcome, RetryAfter: mixedRetry, Cause: err,
		Message: e.Message + ": the workers of the app serve different versions at the moment, and this one not that method: " +
			"send it again, or look at `millrace cluster status`",
	}
}
