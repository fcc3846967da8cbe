package discovery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/millrace-io/millrace/internal/backoff"
	"github.com/millrace-io/millrace/internal/clock"
	"github.com/millrace-io/millrace/proto/gen/cloudstate"
)

// reportTimeout bounds a report to the function, whose answer means nothing: it is told, and the
// worker waits for another function in any case.
const reportTimeout = 5 * time.Second

// Policy says how to wait for a function. The zero value is the default.
type Policy struct {
	// Backoff is the pause between attempts; the default grows from 0.2 s to 1 s. Functions that
	// are restarted beside the proxy should not be waited for longer than that.
	Backoff backoff.Policy
	// AttemptTimeout bounds one attempt; 0 means 10 s.
	AttemptTimeout time.Duration
	// Clock is for tests; nil means the machine's.
	Clock clock.Clock
	// OnRetry is called for every attempt that did not reach the function, counted from 1, with its
	// error and the pause before the next one. It may be nil. It is called by the goroutine that
	// called Discover.
	OnRetry func(attempt int, err error, pause time.Duration)
}

func (p Policy) withDefaults() Policy {
	if p.Backoff == (backoff.Policy{}) {
		p.Backoff = backoff.Policy{First: 200 * time.Millisecond, Max: time.Second, Jitter: 0.2}
	}
	if p.AttemptTimeout == 0 {
		p.AttemptTimeout = 10 * time.Second
	}
	if p.Clock == nil {
		p.Clock = clock.Wall{}
	}
	if p.OnRetry == nil {
		p.OnRetry = func(int, error, time.Duration) {}
	}
	return p
}

// Handshake discovers a function and reads its answer. A *RejectedError has been reported to the
// function already.
func Handshake(ctx context.Context, conn grpc.ClientConnInterface, info *cloudstate.ProxyInfo, policy Policy,
	opts Options,
) (*Catalog, error) {
	spec, err := Discover(ctx, conn, info, policy)
	if err != nil {
		return nil, err
	}
	catalog, err := NewCatalog(spec, opts)
	if rejected, ok := errors.AsType[*RejectedError](err); ok {
		// The author of the function reads its log rather than ours.
		if err := ReportError(ctx, conn, strings.Join(rejected.Problems, "\n")); err != nil {
			return nil, errors.Join(rejected, err)
		}
	}
	return catalog, err
}

// Discover asks a function for its spec, again and again until it answers or ctx ends. It returns
// the first answer and never asks again after it: functions count on being asked once.
func Discover(ctx context.Context, conn grpc.ClientConnInterface, info *cloudstate.ProxyInfo,
	policy Policy,
) (*cloudstate.EntitySpec, error) {
	policy = policy.withDefaults()
	for attempt := 1; ; attempt++ {
		spec, err := discoverOnce(ctx, conn, info, policy.AttemptTimeout)
		if err == nil {
			return spec, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("discover the user function: %w (last attempt: %w)", context.Cause(ctx), err)
		}
		pause := policy.Backoff.Pause(attempt)
		policy.OnRetry(attempt, err, pause)
		due, giveUp := policy.Clock.After(pause)
		select {
		case <-due:
		case <-ctx.Done():
			giveUp()
			return nil, fmt.Errorf("discover the user function: %w (last attempt: %w)", context.Cause(ctx), err)
		}
	}
}

// discoverOnce makes one attempt. A function that accepts the connection and does not answer, as
// one that still starts, must not hold up the next attempt.
func discoverOnce(ctx context.Context, conn grpc.ClientConnInterface, info *cloudstate.ProxyInfo,
	timeout time.Duration,
) (*cloudstate.EntitySpec, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return cloudstate.NewEntityDiscoveryClient(conn).Discover(ctx, info)
}

// ReportError reports a mistake in a function to it. It waits at most 5 s.
func ReportError(ctx context.Context, conn grpc.ClientConnInterface, message string) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	report := &cloudstate.UserFunctionError{Message: message}
	if _, err := cloudstate.NewEntityDiscoveryClient(conn).ReportError(ctx, report); err != nil {
		return fmt.Errorf("report to the user function: %w", err)
	}
	return nil
}
