package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/millrace-io/millrace/gateway"
	"github.com/millrace-io/millrace/internal/observe"
)

// checkEvery is how often readiness is checked, beside the changes that cause a check.
const checkEvery = time.Second

// poke makes a channel with room for one signal have it.
func poke(signal chan<- struct{}) {
	select {
	case signal <- struct{}{}:
	default:
	}
}

// tellReady keeps what grpc.health.v1 says on the public port in step with /readyz, until ctx ends.
// The log has each change after the process was ready for the first time.
func tellReady(ctx context.Context, server *gateway.Server, poked <-chan struct{}, notReady func() error,
	logger *slog.Logger,
) error {
	checks := time.NewTicker(checkEvery)
	defer checks.Stop()
	begun, ready := false, false
	for {
		why := notReady()
		if ctx.Err() != nil {
			return nil
		}
		now := why == nil
		server.SetReady(now)
		switch {
		case now == ready || !begun:
		case now:
			logger.Info("ready")
		default:
			logger.Warn("not ready", observe.Cause, why)
		}
		begun, ready = begun || now, now
		select {
		case <-checks.C:
		case <-poked:
		case <-ctx.Done():
			return nil
		}
	}
}
