package embedded

import (
	"testing"

	broker "github.com/millrace-io/millrace/broker-adapter"
	"github.com/millrace-io/millrace/broker-adapter/brokertest"
)

// TestConformance runs the suite on a real directory.
func TestConformance(t *testing.T) {
	brokertest.Run(t, brokertest.Options{
		Open: func(t *testing.T) broker.Log { return mustOpen(t, Options{Dir: t.TempDir()}) },
		Reopen: func(t *testing.T, closed broker.Log) broker.Log {
			return mustOpen(t, Options{Dir: closed.(*Log).Dir()})
		},
		Compact: compactedAlready,
	})
}

// TestConformanceInMemory runs the suite on the ephemeral log.
func TestConformanceInMemory(t *testing.T) {
	brokertest.Run(t, brokertest.Options{
		Open:    func(t *testing.T) broker.Log { return mustOpen(t, Options{Ephemeral: true}) },
		Compact: compactedAlready,
	})
}

// compactedAlready does nothing: this log compacts while it appends.
func compactedAlready(*testing.T, broker.Log, broker.Partition) {}

// mustOpen opens a log and closes it with the test.
func mustOpen(t testing.TB, o Options) *Log {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}
