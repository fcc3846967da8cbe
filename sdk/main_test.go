package sdk_test

import (
	"log/slog"
	"testing"

	"github.com/millrace-io/millrace/internal/leaktest"
)

func TestMain(m *testing.M) {
	// Crashes that tests provoke are logged with their stacks; tests look at results instead.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	leaktest.Main(leaktest.Twice(m, func() string {
		shared = true
		return "with sessions on a shared stream"
	}))
}
