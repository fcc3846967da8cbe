package simlog_test

import (
	"testing"

	"go.uber.org/goleak"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/brokertest"
	"github.com/millrace-io/millrace/broker-adapter/simlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestConformance runs the suite in automatic mode.
func TestConformance(t *testing.T) {
	world := simlog.New(simlog.Options{})
	client := func() broker.Log { return world.Client("worker") }
	brokertest.Run(t, brokertest.Options{
		Open:   func(*testing.T) broker.Log { return client() },
		Reopen: func(*testing.T, broker.Log) broker.Log { return client() },
		Join:   func(*testing.T, broker.Log) broker.Log { return client() },
		Compact: func(t *testing.T, log broker.Log, p broker.Partition) {
			end, err := log.End(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			world.Compact(p, end)
		},
		Kill: func(t *testing.T, log broker.Log) {
			c, ok := log.(*simlog.Client)
			if !ok {
				t.Fatalf("kill a %T", log)
			}
			c.Crash()
		},
	})
}
