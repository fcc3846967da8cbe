package sdk_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// Crashes that tests provoke are logged with their stacks; tests look at results instead.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(twice{m})
}
